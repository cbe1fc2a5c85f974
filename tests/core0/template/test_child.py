"""What a fork is told while it builds itself."""

import socket

import pytest

from core0.template.child import _wait_for_link
from core0.template.messages import LINKED


def test_a_container_goes_on_once_it_is_linked() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(LINKED)
        _wait_for_link(theirs)


def test_a_container_whose_node_daemon_has_ended_does_not_go_on() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        ours.close()
        with pytest.raises(OSError, match="the node is gone"):
            _wait_for_link(theirs)
