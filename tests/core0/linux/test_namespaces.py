"""Another network namespace for a moment: what is opened there stays there, and the thread comes back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core0.linux import namespaces, netlink
from core0.linux.netlink import Netlink

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]
OWN = Path("/proc/thread-self/ns/net")

# The second setns(2) fails, as that of a thread that comes back.
_CANNOT_RETURN = """
import os, threading
from core0.linux import namespaces
other, enter, done = os.open("/proc/thread-self/ns/net", os.O_RDONLY), namespaces.enter, []
def refuse(namespace, kind):
    done.append(kind)
    if len(done) == 2:
        raise OSError(1, "cannot enter the namespace: Operation not permitted")
    enter(namespace, kind)
namespaces.enter = refuse
with namespaces.inside_network(other):
    pass
print("went on")
"""


@pytest.fixture
def other() -> int:
    """A network namespace with nothing but its loopback."""
    own = os.open(OWN, os.O_RDONLY)
    namespaces.leave(namespaces.NEWNET)
    made = os.open(OWN, os.O_RDONLY)
    namespaces.enter(own, namespaces.NEWNET)
    os.close(own)
    return made


def descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def test_a_socket_that_is_opened_inside_belongs_there(other: int) -> None:
    before = OWN.readlink()
    with namespaces.inside_network(other):
        assert OWN.readlink() != before
        rtnetlink = Netlink()
    assert OWN.readlink() == before
    with rtnetlink:
        rtnetlink.apply([netlink.set_up(1)])
        assert [(link.name, link.is_up) for link in rtnetlink.links()] == [("lo", True)]
    os.close(other)


def test_an_error_inside_leads_back(other: int) -> None:
    before, opened = OWN.readlink(), descriptors()
    with pytest.raises(OSError, match="no such link"), namespaces.inside_network(other):
        raise OSError("no such link")
    assert (OWN.readlink(), descriptors()) == (before, opened)
    os.close(other)


def test_what_is_no_network_namespace_is_refused() -> None:
    before = OWN.readlink()
    with (
        Path(os.devnull).open("rb") as file,
        pytest.raises(OSError, match="cannot enter the namespace: Invalid argument"),
        namespaces.inside_network(file.fileno()),
    ):
        pass
    assert OWN.readlink() == before


def test_a_process_that_cannot_come_back_ends() -> None:
    done = subprocess.run([sys.executable, "-c", _CANNOT_RETURN], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot go on in another network namespace" in done.stderr
