"""Endpoints as people write them, and what a name server may answer."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.mesh.endpoint import parse_endpoint
from core0.mesh.resolve import Ask, Found, _NoSuchName, believe, encode_question, read_answer, resolve


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("203.0.113.1:51820", ("203.0.113.1", 51820)),
        ("[2001:db8::1]:1", ("2001:db8::1", 1)),
        ("hub.example.org:65535", ("hub.example.org", 65535)),
        ("hub:7", ("hub", 7)),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "hub",
        "hub:",
        "hub:0",
        "hub:65536",
        "hub:+1",
        "hub:٣",
        "-hub:1",
        "a..b:1",
        "1.2.3:1",
        "1.2.3.256:1",
        "2001:db8::1:51820",
        "[2001:db8::1]",
        "[hub]:1",
        "[1.2.3.4]:1",
        "h b:1",
        "x" * 64 + ":1",
        "a." * 127 + "a:1",
        "hub:1\n",
        "hub\0:1",
    ],
)
def test_what_is_no_endpoint_says_why(text: str) -> None:
    with pytest.raises(ValueError, match=r"it has no port|is no IPv6 address|brackets|neither a name"):
        parse_endpoint(text)


def answer_to(question: bytes, *records: tuple[int, bytes], code: int = 0, aliased: bool = False) -> bytes:
    """A name server's answer: names by a pointer to the question's (RFC 1035, 4.1.4)."""
    number = question[:2]
    alias = [(5, b"\3hub\xc0\x0c")] if aliased else []
    found = b"".join(
        b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data for kind, data in (*alias, *records)
    )
    return (
        number
        + struct.pack(">HHHHH", 0x8180 | code, 1, len(records) + len(alias), 0, 0)
        + question[12:]
        + found
    )


QUESTION = encode_question(7, "hub.example.org", 1)


def test_the_addresses_of_an_answer_are_read_behind_aliases() -> None:
    address = socket.inet_aton("203.0.113.1")
    answer = answer_to(QUESTION, (1, address), (28, bytes(16)), aliased=True)
    assert read_answer(answer, QUESTION, 1) == ("203.0.113.1",)
    assert read_answer(answer_to(QUESTION), QUESTION, 1) == ()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(answer_to(QUESTION, code=3), _NoSuchName, id="no such name"),
        pytest.param(answer_to(QUESTION, code=2), ValueError, id="the server failed"),
        pytest.param(answer_to(QUESTION, (1, bytes(4)))[:-8], ValueError, id="it is cut"),
        pytest.param(
            answer_to(encode_question(7, "bad.example.org", 1), (1, bytes(4))), ValueError, id="another"
        ),
        pytest.param(QUESTION, ValueError, id="a question"),
    ],
)
def test_what_is_no_answer_is_not_believed(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_answer(answer, QUESTION, 1)


@given(st.binary(max_size=200))
def test_no_answer_breaks_the_resolver(rubbish: bytes) -> None:
    try:
        read_answer(
            QUESTION[:2] + b"\x81\x80\0\1" + rubbish[:6].ljust(6, b"\1") + QUESTION[12:] + rubbish,
            QUESTION,
            1,
        )
    except ValueError:
        return


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[bytes], bytes]], int]]:
    """Serves names on the loopback by a function from a question to its answer; returns the port."""
    ends: list[tuple[socket.socket, threading.Thread]] = []

    def start(answer: Callable[[bytes], bytes]) -> int:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))

        def run() -> None:
            while True:
                question, sender = server.recvfrom(512)
                if not question:
                    return
                server.sendto(answer(question), sender)

        thread = threading.Thread(target=run)
        thread.start()
        ends.append((server, thread))
        return int(server.getsockname()[1])

    yield start
    for server, thread in ends:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
            stop.sendto(b"", server.getsockname())
        thread.join()
        server.close()


def test_a_host_with_an_ipv6_address_only_is_found(serve: Callable[[Callable[[bytes], bytes]], int]) -> None:
    address = socket.inet_pton(socket.AF_INET6, "2001:db8::1")

    def answer(question: bytes) -> bytes:
        return answer_to(question, *([(28, address)] if question[-4:-2] == b"\0\x1c" else []))

    assert resolve(Ask("hub.example.org", ("127.0.0.1",)), serve(answer)) == Found(("2001:db8::1",))


def test_a_name_server_that_fails_is_passed_over_and_the_cause_told(
    serve: Callable[[Callable[[bytes], bytes]], int],
) -> None:
    assert resolve(Ask("hub", ("127.0.0.1",)), serve(lambda question: answer_to(question, code=2))) == Found(
        error="127.0.0.1: it answered with error 2"
    )
    assert resolve(Ask("hub", ())) == Found(error="the node knows no name server")
    assert resolve(Ask("hub", ("127.0.0.1",)), serve(lambda question: answer_to(question, code=3))) == Found(
        error="127.0.0.1 knows no such name"
    )


def test_only_addresses_are_believed_of_what_a_stranger_said() -> None:
    assert believe(Found(("203.0.113.1", "evil; rm", "2001:db8::1"))) == Found(("203.0.113.1", "2001:db8::1"))
    assert believe(Found(("evil",), "x" * 999)) == Found(error="x" * 200)
