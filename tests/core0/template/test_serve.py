"""The template's answers to the node daemon, up to the fork."""

import socket
from pathlib import Path

import msgspec

from core0.init.supervise import Service
from core0.template.main import _serve
from core0.template.messages import FORK, NAMES, Forked

UNUSED = Service("names", run=lambda _: None)


def serve(*descriptors: int, listen: bool, what: bytes = FORK) -> bytes:
    """Serve one request of a daemon, which may have ended before it listens to the answer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [what], list(descriptors))
        ours.shutdown(socket.SHUT_WR)
        if not listen:
            ours.close()
        _serve(theirs, theirs, -1, UNUSED)
        theirs.close()
        return ours.recv(4096) if listen else b""


def opened() -> list[str]:
    """The descriptors of this process."""
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def test_a_request_with_too_few_descriptors_is_refused_and_they_are_closed() -> None:
    before = opened()
    answer = msgspec.json.decode(serve(0, 1, listen=True), type=Forked)
    assert (answer.pid, answer.error) == (0, "cannot fork: 2 descriptors came, not 5")
    assert opened() == before


def test_the_process_for_names_is_not_started_without_its_socket() -> None:
    answer = msgspec.json.decode(serve(0, 1, listen=True, what=NAMES), type=Forked)
    assert (answer.pid, answer.error) == (0, "cannot start names: 2 descriptors came, not 1")


def test_more_descriptors_than_asked_for_are_refused_and_closed() -> None:
    before = opened()
    assert serve(*[0] * 9, listen=True) == b""
    assert opened() == before


def test_a_daemon_that_ends_before_its_answer_does_not_end_the_template() -> None:
    serve(0, listen=False)
