"""Secrets in the node's memory: who may read them, how many there may be, and who waits for them."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from core0.containers.model import Wanted
from core0.containers.secrets import SecretStore
from core0.wire.control import RefusedError
from core0.wire.secrets import LARGEST_OF_ALL, SecretValue
from core0.wire.types import ContainerSpec, SecretFile
from tests.host_node import HostNode

VALUE = b"correct horse battery staple"
SPEC = ContainerSpec("http://127.0.0.1:9/demo/", "ab" * 32)
WITH = msgspec.structs.replace(SPEC, secrets=(SecretFile("db"),))


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "secrets")


def read(store: SecretStore, name: str) -> bytes:
    descriptor = store.open(name)
    try:
        return os.read(descriptor, 1000)
    finally:
        os.close(descriptor)


def test_a_secret_is_kept_for_root_only_and_replaced_as_a_whole(store: SecretStore, tmp_path: Path) -> None:
    assert store.names() == ()
    store.put("db", VALUE)
    former = store.open("db")
    store.put("db", b"another")
    assert os.read(former, 100) == VALUE, "who has the earlier one keeps it"
    os.close(former)
    assert read(store, "db") == b"another"
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "secrets" / "db").stat().st_mode & 0o777 == 0o600
    assert store.get("db").bytes == 7
    store.delete("db")
    assert store.names() == ()


def test_what_is_not_there_is_told(store: SecretStore) -> None:
    for verb in (store.get, store.delete):
        with pytest.raises(RefusedError, match="cannot find secret 'db': there is none") as refused:
            verb("db")
        assert refused.value.refusal.status == 404
    with pytest.raises(OSError, match="secret db is not there any more"):
        store.open("db")


def test_more_than_the_node_has_room_for_is_refused(store: SecretStore) -> None:
    half = b"x" * (LARGEST_OF_ALL // 2)
    store.put("one", half)
    store.put("two", half)
    store.put("two", half)
    with pytest.raises(RefusedError, match="over 4 MiB") as refused:
        store.put("three", b"x")
    assert (refused.value.refusal.status, refused.value.refusal.pointer) == (409, "/value")
    assert store.names() == ("one", "two")


def test_a_value_does_not_show_itself() -> None:
    assert repr(SecretValue(VALUE)) == "SecretValue(28 bytes)"


async def test_a_container_waits_for_a_secret_that_a_reboot_ended(host_node: HostNode) -> None:
    host_node.wanted["demo"] = Wanted(WITH)
    async with host_node.daemon() as state:
        containers = state.containers
        containers._world.store.images[WITH.image] = image()
        async with asyncio.timeout(20):
            while containers.get("demo").state != "waiting":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert "it needs secret db" in containers.get("demo").why
        assert "'zn secret set db' gives it again" in containers.get("demo").why
        containers.put_secret("db", VALUE)
        async with asyncio.timeout(20):
            while containers.get("demo").state == "waiting":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(RefusedError, match="container demo has it"):
            containers.delete_secret("db")


def image() -> object:
    from core0.images.model import Image, RunConfig

    return Image("sha256:" + "1" * 64, RunConfig(), ())


async def test_a_value_is_in_no_answer_no_event_and_no_file_but_its_own(host_node: HostNode) -> None:
    async with host_node.daemon() as state, host_node.api(), host_node.operator() as client:
        kept = await client.put_secret("db", SecretValue(VALUE))
        assert (kept.name, kept.bytes, kept.containers) == ("db", len(VALUE), ())
        await client.put_container("demo", WITH)
        answers = [await client.secrets(), await client.secret("db"), await client.containers()]
        told = await state.events.wait_after(0, 0)
        assert (await client.secret("db")).containers == ("demo",)
        found = msgspec.json.encode([answers, told])
        assert b"secret" in found
        for shown in (VALUE, msgspec.json.encode(VALUE).strip(b'"')):
            assert shown not in found
            holding = [
                file.name
                for file in host_node.folder.rglob("*")
                if file.is_file() and shown in file.read_bytes()
            ]
            assert holding in ([], ["db"])


async def test_a_container_with_a_secret_that_is_not_there_is_refused_by_its_field(
    host_node: HostNode,
) -> None:
    async with host_node.daemon() as state:
        state.containers.put_secret("there", VALUE)
        spec = msgspec.structs.replace(SPEC, secrets=(SecretFile("there"), SecretFile("db")))
        with pytest.raises(RefusedError, match="cannot show it secret db") as refused:
            await state.containers.put("demo", spec)
        assert (refused.value.refusal.status, refused.value.refusal.pointer) == (422, "/secrets/1/secret")
        assert state.containers.list() == ()
