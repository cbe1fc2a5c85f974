"""Machines that outlive the process that started them, for `zn up` and `zn vm run`.

A machine's folder holds its sockets, its console log and `machine.json`, by which a later process finds it.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from ci.qemu import process, scratch
from ci.qemu.accel import Acceleration
from ci.qemu.machine import CONSOLE_LOG, ERROR_LOG, Machine
from ci.qemu.spec import MachineSpec, Wiring, argv

_RECORD = "machine.json"
_MONITOR_SOCKET = "monitor.sock"
_CONSOLE_SOCKET = "console.sock"
# sockaddr_un.sun_path holds 108 bytes with the final zero (unix(7)).
_LONGEST_SOCKET_PATH = 107


class Record(msgspec.Struct, frozen=True):
    """What `machine.json` says: the machine, how it runs, and which process it is."""

    spec: MachineSpec
    acceleration: Acceleration
    identity: process.Identity


async def launch(spec: MachineSpec, acceleration: Acceleration, folder: Path) -> None:
    """Start a machine that lives on, stopped before its first instruction; `attach` and `cont` let it run.

    Raises:
        StartError: QEMU did not start, or the folder's name is too long for a socket.
    """
    _prepare(folder)
    scratch_disk = await scratch.create(folder) if spec.snapshots else None
    with _listen(folder / _MONITOR_SOCKET) as monitor, _listen(folder / _CONSOLE_SOCKET) as console:
        inherited = (monitor.fileno(), console.fileno())
        wiring = Wiring(*inherited, folder / CONSOLE_LOG, listening=True, scratch=scratch_disk)
        words = argv(spec, acceleration.arguments, wiring)
        running = await process.start_daemon(words, inherited, folder / ERROR_LOG)
    _write(folder / _RECORD, Record(spec, acceleration, running.identity))


def find(folder: Path) -> Record | None:
    """The machine that a folder belongs to, if it still runs."""
    try:
        record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=Record, dec_hook=_to_path)
    except FileNotFoundError:
        return None
    return record if process.is_alive(record.identity) else None


@asynccontextmanager
async def attach(folder: Path) -> AsyncIterator[Machine]:
    """Connect to a running machine; the console begins with all that it has printed before.

    Raises:
        StartError: no machine of this folder runs.
    """
    record = find(folder)
    if record is None:
        raise process.StartError(f"cannot attach to {folder.name}: no such machine runs; start it first")
    machine = Machine(record.spec, record.acceleration, folder)
    machine.console.feed((folder / CONSOLE_LOG).read_bytes())
    try:
        await machine.adopt(
            process.Detached(record.identity),
            _connect(folder / _MONITOR_SOCKET),
            _connect(folder / _CONSOLE_SOCKET),
        )
        yield machine
    finally:
        await machine.close()


def console_socket(folder: Path) -> Path:
    """Where a machine's serial console takes one connection at a time."""
    return folder / _CONSOLE_SOCKET


def _prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONSOLE_LOG).unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    if len(str(path).encode()) > _LONGEST_SOCKET_PATH:
        raise process.StartError(f"cannot listen on {path}: the path is too long; use a checkout nearer to /")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def _write(path: Path, record: Record) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(record, enc_hook=str))
    fresh.replace(path)


def _to_path(kind: type, value: Any) -> Any:
    return kind(value)
