"""Stands in for the node's template process: preloads once, then forks a Core-X into new namespaces for each request.

Arguments: descriptor of the socket that requests come by, seccomp program, the console's folder. The certificate and
key that it warms up with come on standard input. A request is a JSON object of `root`, `group` and `kept`, a root
folder, a folder of a cgroup, and a file that outlives Core-X, or '-' for each, with four descriptors: the listener,
what late imports and the exit code are written to, and the start message. The answer is the process id of who waits
for that Core-X, passes signals on, and tells its exit code.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import msgspec

from core0.linux import privileges
from core0.wire.types import CAPABILITIES
from corex.main import Given, run, tls_context
from corex.preload import preload
from corex.wire.boot import Boot

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_REC_PRIVATE = 0x4000 | 0x40000
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


class LateImports:
    """Sees every import that was not satisfied by sys.modules."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        os.write(self.descriptor, name.encode() + b"\n")
        return None


def check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "cannot make the namespaces")


def enter(group: str) -> int | None:
    """Move to a cgroup; returns its folder."""
    if group == "-":
        return None
    Path(group, "cgroup.procs").write_text("0")
    return os.open(group, os.O_RDONLY | os.O_DIRECTORY)


def become_container(
    boot: Boot, listener: int, late_imports: int, request: dict[str, str], seccomp: bytes
) -> None:
    root = request["root"]
    cgroup_fd = enter(request["group"])
    kept_fd = None if request["kept"] == "-" else os.open(request["kept"], os.O_RDWR | os.O_CREAT, 0o600)
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    check(libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None))
    check(libc.mount(b"proc", b"/proc", b"proc", 0, None))
    tls = tls_context(boot)
    if Path(root, "dev/pts").is_dir():
        options = b"newinstance,ptmxmode=0666,mode=0620"
        check(libc.mount(b"devpts", f"{root}/dev/pts".encode(), b"devpts", 0, options))
    root_fd = None if root == "-" else os.open(root, os.O_PATH | os.O_DIRECTORY)
    # What a careless caller leaves behind, and no child may inherit.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    privileges.keep_capabilities(CAPABILITIES)
    privileges.forbid_new_privileges()
    privileges.install_seccomp(seccomp)
    sys.meta_path.insert(0, LateImports(late_imports))
    given = Given(root_fd, kept_fd, None, cgroup_fd)
    run(boot, tls=tls, listener=socket.socket(fileno=listener), given=given)


def main() -> None:
    talk, seccomp, console = socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
    warm_up = json.loads(sys.stdin.buffer.read())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a careless caller's
    preload(warm_up["certificate"], warm_up["key"], console)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who asked is told by a pipe
    program = seccomp.read_bytes()
    with talk:
        answer_requests(talk, program)


def answer_requests(talk: socket.socket, program: bytes) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(talk, 4096, 4)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            talk.close()
            wait_for_container(json.loads(message), descriptors, program)
        for descriptor in descriptors:
            os.close(descriptor)
        talk.send(str(pid).encode())


def wait_for_container(request: dict[str, str], descriptors: list[int], seccomp: bytes) -> None:
    listener, late_imports, report, start_message = descriptors
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    check(libc.unshare(CLONE_NEWPID | CLONE_NEWNS))
    pid = os.fork()
    if pid == 0:
        os.close(report)
        with os.fdopen(start_message, "rb") as file:
            boot = msgspec.json.decode(file.read(), type=Boot)
        become_container(boot, listener, late_imports, request, seccomp)
    for descriptor in (listener, late_imports, start_message):
        os.close(descriptor)
    for forwarded in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(forwarded, lambda number, _frame: os.kill(pid, number))
    _, status = os.waitpid(pid, 0)
    os.write(report, bytes((os.waitstatus_to_exitcode(status) & 0xFF,)))
    os._exit(0)


main()
