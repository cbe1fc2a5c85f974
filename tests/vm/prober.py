#!/usr/bin/python3.13 -ISB
"""What a process in a container has and may do: run in one of the node's and in one of crun's, printed as rows.

A row is a name and a set of words: each word is something that the process has or that succeeded. Less is stricter,
so that two containers are compared row by row as sets. Standard library only, as root of the container; nothing is
changed that outlasts it. Arguments: `HOW:ADDRESS:PORT` for each way into the network that is tried.

The rows are printed as JSON, compressed, in base64: they pass a serial console.
"""

import base64
import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

Rows = dict[str, list[str]]

LIBC = ctypes.CDLL(None, use_errno=True)
# Beyond the last number of Linux 6.12, and beyond those that x32 has for itself (asm/unistd_x32.h).
NUMBERS, X32_NUMBERS, X32 = range(480), (*range(480), *range(512, 548)), 0x40000000
# 32-bit calls: a sample is enough, as a filter that refuses them looks at the architecture alone.
I386_NUMBERS = (1, 3, 4, 5, 11, 20, 102, 120, 192, 243, 310, 354, 425, 435)
# What no file system but the container's own lies below.
TREES = ("/proc", "/proc/self", "/sys", "/dev")
# Of a process: others are there by chance, and these are the process's own descriptors and memory.
SKIPPED = {"task", "fd", "fdinfo", "map_files", "stdin", "stdout", "stderr"}
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
LIMITS = {name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
# linux/sched.h
NEW = {
    "NEWTIME": 0x80, "NEWNS": 0x20000, "NEWCGROUP": 0x2000000, "NEWUTS": 0x4000000, "NEWIPC": 0x8000000,
    "NEWUSER": 0x10000000, "NEWPID": 0x20000000, "NEWNET": 0x40000000,
}  # fmt: skip
RT_SIGRETURN, CLONE, PTRACE, PERSONALITY, KEYCTL, UNSHARE, SETNS = 15, 56, 101, 135, 250, 272, 308
IOCTLS = {
    "TIOCSTI": 0x5412, "TIOCLINUX": 0x541C, "TIOCCONS": 0x541D,
    "BTRFS_IOC_SUBVOL_CREATE": 0x5000940E, "BTRFS_IOC_SNAP_CREATE": 0x50009401, "BTRFS_IOC_QUOTA_CTL": 0xC0109428,
    "FIFREEZE": 0xC0045877, "FS_IOC_SETFLAGS": 0x40086602,
}  # fmt: skip
SOCKET_TYPES = {"stream": 1, "dgram": 2, "raw": 3, "seqpacket": 5}
FAMILIES = range(46)
SECONDS = 3.0


def main() -> None:
    """Print all rows."""
    rows: Rows = {}
    for section in (process, limits, mounts, files, calls, arguments, sockets):
        rows.update(section())
    rows.update(network(sys.argv[1:]))
    print(base64.b64encode(zlib.compress(json.dumps(rows).encode(), 9)).decode())


def process() -> Rows:
    """Capabilities by set and bit, identity, namespaces, descriptors, and what the kernel notes of a process."""
    status = dict(line.split(":\t", 1) for line in read("/proc/self/status").splitlines() if ":\t" in line)
    rows = {
        f"capabilities {name[3:].lower()}": bits(status[name]) for name in status if name.startswith("Cap")
    }
    rows |= {f"namespace {name}": [os.readlink(f"/proc/self/ns/{name}")] for name in NAMESPACES}
    rows |= {f"ids {name}": read(f"/proc/self/{name}").split() for name in ("uid_map", "gid_map")}
    rows["groups"] = status["Groups"].split()
    rows["descriptors"] = sorted(map(str, descriptors()))
    rows["new privileges"] = [] if status["NoNewPrivs"] == "1" else ["by exec"]
    rows["system call filter"] = [] if status["Seccomp"] == "2" else ["none"]
    rows["oom_score_adj"] = [read("/proc/self/oom_score_adj").strip()]
    rows["session keyring"] = outcome(KEYCTL, 0, -3, 1)
    rows["securebits"] = [str(LIBC.prctl(27, 0, 0, 0, 0))]
    rows["cgroup"] = [read("/proc/self/cgroup").strip()]
    return rows


def bits(mask: str) -> list[str]:
    """The numbers of a hexadecimal mask's bits."""
    return [str(number) for number in range(64) if int(mask, 16) >> number & 1]


def descriptors() -> Iterator[int]:
    """What was open before this looked."""
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:  # the listing's own
            continue
        yield int(name)


def limits() -> Rows:
    """Soft and hard limits of a process."""
    rows = {}
    for name, number in LIMITS.items():
        soft, hard = resource.getrlimit(number)
        for kind, value in (("soft", soft), ("hard", hard)):
            rows[f"{name} {kind}"] = ["unlimited" if value == resource.RLIM_INFINITY else str(value)]
    return rows


def mounts() -> Rows:
    """What each mount lets one do: write, set-user-ID, devices, execution."""
    rows = {}
    for line in read("/proc/self/mountinfo").splitlines():
        words = line.split()
        options = words[5].split(",")
        allowed = [f"no {one}" for one in ("ro", "nosuid", "nodev", "noexec") if one not in options]
        shared = [word.partition(":")[0] for word in words[6 : words.index("-")]]
        rows[f"mount {words[4]}"] = [*allowed, *shared]
    return rows


def files() -> Rows:
    """What of /proc, /sys and /dev can be read, written, listed and changed."""
    rows = {}
    for tree in TREES:
        for place, below, names in os.walk(tree):
            below[:] = [name for name in below if not name.isdigit() and name not in SKIPPED]
            rows[f"path {place}"] = folder_rights(place)
            rows |= {
                f"path {place}/{name}": rights(f"{place}/{name}") for name in names if name not in SKIPPED
            }
    return {name: words for name, words in rows.items() if words}


def folder_rights(path: str) -> list[str]:
    """Whether a folder shows anything, and whether a file can be made in it."""
    words = []
    try:
        words += ["list"] if os.listdir(path) else []
        os.mkdir(f"{path}/probe")
        os.rmdir(f"{path}/probe")
        words.append("make")
    except OSError:
        pass
    return words


def rights(path: str) -> list[str]:
    """Whether a file can be read and be opened for writing. A device in /proc or /sys is a mask: nothing is there."""
    try:
        kind = os.stat(path).st_mode
    except OSError:
        return []
    if stat.S_ISDIR(kind) or (stat.S_ISCHR(kind) and not path.startswith("/dev/")):
        return []
    return [word for word, opens in (("read", opens_to_read), ("write", opens_to_write)) if opens(path)]


def opens_to_read(path: str) -> bool:
    """Whether a byte can be asked for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False
    try:
        os.read(descriptor, 1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def opens_to_write(path: str) -> bool:
    """Whether it can be opened; nothing is written."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:
        return False
    return True


def calls() -> Rows:
    """The kernel's answer to every system call, each with arguments that none can use."""
    call = gate(SYSCALL)
    rows = verdicts("call", NUMBERS, call)
    rows |= verdicts("x32 call", X32_NUMBERS, lambda number: call(number | X32))
    return rows | verdicts("i386 call", I386_NUMBERS, gate(INT80))


def gate(code: str) -> Callable[[int], int]:
    """A function of machine code that does a system call and gives its error number; 0 if it succeeded."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex(code))
    PAGES.append(page)
    function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_int)(
        ctypes.addressof(ctypes.c_char.from_buffer(page))
    )
    return lambda number: max(0, -function(number))


PAGES: list[mmap.mmap] = []


# push rbx; mov ebx, edi; mov eax, edi; -1 into rdi, rsi, rdx, r10, r8 and r9; syscall; a child that fork or vfork
# made ends without touching the stack, which it may share: test rax, rax; jnz end; sub ebx, 57; cmp ebx, 1; ja end;
# mov eax, 60; xor edi, edi; syscall; end: pop rbx; ret
SYSCALL = """53 89fb 89f8 48c7c7ffffffff 48c7c6ffffffff 48c7c2ffffffff 49c7c2ffffffff 49c7c0ffffffff
    49c7c1ffffffff 0f05 4885c0 7511 83eb39 83fb01 7709 b83c000000 31ff 0f05 5b c3"""
# push rbx; mov eax, edi; -1 into ebx, ecx and edx; int 0x80; cdqe; pop rbx; ret
INT80 = "53 89f8 83cbff 83c9ff 83caff cd80 4898 5b c3"


def verdicts(kind: str, numbers: Sequence[int], call: Callable[[int], int]) -> Rows:
    """What became of each: a child goes through them, and another one takes over behind one that ended it.

    EPERM, EACCES and ENOSYS are refusals, and so is SIGSYS: the row is empty then.
    """
    rows, left = {}, list(numbers)
    while left:
        answers, ended = in_child(left, call)
        for number, answer in zip(left, answers, strict=False):
            rows[f"{kind} {number}"] = [] if answer in REFUSALS else ["passes"]
        left = left[len(answers) :]
        if left:
            number = left.pop(0)
            if ended == signal.SIGSEGV and number != RT_SIGRETURN:
                raise RuntimeError(f"{kind} {number}: the probe is wrong: {signal.strsignal(ended)}")
            rows[f"{kind} {number}"] = [] if ended == signal.SIGSYS else ["passes"]
    return rows


REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOSYS}


def in_child(numbers: list[int], call: Callable[[int], int]) -> tuple[list[int], int]:
    """The answers until the child's end, and the signal that ended it."""
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        call_each(numbers, call, writable)
    os.close(writable)
    with open(readable, "rb") as answers:
        data = answers.read()
    _, status = os.waitpid(pid, 0)
    return [one for (one,) in struct.iter_unpack("=i", data[: len(data) & ~3])], os.WTERMSIG(status)


def call_each(numbers: list[int], call: Callable[[int], int], writable: int) -> NoReturn:
    """The child's part."""
    for number in numbers:
        signal.setitimer(signal.ITIMER_REAL, 0.5)  # pause(2) ends so
        os.write(writable, struct.pack("=i", call(number)))
    os._exit(0)


def arguments() -> Rows:
    """Calls of which filters look at the arguments."""
    rows = {f"unshare {name}": outcome_in_child(UNSHARE, flag) for name, flag in NEW.items()}
    rows |= {
        f"clone {name}": outcome_in_child(CLONE, flag | signal.SIGCHLD, 0, 0, 0, 0)
        for name, flag in NEW.items()
    }
    rows |= {f"setns {name}": setns(name) for name in NAMESPACES}
    rows |= {f"ioctl {name}": ioctl(number) for name, number in IOCTLS.items()}
    rows |= {
        f"personality {one:#x}": outcome_in_child(PERSONALITY, one)
        for one in (0, 8, 0x20000, 0x40000, 0x400000)
    }
    devices = {"disk": (stat.S_IFBLK, 7, 0), "memory": (stat.S_IFCHR, 1, 1), "null": (stat.S_IFCHR, 1, 3)}
    rows |= {f"mknod {name}": mknod(*device) for name, device in devices.items()}
    return rows | {"ptrace traceme": outcome_in_child(PTRACE, 0, 0, 0, 0)}


def outcome(number: int, *words: int) -> list[str]:
    """Whether a call passes; an error that is no refusal comes from behind the refusals."""
    ctypes.set_errno(0)
    passes = LIBC.syscall(*(ctypes.c_long(one) for one in (number, *words))) != -1
    return ["passes"] if passes or ctypes.get_errno() not in REFUSALS else []


def outcome_in_child(number: int, *words: int) -> list[str]:
    """The same for a call that changes its process."""
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writable, b"passes" if outcome(number, *words) else b"refused")
        os._exit(0)
    os.close(writable)
    with open(readable, "rb") as said:
        words_said = said.read().decode()
    os.waitpid(pid, 0)
    return [] if words_said.startswith("refused") else ["passes"]


def setns(name: str) -> list[str]:
    """Entering the namespace that this process is in."""
    descriptor = os.open(f"/proc/self/ns/{name}", os.O_RDONLY)
    try:
        return outcome_in_child(SETNS, descriptor, 0)
    finally:
        os.close(descriptor)


def ioctl(number: int) -> list[str]:
    """A call on a terminal for those of terminals, else on the container's own folder."""
    terminal = (number & 0xFF00) == 0x5400
    try:
        descriptor = os.open(
            "/dev/ptmx" if terminal else "/tmp", os.O_RDWR | os.O_NOCTTY if terminal else os.O_RDONLY
        )
    except OSError:
        return []
    try:
        fcntl.ioctl(descriptor, number, bytearray(4096))
    except OSError as error:
        return [] if error.errno in REFUSALS else ["passes"]
    finally:
        os.close(descriptor)
    return ["passes"]


def mknod(kind: int, major: int, minor: int) -> list[str]:
    """A device of the node in the container's own folder."""
    path = "/tmp/probe-device"
    try:
        os.mknod(path, kind | 0o600, os.makedev(major, minor))
        os.unlink(path)
    except OSError:
        return []
    return ["passes"]


def sockets() -> Rows:
    """Every family and type of socket."""
    rows = {}
    for family in FAMILIES:
        for name, kind in SOCKET_TYPES.items():
            try:
                socket.socket(family, kind, 1 if kind == SOCKET_TYPES["raw"] else 0).close()
                words = ["made"]
            except OSError:
                words = []
            rows[f"socket of family {family}, {name}"] = words
    return rows


def network(ways: list[str]) -> Rows:
    """Who answers: all are asked at once. Refusal by a reset is an answer, too: the packet got there."""
    rows, waiting = {}, {}
    for way in ways:
        name, address, port = way.split("/")
        asking = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        asking.setblocking(False)
        rows[f"reach {name}"] = []
        try:
            asking.connect((address, int(port)))
        except BlockingIOError:
            waiting[asking.fileno()] = (name, asking)
        except OSError:
            continue
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLOUT)
    while waiting and (ready := poll.poll(SECONDS * 1000)):
        for descriptor, _ in ready:
            name, asking = waiting.pop(descriptor)
            poll.unregister(descriptor)
            answer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            rows[f"reach {name}"] = ["answers"] if answer in (0, errno.ECONNREFUSED) else []
    return rows


def read(path: str) -> str:
    """A file's text."""
    with open(path, errors="replace") as file:
        return file.read()


if __name__ == "__main__":
    main()
