"""Jobs of the worker that move streams: `btrfs send`'s work to a connection, and from connections to `btrfs receive`.

What a stranger sent is read here first (`core0.volumes.stream`), then carried out by `btrfs receive`, which sees one
folder that it can write and no device (`_confine`), and calls what receiving takes (initramfs/seccomp/receive.toml).
"""

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
from typing import NoReturn

import msgspec

from core0.linux import btrfs, files, mounts, namespaces, privileges
from core0.linux.tools import environment, tool
from core0.volumes.model import INCOMING, SNAPSHOTS
from core0.volumes.observe import opened
from core0.volumes.stream import StreamError, StreamReader
from core0.wire import paths, pieces
from core0.wire.control import Refusal, Reply

_PIECE = 256 << 10
_PIPE = 1 << 20
# Bytes between two reports, seconds that a session waits for more of its stream.
_REPORT_EVERY, PATIENCE = 8 << 20, 900.0
_MEMORY = 256 << 20
_RECEIVE_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN")
_LAST_WORDS = 2000
# Seconds that its last words may take.
_GOODBYE = 5.0


class Received(msgspec.Struct, frozen=True):
    """What came: the subvolume's name, the UUID that it had where it was sent, bytes of the stream."""

    name: str
    uuid: str
    offset: int


class Feed(msgspec.Struct, frozen=True):
    """A connection comes with this message; it goes on at this byte."""

    offset: int


class Progress(msgspec.Struct, frozen=True):
    """Bytes that were moved."""

    offset: int


# out


def send_out(
    root: str, volume: str, snapshot: str, base: str, offset: int, digest: str, way: int, control: int
) -> int:
    """Write a snapshot as a stream to a connection.

    Args:
        root: where the pool is mounted.
        volume: the snapshot's volume.
        snapshot: its name.
        base: another snapshot of it, to send only what differs; empty to send all.
        offset: bytes to leave out, because the other side has them.
        digest: SHA-256 of those, hexadecimal.
        way: the connection, blocking.
        control: where to report progress.

    Returns:
        The bytes of the whole stream.
    """
    with socket.socket(fileno=way) as talk, socket.socket(fileno=control) as teller:
        reader, pid = _start_send(root, volume, snapshot, base)
        if _skipped(reader, offset) != (digest if offset else ""):
            detail = "cannot go on with the stream: what came before is not its beginning"
            refusal = Refusal(409, "conflict", detail, "begin again, without an offset")
            pieces.send_reply(talk, Reply(refusal=refusal))
            os.kill(pid, signal.SIGKILL)
            return 0
        pieces.send_reply(talk, Reply())
        total = _relay(reader, talk, teller, offset)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        pieces.send(talk, b"")
        if status:
            cause = os.strerror(status) if status > 0 else f"killed by signal {-status}"
            detail = f"cannot send snapshot {snapshot} of volume {volume}: {cause}"
            refusal = Refusal(
                503, "unavailable", detail, "see the pool's disks with 'zn pool show', then go on"
            )
            pieces.send_reply(talk, Reply(refusal=refusal))
            raise OSError(max(status, 0), detail)
        pieces.send_reply(talk, Reply())
        return total


def _start_send(root: str, volume: str, snapshot: str, base: str) -> tuple[int, int]:
    """The kernel's sending, in a process of its own: the call lasts as long as the stream. Its pipe and its pid."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE)
    pid = os.fork()
    if pid:
        os.close(writer)
        return reader, pid
    try:
        os.close(reader)
        with opened(root) as pool, opened(SNAPSHOTS, pool) as all_, opened(volume, all_) as folder:
            parent = 0
            if base:
                with opened(base, folder) as earlier:
                    parent = btrfs.subvolume(earlier).id
            with opened(snapshot, folder) as source:
                btrfs.send(source, writer, parent=parent)
    except OSError as error:
        os._exit(error.errno or 1)
    finally:
        os._exit(0)


def _skipped(reader: int, offset: int) -> str:
    """Read so many bytes; their SHA-256, empty if there are none."""
    import hashlib

    if not offset:
        return ""
    digest = hashlib.sha256()
    while offset:
        data = os.read(reader, min(_PIECE, offset))
        if not data:
            return "it is shorter"
        digest.update(data)
        offset -= len(data)
    return digest.hexdigest()


def _relay(reader: int, talk: socket.socket, teller: socket.socket, offset: int) -> int:
    said = offset
    while data := os.read(reader, _PIECE):
        pieces.send(talk, data)
        offset += len(data)
        if offset - said >= _REPORT_EVERY:
            said = offset
            _tell(teller, offset)
    return offset


def _tell(teller: socket.socket, offset: int) -> None:
    try:
        teller.send(msgspec.json.encode(Progress(offset)), socket.MSG_DONTWAIT)
    except BlockingIOError:  # the next report says more
        return


# in


def receive_in(root: str, entry: str, parents: tuple[str, ...], control: int) -> Received:
    """Carry out a stream that comes over one connection after the other, in the subvolume `entry` of `incoming`.

    Args:
        root: where the pool is mounted.
        entry: the subvolume.
        parents: UUIDs at which a stream of changes may begin.
        control: gives connections, each with a `Feed`; takes `Progress`.

    Raises:
        OSError: why the stream was refused, as its sender was told; what was received is for sweeping.
    """
    with socket.socket(fileno=control) as teller:
        receiver = _Receiver(root, entry)
        reader = StreamReader()
        try:
            while True:
                talk, wanted = _next_connection(teller)
                with talk:
                    if _take(talk, wanted, reader, parents, receiver, teller):
                        return Received(reader.name, reader.uuid, reader.offset)
                _tell(teller, reader.offset)
        finally:
            receiver.end()


def _next_connection(teller: socket.socket) -> tuple[socket.socket, Feed]:
    """Who goes on with the stream."""
    if not select.select([teller], [], [], PATIENCE)[0]:
        raise OSError(f"nobody sent anything for {PATIENCE:.0f} s; begin again")
    data, descriptors, _, _ = socket.recv_fds(teller, 4096, 1)
    if not descriptors:  # the node daemon has ended
        os._exit(0)
    return socket.socket(fileno=descriptors[0]), msgspec.json.decode(data, type=Feed)


def _take(
    talk: socket.socket,
    wanted: Feed,
    reader: StreamReader,
    parents: tuple[str, ...],
    receiver: "_Receiver",
    teller: socket.socket,
) -> bool:
    """Take what a connection brings; True once the stream is whole, False if the connection was lost before.

    Raises:
        OSError: the stream cannot be carried out; the sender was told.
    """
    if wanted.offset != reader.offset:
        detail = f"cannot go on with the stream at byte {wanted.offset}: {reader.offset} arrived"
        remedy = f"go on at byte {reader.offset}"
        pieces.send_reply(talk, Reply(refusal=Refusal(409, "conflict", detail, remedy, "/offset")))
        return False
    pieces.send_reply(talk, _offset_of(reader))
    try:
        whole = _relay_in(talk, reader, parents, receiver, teller)
        if whole:
            receiver.finish()
    except (StreamError, OSError) as error:
        why = receiver.trouble() if isinstance(error, BrokenPipeError) else str(error)
        refusal = _refusal(why)
        with contextlib.suppress(OSError):  # whom it concerns may have left
            pieces.part(talk, Reply(refusal=refusal), _GOODBYE)
        raise OSError(refusal.detail) from None
    if whole:
        pieces.send_reply(talk, _offset_of(reader))
    return whole


def _relay_in(
    talk: socket.socket,
    reader: StreamReader,
    parents: tuple[str, ...],
    receiver: "_Receiver",
    teller: socket.socket,
) -> bool:
    said = reader.offset
    while data := _received(talk):
        done = reader.feed(data)
        if reader.parent and reader.parent not in parents:
            raise StreamError(f"it begins at the snapshot {reader.parent}, which the volume does not have")
        receiver.feed(done)
        if reader.offset - said >= _REPORT_EVERY:
            said = reader.offset
            _tell(teller, said)
    if data is None:
        return False
    if not reader.ended:
        raise StreamError(f"it is cut: it ends after {reader.offset} bytes, before its end mark")
    return True


def _received(talk: socket.socket) -> bytes | None:
    try:
        return pieces.receive(talk)
    except ConnectionError:
        return None


def _refusal(why: str) -> Refusal:
    detail = f"cannot import the stream: {why}"
    if "quota exceeded" in why or "No space left" in why:
        return Refusal(507, "full", detail, "give the volume a larger size, or the pool more room")
    return Refusal(422, "invalid", detail, "nothing was changed; export it again, or another one")


def _offset_of(reader: StreamReader) -> Reply:
    return Reply(msgspec.Raw(msgspec.json.encode(Progress(reader.offset))))


class _Receiver:
    """`btrfs receive`, confined."""

    def __init__(self, root: str, entry: str) -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        reader, self._feed = os.pipe()
        fcntl.fcntl(self._feed, fcntl.F_SETPIPE_SZ, _PIPE)
        self._words = os.memfd_create("words")
        self._pid = os.fork()
        if self._pid == 0:
            _become_receiver(root, entry, reader, self._words)
        os.close(reader)
        self._process = os.pidfd_open(self._pid)

    def feed(self, data: bytes) -> None:
        """Give it complete commands. Raises BrokenPipeError if it has ended."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._feed, view) :]

    def finish(self) -> None:
        """Wait until all is carried out. Raises OSError with its words."""
        os.close(self._feed)
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if status:
            raise OSError(self.trouble() or f"btrfs receive ended with {status}")

    def trouble(self) -> str:
        """What it said, on one line."""
        select.select([self._process], [], [], _GOODBYE)
        text = os.pread(self._words, _LAST_WORDS, 0).decode(errors="replace")
        return "; ".join(line.removeprefix("ERROR: ") for line in text.splitlines() if line)

    def end(self) -> None:
        """Kill it, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)


def _become_receiver(root: str, entry: str, reader: int, words: int) -> NoReturn:
    try:
        os.dup2(reader, 0)
        os.dup2(words, 1)
        os.dup2(words, 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        program, system_calls = tool("btrfs"), files.read(paths.RECEIVE_SECCOMP)
        place = _confine(root, entry)
        privileges.install_seccomp(system_calls)
        arguments = [program, "--quiet", "receive", "-e", "-m", _POOL, place]
        os.execve(program, arguments, environment())  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot confine it: {error}".encode())
    finally:
        os._exit(70)


# Where it sees the pool: /run is there on every machine, and holds what is nobody's business.
_RUN, _POOL = "/run", "/run/pool"


def _confine(root: str, entry: str) -> str:
    """A view of this machine in which one folder can be written and no device opened; few capabilities, no network.

    A stream may make a symbolic link and then write through it: wherever it leads, nothing can be written there.
    """
    namespaces.leave(namespaces.NEWNS | namespaces.NEWNET | namespaces.NEWIPC)
    mounts.set_propagation_private()
    pool, own = mounts.clone_tree(root), mounts.clone_tree(f"{root}/{INCOMING}/{entry}")
    mounts.attach(mounts.create("tmpfs", {"size": "64k", "mode": "0755"}), _RUN)
    os.mkdir(_POOL)
    mounts.attach(pool, _POOL)
    everything = os.open("/", os.O_PATH | os.O_DIRECTORY)
    mounts.set_attributes(
        everything, mounts.ATTR_RDONLY | mounts.ATTR_NODEV | mounts.ATTR_NOSUID, recursive=True
    )
    mounts.set_attributes(own, mounts.ATTR_NODEV | mounts.ATTR_NOSUID | mounts.ATTR_NOEXEC)
    place = f"{_POOL}/{INCOMING}/{entry}"
    mounts.attach(own, place)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    privileges.keep_capabilities(_RECEIVE_CAPABILITIES)
    privileges.forbid_new_privileges()
    return place
