"""Carries out the container plan's actions, step by step; a step that fails undoes those before it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from core0.containers import rootfs, storage
from core0.containers.certificates import Certificates
from core0.containers.health import create_report
from core0.containers.kept import open_kept
from core0.containers.limits import capped_io, limits_of, oom_score_of, tmpfs_of
from core0.containers.model import IDS, Identity, Record, first_id
from core0.containers.observe import is_alive, start_time
from core0.containers.plans import NoProgramError, boot_of
from core0.containers.secrets import SecretStore
from core0.images.model import Image
from core0.images.store import Store
from core0.linux import cgroups, files, mounts, namespaces
from core0.linux.libc import in_words
from core0.linux.netlink_traffic import limit_within
from core0.linux.worker import Worker
from core0.template.messages import FORK, LINKED, Go, Ready
from core0.template.request import ask
from core0.wire import paths
from core0.wire.control import RefusedError
from core0.wire.names import DOMAIN
from core0.wire.network import GATEWAY
from core0.wire.types import ContainerSpec, CoreX, Limits, PublishedPort, Traffic, VolumeMount

# Seconds until a container must have built itself; emulated machines take a tenth of it.
_READY_DEADLINE = 30.0
# Seconds from SIGTERM to Core-X until everything in the container is killed: Core-X stops its processes in it.
_STOP_DEADLINE = 15.0
# Seconds until all processes of a container must be halted: one that waits for a disk halts behind that.
_FREEZE_DEADLINE, _FREEZE_LOOK_EVERY = 5.0, 0.005
# Seconds until PID 1 must have written how a process ended: it does so as soon as it gets the processor.
_REAPED_DEADLINE, _REAPED_LOOK_EVERY = 2.0, 0.005
# Seconds that limiting a link may take.
_LINK_DEADLINE = 15.0
_LAST_WORDS = 4096
_ENDED = "its first process ended while it was built"
# Cgroups of single processes that a container may have.
_MOST_CGROUPS = 4096
_APPENDED = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class ContainerError(Exception):
    """The container cannot be made: the message has the cause."""


class Network(Protocol):
    """What containers need of the network."""

    def trouble(self, name: str) -> str:
        """Why no container can be in a network of that name; empty if one can."""

    def choose_host(self, name: str, used: Sequence[int]) -> int:
        """A free number in a network. Raises RefusedError: there is no such network, or it is full."""

    def port_owner(self, port: int) -> str:
        """Which mesh listens on a UDP port of the node; empty if none does."""

    def fixed_host(self, name: str, ipv4: str | None, ipv6: str | None) -> int | None:
        """The number that addresses of a network mean, None without any. Raises RefusedError: it has them not."""

    def addresses(self, network: str, host: int) -> tuple[str, str]:
        """IPv4 and IPv6 address of a number in a network. Raises OSError: there is no such network."""

    def attach(self, number: int, name: str, network: str, host: int, namespace: int, limits: Limits) -> None:
        """Link a container's network namespace to a network. Raises OSError."""

    def traffic(self, number: int) -> Traffic | None:
        """What went over a container's link; None if it has none."""

    def detach(self, number: int) -> None:
        """Take the link and published ports away."""

    async def remove(self, number: int) -> None:
        """The same without keeping others waiting."""

    def limit(self, number: int, limits: Limits) -> None:
        """Limit what a container that is linked receives. Raises OSError."""

    def publish(self, number: int, ports: Sequence[PublishedPort]) -> None:
        """Lead ports of the node to a container."""

    def resume(
        self,
        number: int,
        name: str,
        network: str,
        addresses: tuple[str, str],
        ports: Sequence[PublishedPort],
    ) -> None:
        """Go on with a container that is linked already."""


class VolumeLimits(Protocol):
    """What volumes mean for a container's limits."""

    @property
    def memory(self) -> int:
        """Bytes of the node's memory that they may take."""

    @property
    def io(self) -> Sequence[str]:
        """Lines for io.max, one for each disk."""


class Volumes(Protocol):
    """What containers need of volumes."""

    def trouble(self, name: str) -> str:
        """Why there is no volume of that name to be had; empty if there is one."""

    async def hand_out(self, name: str) -> int:
        """A detached mount of a volume. Raises OSError: it cannot be had now."""

    def limits(self, names: Iterable[str]) -> VolumeLimits:
        """Limits for a container that has these volumes."""


class World(msgspec.Struct, frozen=True):
    """What the actions work on."""

    store: Store
    network: Network
    certificates: Certificates
    volumes: Volumes
    worker: Worker
    folder: Path = Path(paths.CONTAINERS)
    cgroup: Path = Path(paths.CGROUP_CONTAINERS)
    secrets: SecretStore = SecretStore()


class Slot(msgspec.Struct, frozen=True):
    """What distinguishes a container on the node: its name, number, Core-X's port, and number in its network."""

    name: str
    number: int
    port: int
    host: int


def limit(world: World, name: str, spec: ContainerSpec) -> None:
    """Make a container's cgroup, or limit it anew."""
    volumes = world.volumes.limits(mount.volume for mount in spec.mounts)
    group = world.cgroup / name
    cgroups.create(group, limits_of(spec.limits, volumes.memory + tmpfs_of(spec)))
    cgroups.limit_io(group, capped_io(volumes.io, spec.limits))


async def limit_anew(world: World, name: str, record: Record, spec: ContainerSpec) -> Record:
    """Limit a container that runs by another spec, which is its own from then on; returns its new record."""
    before, after = record.spec.limits, spec.limits
    if after.storage_mib < before.storage_mib:
        storage.resize(record, after.storage_mib)
    limit(world, name, spec)
    if after.storage_mib > before.storage_mib:  # there is memory for them by now
        storage.resize(record, after.storage_mib)
    if (before.receive_bps, before.send_bps) != (after.receive_bps, after.send_bps):
        await _limit_link(world, record, after)
    limited = msgspec.structs.replace(record, spec=spec)
    write_whole(world.folder / name / "record.json", limited)
    return limited


async def _limit_link(world: World, record: Record, limits: Limits) -> None:
    """Limit both ends of its link; what it sends waits at its own end, where its sockets notice."""
    world.network.limit(record.number, limits)
    inside = namespaces.open_namespace(record.pid, "net")
    try:
        rate = limits.send_bps or 0
        await world.worker.call(limit_within, "eth0", rate, deadline=_LINK_DEADLINE, descriptors=[inside])
    finally:
        os.close(inside)


async def create(world: World, slot: Slot, spec: ContainerSpec, image: Image, identity: Identity) -> Record:
    """Make a container and start its Core-X.

    Raises:
        ContainerError: with the step that failed and why; nothing of the container is left then.
    """
    making = _Making()
    try:
        with making.opened:
            record = await _create(world, slot, spec, image, identity, making)
    except (OSError, ContainerError, NoProgramError, RefusedError, msgspec.DecodeError) as error:
        making.undo.close()
        await asyncio.to_thread(cgroups.remove, world.cgroup / slot.name)
        await forget_ended(making.pids)
        cause = in_words(error) or f"it was not ready after {_READY_DEADLINE:.0f} s"
        if any(cause.startswith(f"/proc/{pid}/") and not start_time(pid) for pid in making.pids):
            cause = _ENDED
        raise ContainerError(f"cannot create container {slot.name}: {making.step}{cause}") from None
    except BaseException:
        making.undo.close()
        raise
    making.undo.pop_all()
    return record


class _Making:
    """A container that is being made.

    Attributes:
        opened: what is closed in any case.
        undo: what only a failure takes back.
        pids: its first process, once there is one.
        step: what is being done, for people.
    """

    def __init__(self) -> None:
        self.opened = contextlib.ExitStack()
        self.undo = contextlib.ExitStack()
        self.pids: list[int] = []
        self.step = ""

    def at(self, step: str) -> None:
        """Begin a step; the container's first process names its own."""
        self.step = f"step {step}: " if step else ""

    def own(self, descriptor: int) -> int:
        """Close a descriptor in any case."""
        self.opened.callback(os.close, descriptor)
        return descriptor


async def _create(
    world: World, slot: Slot, spec: ContainerSpec, image: Image, identity: Identity, making: _Making
) -> Record:
    """The steps, in order."""
    group, folder = world.cgroup / slot.name, world.folder / slot.name
    own, undo = making.own, making.undo
    making.at("cgroup")
    undo.callback(cgroups.kill, group)
    limit(world, slot.name, spec)
    cgroups.give_away(group, first_id(slot.number), _MOST_CGROUPS)
    making.at("volumes")
    volumes = [own(await _volume(world, mount)) for mount in spec.mounts]
    making.at("image")
    layers = [own(layer) for layer in await world.store.mount_layers(image)]
    making.at("secrets")
    secrets = [own(world.secrets.open(one.secret)) for one in spec.secrets]
    making.at("health")
    health = [own(create_report(folder))] if spec.health else []
    making.at("what was kept")
    kept = own(open_kept(folder, spec))

    making.at("start message")
    boot = boot_of(slot.name, socket.gethostname(), (identity.certificate, identity.key), spec, image)
    making.at("port")
    listener = making.opened.enter_context(_listen(slot.port))
    making.at("descriptors")
    ours, theirs = (making.opened.enter_context(end) for end in _talk())
    log = own(os.open(folder / "corex.log", _APPENDED, 0o600))
    handed = [
        own(os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)),
        theirs.fileno(),
        listener.fileno(),
        own(_memory_file(msgspec.json.encode(boot))),
        log,
    ]
    making.at("first process")
    pid = await _fork(group, handed, making)
    theirs.close()  # else its end would not be noticed here
    _unlink(_exit_of(pid))  # of an earlier process of that number
    started = start_time(pid)
    first = first_id(slot.number)
    namespaces.write_id_maps(pid, first, IDS)
    files.write(f"/proc/{pid}/oom_score_adj", str(oom_score_of(spec.priority)))
    users = own(namespaces.open_namespace(pid, "user"))
    namespace = own(namespaces.open_namespace(pid, "net"))
    making.at("link")
    addresses = world.network.addresses(spec.network, slot.host)
    making.at("image")
    with rootfs.build(folder, layers, users, first, spec.limits.storage_mib) as built:
        place = storage.place_of(built.work)
        making.at("volumes")
        for volume in volumes:
            mounts.set_attributes(volume, mounts.ATTR_IDMAP, user_namespace=users)
        go = msgspec.json.encode(_go(slot.name, spec, addresses))
        # it builds its root while its link is made
        _tell(ours, go, [*built, kept, *volumes, *secrets, *health])
        making.at("link")
        undo.callback(world.network.detach, slot.number)
        world.network.attach(slot.number, slot.name, spec.network, slot.host, namespace, spec.limits)
        _tell(ours, LINKED)
        making.at("image")
    making.at("")
    await _ready(ours)
    making.at("ports")
    world.network.publish(slot.number, spec.ports)
    making.at("record")
    corex = CoreX(port=slot.port, fingerprint=identity.fingerprint)
    record = Record(slot.number, spec, image.digest, *addresses, slot.host, corex, pid, started, place)
    write_whole(folder / "record.json", record)
    return record


async def _fork(group: Path, handed: Sequence[int], making: _Making) -> int:
    """The container's first process. Raises OSError, also when the template ended after it was there."""
    try:
        pid = await ask(FORK, handed)
    except OSError:
        making.pids = cgroups.first_processes(group)
        raise
    making.pids = [pid]
    return pid


def _go(name: str, spec: ContainerSpec, addresses: tuple[str, str]) -> Go:
    """What the container builds itself by."""
    return Go(
        spec.hostname or name,
        *addresses,
        GATEWAY,
        f"{spec.network}.{DOMAIN}",
        targets=tuple(mount.target for mount in spec.mounts),
        tmpfs=spec.tmpfs,
        secrets=spec.secrets,
        read_only=spec.read_only,
        dropped=spec.drop_capabilities,
        health=spec.health is not None,
    )


async def _volume(world: World, mount: VolumeMount) -> int:
    """A volume as the container may use it; files keep their owners as the container knows them."""
    descriptor = await world.volumes.hand_out(mount.volume)
    attributes = mounts.ATTR_NOSUID | mounts.ATTR_NODEV | (mounts.ATTR_RDONLY if mount.read_only else 0)
    try:
        mounts.set_attributes(descriptor, attributes)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _listen(port: int) -> socket.socket:
    """Core-X's listening socket: made here, in the node's network, so that it is reached without the container's."""
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


def _talk() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def _memory_file(data: bytes) -> int:
    """A file that is nowhere: a secret in it is in no file system and ends with its last reader."""
    descriptor = os.memfd_create("boot", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    return descriptor


def _tell(ours: socket.socket, what: bytes, descriptors: Sequence[int] = ()) -> None:
    """Tell the first process; one that has ended already has said why."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        socket.send_fds(ours, [what], list(descriptors))


async def _ready(ours: socket.socket) -> None:
    """Wait until the container has built itself."""
    try:
        async with asyncio.timeout(_READY_DEADLINE):
            data = await _receive(ours)
    except TimeoutError:
        raise ContainerError(f"it was not ready after {_READY_DEADLINE:.0f} s") from None
    if not data:
        raise ContainerError(_ENDED)
    error = msgspec.json.decode(data, type=Ready).error
    if error:
        raise ContainerError(error)


async def _receive(ours: socket.socket) -> bytes:
    """What it says; nothing if it ended without a word."""
    loop = asyncio.get_running_loop()
    # a reset: it ended before it read everything; what it said before is there all the same
    with contextlib.suppress(ConnectionResetError):
        return await loop.sock_recv(ours, 4096)
    return await loop.sock_recv(ours, 4096)


async def stop(world: World, name: str, record: Record) -> None:
    """Ask Core-X to stop its processes and end; kill the whole container at the deadline."""
    pidfd = open_pidfd(record)
    if pidfd is not None:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            await _readable(pidfd, _STOP_DEADLINE)
        finally:
            os.close(pidfd)
    cgroups.kill(world.cgroup / name)


async def freeze(world: World, name: str) -> None:
    """Halt a container's processes.

    Raises:
        ContainerError: some were not halted in time; the kernel halts them as soon as it can, all the same.
    """
    group = world.cgroup / name
    cgroups.freeze(group)
    try:
        async with asyncio.timeout(_FREEZE_DEADLINE):
            # the kernel tells of changes by POLLPRI, which asyncio does not wait for; it takes some milliseconds
            while cgroups.freezer(group) == "freezing":  # noqa: ASYNC110
                await asyncio.sleep(_FREEZE_LOOK_EVERY)
    except TimeoutError:
        waits = f"after {_FREEZE_DEADLINE:.0f} s one of its processes still waits for a disk"
        raise ContainerError(f"cannot pause container {name}: {waits}; see 'zn disk ls'") from None


def thaw(world: World, name: str) -> None:
    """Let a container's processes go on."""
    cgroups.thaw(world.cgroup / name)


async def _readable(descriptor: int, seconds: float) -> None:
    """Wait until a descriptor is readable (a pidfd: until its process has ended), or the time is over."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(descriptor)


async def remove(world: World, name: str, record: Record) -> None:
    """Take away what a container left. Every step is tried; what is gone already is fine."""
    await world.network.remove(record.number)
    await asyncio.to_thread(cgroups.remove, world.cgroup / name)
    await _forget_exit(record.pid)
    _unlink(world.folder / name / "record.json")


def _exit_of(pid: int) -> Path:
    """Where PID 1 writes how a container's first process ended."""
    return Path(paths.EXITS, str(pid))


def end_unfinished(world: World, known: Iterable[str]) -> list[int]:
    """End what a node daemon was making when it ended, which has no record; returns its first processes."""
    kept, ended = {*known}, []
    for group in world.cgroup.glob("*/"):
        if group.name not in kept:
            ended += cgroups.first_processes(group)
            cgroups.kill(group)
            cgroups.remove(group)
    return ended


def forget_exits(known: Iterable[int]) -> None:
    """Delete what PID 1 wrote of processes that nobody knows: a node daemon that made their containers has ended."""
    kept = {str(pid) for pid in known}
    _unlink(*(file for file in Path(paths.EXITS).glob("*") if file.name not in kept))


async def forget_ended(pids: Iterable[int]) -> None:
    """Delete what PID 1 writes of processes that have ended."""
    for pid in pids:
        await _forget_exit(pid)


async def _forget_exit(pid: int) -> None:
    """Delete what PID 1 writes of a process that has ended; it may not have come to that yet."""
    file = _exit_of(pid)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REAPED_DEADLINE):
            while not file.exists():  # noqa: ASYNC110
                await asyncio.sleep(_REAPED_LOOK_EVERY)
    _unlink(file)


def _unlink(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def forget(world: World, name: str) -> None:
    """Delete the folder of a container that is wanted no more."""
    files.remove_tree(world.folder / name)


def open_pidfd(record: Record) -> int | None:
    """A descriptor that becomes readable when the container's first process ends; None if it has."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return None
    # asked while the descriptor holds the process: the number alone could be another's a moment later
    if is_alive(record):
        return pidfd
    os.close(pidfd)
    return None


def read_exit(record: Record) -> int | None:
    """The wait status of a container's first process, once PID 1 has written it down."""
    try:
        return int(_exit_of(record.pid).read_text())
    except FileNotFoundError:
        return None


def last_words(world: World, name: str) -> str:
    """The last line of Core-X's own log, for people; it is a stranger's text, so it is short and printable."""
    try:
        with (world.folder / name / "corex.log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return "".join(letter for letter in lines[-1] if letter.isprintable())[:300] if lines else ""


def write_whole(path: Path, value: msgspec.Struct) -> None:
    """Write a file that appears whole or not at all."""
    files.replace(path, msgspec.json.encode(value))
