"""What processes tell of themselves, message by message."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corex.process.notify import Inbox, parse


@pytest.fixture
async def heard() -> list[dict[str, str]]:
    return []


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        yield end


def inbox_of(heard: list[dict[str, str]], *ours: int) -> Inbox:
    return Inbox(
        asyncio.get_running_loop(), lambda pid: pid in ours, lambda fields: heard.append(dict(fields))
    )


def address_of(inbox: Inbox) -> str:
    assert inbox.address.startswith("@core-x/")
    return "\0" + inbox.address[1:]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_was_said_before_it_listens_waits(
    heard: list[dict[str, str]], sender: socket.socket
) -> None:
    inbox = inbox_of(heard, os.getpid())
    sender.sendto(b"READY=1\nSTATUS=up", address_of(inbox))
    await turns()
    assert heard == []
    inbox.listen()
    await turns()
    assert heard == [{"READY": "1", "STATUS": "up"}]
    inbox.close()
    inbox.close()
    with pytest.raises(ConnectionRefusedError):
        sender.sendto(b"READY=1", address_of(inbox))


async def test_strangers_and_messages_without_end_do_not_count(
    heard: list[dict[str, str]], sender: socket.socket
) -> None:
    strict, open_ = inbox_of(heard), inbox_of(heard, os.getpid())
    for inbox in (strict, open_):
        inbox.listen()
    sender.sendto(b"READY=1", address_of(strict))
    sender.sendto(b"STATUS=" + b"x" * 5000, address_of(open_))
    sender.sendto(b"", address_of(open_))
    await turns()
    assert heard == [{}], "the empty one is heard, and says nothing"
    strict.close()
    open_.close()


async def test_descriptors_are_closed_once_what_came_before_is_heard(
    heard: list[dict[str, str]], sender: socket.socket
) -> None:
    inbox = inbox_of(heard, os.getpid())
    inbox.listen()
    reader, writer = os.pipe()
    sender.sendto(b"READY=1", address_of(inbox))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("2i", writer, writer))]
    sender.sendmsg([b"BARRIER=1"], rights, 0, address_of(inbox))
    os.close(writer)
    await turns()
    assert heard == [{"READY": "1"}, {"BARRIER": "1"}]
    assert os.read(reader, 1) == b""
    os.close(reader)
    inbox.close()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message(data: bytes) -> None:
    fields = parse(data)
    assert all(name and "=" not in name and "\n" not in name + value for name, value in fields.items())
    assert parse(b"A=b=c\nx\n=y\n") == {"A": "b=c"}
