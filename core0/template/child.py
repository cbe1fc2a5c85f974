"""What a fork of the template does to become a container's Core-X: in order, each step named.

The fork starts in new namespaces as nobody, waits until the node has written its id maps and mounted its root,
builds its own world with no more rights than its namespaces give while the node makes its network link, drops even
those, and calls Core-X. A step that fails is told to the node by name, and the process ends.
"""

import os
import resource
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import msgspec

from core0.linux import files, privileges
from core0.linux.libc import in_words
from core0.template.messages import LINKED, Go, Ready
from core0.template.root import build_root, open_cgroup
from core0.wire import paths
from core0.wire.types import CAPABILITIES, Capability

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from corex.wire.boot import Boot

# What Core-X needs to start processes as others, in the container's root, and to end them.
_OF_COREX = ("KILL", "SETGID", "SETUID", "SYS_CHROOT")
# Groups that may ping without the right to make any packet (icmp(7)): all that a container has.
_PING = "/proc/sys/net/ipv4/ping_group_range"
_EVERY_GROUP = "0 65535"
_LARGEST_BOOT, _LARGEST_GO = 1 << 24, 1 << 16
_MOST_VOLUMES, _MOST_SECRETS = 16, 16


class Descriptors(msgspec.Struct, frozen=True):
    """What the fork was given, as open descriptors."""

    talk: int
    listener: int
    boot: int
    log: int
    runtime: int


def be_container(given: Descriptors) -> NoReturn:
    """Become Core-X. Never returns, never raises."""
    step = "descriptors"
    talk: socket.socket | None = None
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        seccomp = files.read(paths.SECCOMP)
        _keep_only(given)
        talk = socket.socket(fileno=given.talk)
        step = "certificate"
        boot, tls = _load_boot(given.boot)  # while the node does its part
        step = "go"
        go, (root, _work, kept, *rest) = _wait_for_go(talk)
        health = rest.pop() if go.health else None
        step = "user"
        privileges.become_user(0, 0)
        step = "network"
        _configure_namespaces(go)
        step = "root"
        cgroup = open_cgroup()
        build_root(root, go, rest[: len(go.targets)], rest[len(go.targets) :])
        step = "privileges"
        root_of_children = _enter_runtime(given.runtime)
        _drop(go, seccomp)
        step = "link"
        _wait_for_link(talk)
        talk.send(msgspec.json.encode(Ready()))
        talk.close()
        step = "core-x"
        _run(boot, tls, given.listener, (root_of_children, kept, health, cgroup))
    except BaseException as error:  # noqa: BLE001 — whatever happens, this must not go on as the template
        _give_up(talk, step, error)
    os._exit(70)


def _give_up(talk: socket.socket | None, step: str, error: BaseException) -> NoReturn:
    """Tell the node, as long as it listens, and the log."""
    os.write(2, f"Container could not start step={step}\n{traceback.format_exc()}".encode())
    message = f"step {step}: {in_words(error)}"
    try:
        if talk and talk.fileno() >= 0:
            talk.send(msgspec.json.encode(Ready(error=message[:2000])))
    finally:
        os._exit(70)


def _keep_only(given: Descriptors) -> None:
    """Close everything but what was given (fork does not honour close-on-exec); replace 0, 1 and 2."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(given.log, 1)
    os.dup2(given.log, 2)
    kept = sorted((given.talk, given.listener, given.boot, given.runtime))
    low = 3
    for descriptor in kept:
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _wait_for_go(talk: socket.socket) -> tuple[Go, list[int]]:
    """Wait for the node: the message; root, what Core-X kept, volumes and secrets' files as `Go` says, health last.

    What is behind the root stays open: the node reaches the container's files by it.
    """
    from core0.template.main import receive

    talk.settimeout(30)
    data, descriptors = receive(talk, _MOST_VOLUMES + _MOST_SECRETS + 4, _LARGEST_GO)
    if not descriptors:
        raise OSError("the node is gone")
    go = msgspec.json.decode(data, type=Go)
    wanted = 3 + len(go.targets) + len(go.secrets) + go.health
    if len(descriptors) != wanted:
        raise OSError(f"{len(descriptors)} descriptors came, not {wanted}")
    return go, descriptors


def _configure_namespaces(go: Go) -> None:
    """Name the host, and let everybody ping; by paths of the node's, so before the root is the container's."""
    files.write(_PING, _EVERY_GROUP)
    socket.sethostname(go.hostname)


def _wait_for_link(talk: socket.socket) -> None:
    """Wait for the node: it makes the link while this process builds its world; none of its own runs without."""
    if talk.recv(_LARGEST_GO) != LINKED:
        raise OSError("the node is gone")


def _load_boot(descriptor: int) -> "tuple[Boot, ssl.SSLContext]":
    """Core-X's start message; its key is in memory only, and the descriptor is closed after it."""
    from corex.main import tls_context
    from corex.wire.boot import Boot

    with open(descriptor, "rb") as file:
        file.seek(0)
        boot = msgspec.json.decode(file.read(_LARGEST_BOOT), type=Boot)
    return boot, tls_context(boot)


def _enter_runtime(runtime: int) -> int:
    """Core-X itself lives on the node's read-only runtime; its children enter the container's root.

    The runtime is a detached mount: nothing of the container's own mount namespace leads to it, and being not
    dumpable keeps /proc/1/root closed.

    Returns:
        A descriptor of the container's root.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(runtime)
    try:
        os.chroot(".")
    except OSError as error:
        raise OSError(error.errno, f"cannot enter the runtime: {error.strerror}") from None
    os.close(runtime)
    return root


def _drop(go: Go, seccomp: bytes) -> None:
    """Give up everything that a container must not have, the filter last: it forbids what came before."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (go.open_files, go.open_files))
    privileges.join_new_keyring()
    privileges.hide_process()
    _keep_capabilities(go.dropped)
    privileges.forbid_new_privileges()
    privileges.install_seccomp(seccomp)


def _keep_capabilities(dropped: "Sequence[Capability]") -> None:
    """Keep what the container's processes may have, and for Core-X itself what starting them takes.

    A process gets at exec what the bounding set has, so Core-X's own rights do not pass to those that it starts.
    """
    left = [name for name in CAPABILITIES if name not in dropped and "ALL" not in dropped]
    privileges.keep_capabilities(dict.fromkeys((*left, *_OF_COREX)), bound=left)


def _run(
    boot: "Boot", tls: "ssl.SSLContext", listener: int, descriptors: tuple[int, int, int | None, int]
) -> NoReturn:
    from corex.main import Given, run

    sys.stdin = sys.stdout = sys.stderr
    root, kept, health, cgroup = descriptors
    run(boot, tls=tls, listener=socket.socket(fileno=listener), given=Given(root, kept, health, cgroup))
