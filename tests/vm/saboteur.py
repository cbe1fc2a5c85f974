#!/usr/bin/python3.13 -ISB
"""The first program of a test's machine (`rdinit=/saboteur`): it leaves a process behind and becomes the real /init.

That process stays on the initial root, below everything that PID 1 mounts, and reads lines from the serial console.
Nothing of the product knows. Paths are the node's.

    kill NAME ...       end the node's own processes of these names, all at the same moment; containers/NAME for those
                        of a container
    write PATH          append records to a file, each with its number and synchronized before the next, for ever
    reached PATH        how many of them were acknowledged so far
    count PATH          stop that; how many records were acknowledged
    check PATH COUNT    read the file, by each mirror: are its first COUNT records what was written?
    fill PATH           make a file longer until no space is left
    crowd PATH          take all metadata of a folder's file system, and leave it room for data
    ls PATH             what is in a folder
    netem LINK LOSS REORDERED DELAY   lose so many percent of what leaves a link, and send the rest so many
                        milliseconds late but for the percent that overtake it (the machine was given sch_netem)
    lost LINK           how many packets that cost
    run PROGRAM WORD ... run a program of Python that the test brought along; what it prints
"""

import contextlib
import ctypes
import errno
import importlib
import mmap
import os
import runpy
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

FOLDER = Path("/saboteur.d")
# What most programs that it runs import: with the first of them, as a fork has it then already.
PRELOADED = ("json", "re", "select", "subprocess")
FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
# include/uapi/linux/netlink.h, rtnetlink.h and pkt_sched.h
REQUEST, ACK, DUMP, CREATE, REPLACE = 1, 4, 0x300, 0x400, 0x100
NEW_QDISC, GET_QDISC, ERROR, ROOT = 36, 38, 2, 0xFFFFFFFF
KIND, OPTIONS, STATS, REORDER, LATENCY = 1, 2, 3, 3, 10
QUEUE = 1000
SUBREAPER = 36  # linux/prctl.h, PR_SET_CHILD_SUBREAPER
SYSTEM = "/system"  # the branch of core0.wire.paths.CGROUP_SYSTEM, as /proc/PID/cgroup shows it


def main() -> None:
    """Leave the saboteur behind, become /init."""
    if os.fork() == 0:
        serve()
    os.execv("/init", ["/init", *sys.argv[1:]])


def serve() -> None:
    """Obey lines for ever. Real-time priority: on one CPU nobody else runs between the first kill and the last."""
    os.setsid()
    libc().prctl(SUBREAPER, 1, 0, 0, 0)  # what its programs leave behind is not PID 1's
    mount("proc")
    mount("devtmpfs")
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    console = os.open(FOLDER / "devtmpfs" / "ttyS0", os.O_RDWR | os.O_NOCTTY)
    tell(console, "listens")
    with os.fdopen(console, "rb") as lines:
        for line in lines:
            command, *words = line.decode(errors="replace").split() or [""]
            if command == "kill":
                tell(console, kill(words))
            elif command in VERBS:
                tell(console, f"{command}: {VERBS[command](*words)}")


def tell(console: int, text: str) -> None:
    """Print a line."""
    os.write(console, f"saboteur: {text}\n".encode())


def kill(names: list[str]) -> str:
    """SIGKILL to every process of these names; returns what became of each."""
    found = {name: list(processes(name)) for name in names}
    for pids in found.values():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    return "; ".join(f"killed {name} {pids}" if pids else f"found no {name}" for name, pids in found.items())


def of_node(path: str) -> Path:
    """A path of the node from here: it has left the initial root."""
    return FOLDER / "proc/1/root" / path.lstrip("/")


def write(path: str) -> str:
    """Begin to append records."""
    WRITERS[path] = writer = Writer(of_node(path))
    writer.start()
    return "begun"


def reached(path: str) -> str:
    """How far a writer is."""
    return str(WRITERS[path].acknowledged)


def count(path: str) -> str:
    """End a writer."""
    writer = WRITERS.pop(path)
    writer.stopping.set()
    writer.join(60)
    return f"{writer.acknowledged} records{writer.trouble}"


class Writer(threading.Thread):
    """Appends records for as long as it can."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.stopping = threading.Event()
        self.acknowledged = 0
        self.trouble = ""

    def run(self) -> None:
        be_ordinary()
        try:
            with self.path.open("wb", buffering=0) as file:
                while not self.stopping.is_set():
                    file.write(record(self.acknowledged))
                    os.fsync(file.fileno())
                    self.acknowledged += 1
        except OSError as error:
            self.trouble = f", then {error.strerror}"


def record(number: int) -> bytes:
    """4 KiB that no other record is like; tests/vm/writing.py writes such ones, too."""
    return b"%07d\n" % number * 512


def check(path: str, wanted: str) -> str:
    """Whether the first records are there; what comes behind them was not acknowledged."""
    said = {as_reader(parity, lambda: read(of_node(path), int(wanted))) for parity in (0, 1)}
    return " and ".join(sorted(said))


def as_reader(parity: int, work: Callable[[], str]) -> str:
    """Do something in a thread of that parity: btrfs chooses the mirror that it reads by the reader's number."""
    said: list[str] = []

    def run() -> None:
        if threading.get_native_id() % 2 == parity:
            said.append(work())

    while not said:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    return said[0]


def direct(path: str, flags: int) -> int:
    """Open a file past the cache."""
    return os.open(path, flags | os.O_DIRECT)


def read(path: Path, wanted: int) -> str:
    """Whether the first records are there. Past the cache: btrfs counts no errors of what it reads ahead."""
    number = 0
    try:
        with open(path, "rb", 0, opener=direct) as file, mmap.mmap(-1, 4096) as page:
            for number in range(wanted):
                if file.readinto(page) != 4096 or page[:] != record(number):
                    return f"record {number} is wrong"
    except OSError as error:
        return f"record {number}: {error.strerror}"
    return f"all {wanted} records are right"


def fill(path: str) -> str:
    """Take space, in smaller and smaller pieces, until the kernel refuses a page."""
    size, piece = 0, 64 << 20
    with of_node(path).open("wb", buffering=0) as file:
        while True:
            try:
                os.posix_fallocate(file.fileno(), size, piece)
            except OSError as error:
                if piece == 4096:
                    return f"{size >> 20} MiB, then {error.strerror}"
                piece //= 2
            else:
                size += piece


def crowd(path: str) -> str:
    """Take all space for data, then all for metadata, then give some for data back in each part of the disk."""
    folder = of_node(path)
    pieces = list(take(lambda number: fill_piece(folder / f"piece{number}")))
    (folder / "crowd").touch()
    count = sum(
        len(list(take(lambda number: os.setxattr(folder / "crowd", f"user.{size}.{number}", bytes(size)))))  # noqa: B023
        for size in (15000, 1000)
    )
    for number in pieces[::2]:
        (folder / f"piece{number}").unlink()
    with (folder / "crowd").open("rb") as file:
        ctypes.CDLL(None).syncfs(file.fileno())  # sync(2) would wait for disks that hang, too
    return f"{count} attributes and {len(pieces)} pieces"


def take(work: Callable[[int], None]) -> Iterator[int]:
    """Do something with 0, 1, … until no space is left."""
    number = 0
    while True:
        try:
            work(number)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return
        yield number
        number += 1


def fill_piece(path: Path) -> None:
    """A file of 4 MiB."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 4 << 20)


def ls(path: str) -> str:
    """What is in a folder."""
    return " ".join(sorted(one.name for one in of_node(path).iterdir()))


def netem(link: str, loss: str, reordered: str, delay: str) -> str:
    """Make a link a bad one by the kernel's network emulator (tc-netem(8))."""
    with (FOLDER / "sch_netem.ko").open("rb") as module:
        refused = libc().syscall(FINIT_MODULE[os.uname().machine], module.fileno(), b"", 0) != 0
        if refused and ctypes.get_errno() != errno.EEXIST:
            return os.strerror(ctypes.get_errno())
    overtaking = struct.pack("=II", share(reordered), 0)
    late = struct.pack("=q", int(delay) * 1_000_000)
    options = struct.pack("=6I", 0, QUEUE, share(loss), 1, 0, 0)  # a gap of 1: each may overtake
    options += attribute(REORDER, overtaking) + attribute(LATENCY, late)
    body = attribute(KIND, b"netem\0") + attribute(OPTIONS, options)
    (answer,) = ask(NEW_QDISC, ACK | CREATE | REPLACE, link, body)
    return os.strerror(-struct.unpack_from("=i", answer, 16)[0])


def share(percent: str) -> int:
    """A probability as the emulator has it."""
    return int(percent) * 0xFFFFFFFF // 100


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute of a netlink message."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def ask(kind: int, flags: int, link: str, body: bytes = b"") -> list[bytes]:
    """The kernel's answers to a message about the queue of a link."""
    body = struct.pack("=BxHiIII", 0, 0, socket.if_nametoindex(link), 0, ROOT, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as wire:
        wire.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST | flags, 1, 0) + body)
        data, answers = wire.recv(1 << 16), []
    while len(data) >= 16:
        length = struct.unpack_from("=I", data)[0]
        answers.append(data[:length])
        data = data[(length + 3) & ~3 :]
    return answers


def lost(link: str) -> str:
    """What the emulator lost (struct tc_stats: bytes, packets, drops)."""
    for answer in ask(GET_QDISC, DUMP, link):
        found, rest = {}, answer[36:]
        while len(rest) >= 4:
            length, kind = struct.unpack_from("=HH", rest)
            found[kind], rest = rest[4:length], rest[(length + 3) & ~3 :]
        if found.get(KIND) == b"netem\0" and struct.unpack_from("=i", answer, 20)[0] == socket.if_nametoindex(
            link
        ):
            return str(struct.unpack_from("=QII", found[STATS])[2])
    return "no netem there"


def run(program: str, *words: str) -> str:
    """Run a program as an ordinary process: it must not keep the node from its processor.

    By a fork: a new interpreter takes longer to start than most of the programs run, on an emulated machine.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    reader, writer = os.pipe()
    errors = os.memfd_create("errors")
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        become(str(FOLDER / program), words, writer, errors)
    os.close(writer)
    with os.fdopen(reader) as told, os.fdopen(errors) as complained:
        said = told.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        complained.seek(0)
        said = said if code == 0 else f"{code}: {complained.read()[-2000:]}"
    reap()
    return " | ".join(said.splitlines())


def become(program: str, words: tuple[str, ...], output: int, errors: int) -> NoReturn:
    """Go on as a program, and end with it."""
    code = 1
    try:
        be_ordinary()
        for ours, theirs in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (errors, 2)):
            os.dup2(ours, theirs)
            os.close(ours)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115 — they end with the process
        sys.argv = [program, *words]
        runpy.run_path(program, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 — whatever it is, the test shall read it
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def reap() -> None:
    """Take leave of what programs left behind and has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def be_ordinary() -> None:
    """Give the saboteur's priority up."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


WRITERS: dict[str, Writer] = {}
VERBS: dict[str, Callable[..., str]] = {
    one.__name__: one for one in (write, reached, count, check, fill, crowd, ls, netem, lost, run)
}


def processes(name: str) -> Iterator[int]:
    """The living processes of one of the node's services, or of a container."""
    wanted = f"0::/{name}" if "/" in name else f"0::{SYSTEM}/{name}"
    for folder in (FOLDER / "proc").glob("[1-9]*"):
        try:
            group = (folder / "cgroup").read_text().strip()
        except OSError:  # it has ended meanwhile
            continue
        if group == wanted or ("/" in name and group.startswith(f"{wanted}/")):
            yield int(folder.name)


def mount(kind: str) -> None:
    """Mount a file system of the kernel's own in the folder of its name."""
    if libc().mount(kind.encode(), bytes(FOLDER / kind), kind.encode(), 0, None) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount {kind}")


def libc() -> ctypes.CDLL:
    """The C library."""
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    main()
