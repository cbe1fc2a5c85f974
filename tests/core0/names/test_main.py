"""The process that answers, as the node daemon that starts it may leave it."""

import socket

import pytest

from core0.names.main import main


@pytest.mark.parametrize("said", [b"", b"\0"], ids=["before it gave the sockets", "without sockets"])
def test_it_ends_quietly_with_a_node_daemon_that_ended(said: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        with ours:
            ours.sendall(said)
        main(theirs)
