"""Calls that may never return, such as reading a disk that hangs: each in a process that can be given up.

A process that waits for a dead device cannot be killed, and neither can one with such a thread. So the node daemon
forks a worker before it has threads or a loop; the worker forks a child for each job; the child's answer comes over
a socket of its own. A child that hangs is killed, as far as the kernel lets it, and costs nobody else anything.
"""

import asyncio
import functools
import importlib
import os
import signal
import socket
import struct
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec

T = TypeVar("T")
_PID = struct.Struct("=i")
_PIECE = 1 << 20
_MOST_DESCRIPTORS = 8


class HungError(OSError):
    """A job that did not end by its deadline; what it did may still happen.

    Attributes:
        ended: set once its process is gone. One that waits for a dead device cannot be killed before that answers.
    """

    def __init__(self, message: str, ended: asyncio.Event) -> None:
        super().__init__(message)
        self.ended = ended


class _Answer(msgspec.Struct):
    """A job's end: its result, the kernel's error, or the traceback of a defect."""

    result: msgspec.Raw = msgspec.Raw(b"\xc0")
    errno: int = 0
    error: str | None = None
    defect: str = ""


class Worker:
    """Runs jobs in processes. Make it before the first thread and the first event loop: it forks."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            self._control.close()
            _serve(theirs)
        theirs.close()

    def close(self) -> None:
        """End the worker; jobs under way end by themselves."""
        self._control.close()

    async def wait_ended(self) -> None:
        """Wait until the worker has ended, which it never does by itself."""
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._control, ended.set)
        try:
            await ended.wait()
        finally:
            asyncio.get_running_loop().remove_reader(self._control)

    async def call(
        self, job: Callable[..., T], *arguments: Any, deadline: float | None, descriptors: Sequence[int] = ()
    ) -> T:
        """Run a function of a module's top level in a process.

        Args:
            job: the function; the types of its parameters and its result are ones that msgspec can carry.
            arguments: by position.
            deadline: seconds; None for work that is ended by cancelling the call.
            descriptors: open files for the job, which gets its copies as its last arguments.

        Raises:
            HungError: if it did not end in time.
            OSError: what the function raised, with its message.
            RuntimeError: with the traceback of any other error.
        """
        with _send(self._control, job, descriptors) as ours:
            pid = 0
            try:
                async with asyncio.timeout(deadline):
                    await asyncio.get_running_loop().sock_sendall(ours, msgspec.msgpack.encode(arguments))
                    ours.shutdown(socket.SHUT_WR)
                    pid = await _receive_pid(ours)
                    data = await _receive_rest(ours)
            except TimeoutError:
                ended = _watch_end(pid)
                _kill(pid)
                raise HungError(f"no answer within {deadline:g} s", ended) from None
            except asyncio.CancelledError:
                _kill(pid)
                raise
        return _result(job, data)


def _send(control: socket.socket, job: Callable[..., object], descriptors: Sequence[int]) -> socket.socket:
    """Hand the job's name, one end of its socket and its open files to the worker; returns the other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        name = f"{job.__module__}:{job.__qualname__}"
        socket.send_fds(control, [name.encode()], [theirs.fileno(), *descriptors])
    return ours


async def _receive_pid(ours: socket.socket) -> int:
    data = await asyncio.get_running_loop().sock_recv(ours, _PID.size)
    return int(_PID.unpack(data)[0]) if len(data) == _PID.size else 0


async def _receive_rest(ours: socket.socket) -> bytes:
    data = bytearray()
    while piece := await asyncio.get_running_loop().sock_recv(ours, _PIECE):
        data += piece
    return bytes(data)


def _result(job: Callable[..., T], data: bytes) -> T:
    if not data:
        raise OSError(f"{job.__qualname__} was killed before it answered")
    answer = msgspec.msgpack.decode(data, type=_Answer)
    if answer.defect:
        raise RuntimeError(answer.defect)
    if answer.error is not None:
        raise OSError(answer.errno, answer.error) if answer.errno else OSError(answer.error)
    result: msgspec.msgpack.Decoder[T] = _result_of(job)
    return result.decode(answer.result)


def _watch_end(pid: int) -> asyncio.Event:
    """An event that is set when a process is gone (pidfd_open(2))."""
    ended = asyncio.Event()
    try:
        descriptor = os.pidfd_open(pid) if pid else -1
    except ProcessLookupError:
        descriptor = -1
    if descriptor < 0:
        ended.set()
        return ended
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        ended.set()

    loop.add_reader(descriptor, gone)
    return ended


def _kill(pid: int) -> None:
    # Nobody else reaps it, so the number is its own until the worker's kernel has.
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _serve(control: socket.socket) -> NoReturn:
    """The worker: a fork for each job. Ends with the node daemon."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    _keep_only(control)
    try:
        while True:
            data, descriptors, _, _ = socket.recv_fds(control, 4096, 1 + _MOST_DESCRIPTORS)
            if not data:
                os._exit(0)
            job = _find(data.decode(), len(descriptors) - 1)
            with socket.socket(fileno=descriptors[0]) as theirs:
                if os.fork() == 0:
                    control.close()
                    _do(job, theirs, descriptors[1:])
            for descriptor in descriptors[1:]:
                os.close(descriptor)
    except BaseException:  # noqa: BLE001 — a fork must not run on as a second daemon
        os.write(2, f"zn: worker failed\n{traceback.format_exc()}".encode())
    os._exit(1)


def _keep_only(kept: socket.socket) -> None:
    """Close what belongs to the daemon."""
    last = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, kept.fileno())
    os.closerange(kept.fileno() + 1, last)


class _Job(NamedTuple):
    """A function, and what reads its arguments but the open files."""

    function: Callable[..., object]
    arguments: msgspec.msgpack.Decoder[tuple[Any, ...]]


@functools.cache
def _find(name: str, descriptors: int) -> _Job:
    """The job of that name. Its module is imported here, once, for all jobs to come; so are its types understood."""
    module, _, function = name.partition(":")
    found: Callable[..., object] = getattr(importlib.import_module(module), function)
    hints = typing.get_type_hints(found)
    hints.pop("return")
    kinds = tuple(hints.values())[: len(hints) - descriptors]
    return _Job(found, msgspec.msgpack.Decoder(tuple[kinds]))  # type: ignore[valid-type]


@functools.cache
def _result_of(job: Callable[..., T]) -> msgspec.msgpack.Decoder[T]:
    """What reads a job's result."""
    return msgspec.msgpack.Decoder(typing.get_type_hints(job)["return"])


def _do(job: _Job, theirs: socket.socket, descriptors: Sequence[int]) -> NoReturn:
    """The child's side of a job."""
    theirs.sendall(_PID.pack(os.getpid()))
    data = bytearray()
    while piece := theirs.recv(_PIECE):
        data += piece
    theirs.sendall(msgspec.msgpack.encode(_answer(job, bytes(data), descriptors)))
    theirs.shutdown(socket.SHUT_WR)  # a thread of the job may hang and keep the socket open
    sys.stdout.flush()
    os._exit(0)


def _in_words(error: OSError) -> str:
    """Without the number, which goes beside it, but with the file."""
    words = error.strerror or str(error)
    return f"{error.filename}: {words}" if error.filename else words


def _answer(job: _Job, data: bytes, descriptors: Sequence[int]) -> _Answer:
    try:
        result = job.function(*job.arguments.decode(data), *descriptors)
        return _Answer(msgspec.Raw(msgspec.msgpack.encode(result)))
    except OSError as error:
        return _Answer(errno=error.errno or 0, error=_in_words(error))
    except Exception:  # noqa: BLE001 — it is raised again where the job was wanted
        return _Answer(defect=traceback.format_exc())
