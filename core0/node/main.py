"""The node daemon: root, no network-facing code. It owns the state, runs the managers, answers the API process."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import struct
import traceback
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from core0.links.manager import Links
from core0.links.model import SeenLink
from core0.linux import files
from core0.linux.worker import Worker
from core0.node import identity
from core0.node.events import EventRing
from core0.node.remembered import Certificate, Remembered
from core0.node.verbs import NodeState, answer
from core0.wire import cmdline, paths
from core0.wire.console import announce
from core0.wire.control import Call, Identity, Reply, receive, send

if TYPE_CHECKING:
    from core0.config.manager import Configs
    from core0.containers.manager import Containers
    from core0.disks.manager import Disks
    from core0.mesh.manager import Meshes
    from core0.names.manager import Names
    from core0.networks.manager import Networks
    from core0.volumes.manager import Volumes
    from core0.wire.config import NodeConfig

_LATEST = 30.0
# Seconds that the first answers have for themselves: importing the managers takes a slow processor for half of one.
_BREATH = 1.0
# Seconds until every driver has had its time with its cards, the late ones of phase `storage` included.
_PROBED = 10.0


def main(listener: socket.socket) -> None:
    """Run until PID 1 says stop."""
    worker = Worker()  # it forks: before there is a loop
    gc.enable()
    asyncio.run(_run(listener, worker))


async def _run(listener: socket.socket, worker: Worker) -> None:
    events = EventRing()
    links = Links(events, _announce_address)
    _name_node(links.seen())
    keeping = asyncio.create_task(links.run(), name="links")
    remembered = Remembered(worker, events, lambda: [link.name for link in links.seen()])
    own = await remembered.begin(_certificate_of_boot)
    announce("identity", detail=f"sha256:{own.fingerprint}")
    state = NodeState(
        _identity(own),
        own.fingerprint,
        events,
        links,
        remembered,
        lambda state: _containers(state, worker),
        lambda state: _disks(state, worker),
        _configs,
        lambda state: _volumes(state, worker),
        _networks,
        _names,
        _meshes,
    )
    links.on_servers = state.look_at_servers
    if _is_inherited():
        _ = state.containers
    # start_server, not start_unix_server: the latter deletes PID 1's socket from Python 3.13 on.
    server = await asyncio.start_server(lambda r, w: talk(state, r, w), sock=listener)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    ended = asyncio.create_task(stopped.wait())
    later = (_keep_later(state), _keep_state(state), _keep_names(state), worker.wait_ended())
    managers = {keeping, *map(asyncio.create_task, later)}
    done, _ = await asyncio.wait({ended, *managers}, return_when=asyncio.FIRST_COMPLETED)
    server.close()
    for manager in managers & done:
        manager.result()


def _is_inherited() -> bool:
    """Whether an earlier daemon left containers, or layers that keep a pool mounted."""
    return bool(os.listdir(paths.CONTAINERS)) or os.path.ismount(paths.POOL_LAYERS)


async def _keep_state(state: NodeState) -> None:
    """Run what the node remembers, once the API serves; ends when the daemon must start again."""
    with contextlib.suppress(TimeoutError):  # what is wanted runs also where the API does not come up
        async with asyncio.timeout(_LATEST):
            await state.serving.wait()
    if state.remembered.ephemeral:
        await asyncio.sleep(_BREATH)
    starting = asyncio.create_task(_start_wanted(state), name="start wanted")
    try:
        await state.remembered.run()
    finally:
        starting.cancel()


async def _start_wanted(state: NodeState) -> None:
    """Start what is wanted, once no disk is expected any more that knows of other wishes."""
    await state.remembered.settled.wait()
    if state.remembered.store.names("container/"):
        _ = state.containers
    if state.remembered.store.names("mesh/"):
        _ = state.meshes


async def _keep_later(state: NodeState) -> None:
    """Run what no boot waits for, once the API serves: storage, config, what routers say, what is told of cards."""
    await state.serving.wait()
    await asyncio.sleep(_BREATH)
    async with asyncio.TaskGroup() as managers:
        managers.create_task(state.disks.run())
        managers.create_task(state.configs.run())
        managers.create_task(state.volumes.run())
        managers.create_task(state.links.follow_routers())
        managers.create_task(state.clock.run())
        managers.create_task(_keep_meshes(state))
        managers.create_task(_tell_unused(state))


async def _keep_meshes(state: NodeState) -> None:
    """Run the meshes, once a network spans nodes."""
    await state.meshed.wait()
    await state.meshes.run()


async def _tell_unused(state: NodeState) -> None:
    """Tell once of the network cards that cannot be used."""
    await asyncio.sleep(_PROBED)
    from core0.node.link_verbs import tell_unused

    await tell_unused(state)


def _disks(state: NodeState, worker: Worker) -> "Disks":
    from core0.disks import sysfs
    from core0.disks.manager import Disks
    from core0.linux.tools import mount_tools

    mounted = f"{paths.RUN}/pools.json"
    return Disks(
        worker,
        state.remembered.store,
        state.events,
        state.operations,
        sysfs.observe,
        mount_tools,
        paths.POOLS,
        mounted,
    )


def _volumes(state: NodeState, worker: Worker) -> "Volumes":
    from core0.volumes.manager import Volumes
    from core0.volumes.memory import Memory

    memory = Memory(paths.MEMORY_VOLUMES)
    return Volumes(
        state.disks.book, worker, state.events, memory, state.users_of, state.operations, state.volumes_came
    )


def _configs(state: NodeState) -> "Configs":
    from pathlib import Path

    from core0.config.manager import Configs, fetch
    from core0.containers.share import limit_all
    from core0.linux.openssl import verify

    line = _command_line()

    state.links.taken = state.taken_subnets

    def apply(config: "NodeConfig") -> None:
        state.disks.configure(config.storage)
        state.clock.configure(config.clock)
        state.registries = config.images
        limit_all(config.containers, Path(paths.CGROUP_CONTAINERS), state.events)

    keep = state.remembered.store
    return Configs(keep, state.events, state.links, apply, verify, fetch, line.config, line.operator)


def _containers(state: NodeState, worker: Worker) -> "Containers":
    """The container manager, which has taken over what an earlier daemon left."""
    from core0.containers.apply import World
    from core0.containers.certificates import Certificates
    from core0.containers.manager import Containers
    from core0.images.pool import PoolLayers
    from core0.images.store import Store
    from core0.wire.images import ImagesConfig

    operator = _command_line().operator
    pool = PoolLayers(
        worker,
        lambda: state.disks.book,
        state.remembered.store,
        state.events,
        partial(_pool_of_images, state),
    )
    store = Store(
        config=lambda: state.registries or ImagesConfig(), operator=operator, report=state.events, pool=pool
    )
    certificates = Certificates(partial(identity.make_certificate, for_browsers=True))
    world = World(store, state.networks, certificates, state.volumes.use, worker)
    containers = Containers(world, state.remembered.store, state.events)
    containers.resume()
    state.networks.enforce()
    return containers


def _pool_of_images(state: NodeState) -> str | None:
    """The pool that the config names for images; None as long as there is no config yet."""
    return None if state.registries is None else state.registries.pool or ""


def _networks(state: NodeState) -> "Networks":
    from core0.networks.manager import Networks

    networks = Networks(state.remembered.store, state.events, state.names, state.hosts_of)
    networks.meshes = lambda: state.meshes
    return networks


def _names(state: NodeState) -> "Names":
    from core0.names.manager import Names
    from core0.template.messages import NAMES
    from core0.template.request import ask

    async def fork(talk: int) -> None:
        await ask(NAMES, [talk])

    state.named.set()
    return Names(state.events, lambda: state.links.nameservers, fork)


async def _keep_names(state: NodeState) -> None:
    """Have containers' questions for names answered, once there is who asks."""
    await state.named.wait()
    await state.names.run()


def _meshes(state: NodeState) -> "Meshes":
    from core0.linux.openssl import new_x25519
    from core0.mesh.manager import Meshes
    from core0.node.meshes import AroundMeshes

    return Meshes(state.remembered.store, state.events, AroundMeshes(state), new_x25519)


def _name_node(links: Sequence[SeenLink]) -> None:
    """Without `zn.hostname` a node is named after its first link, so that consoles in a rack differ."""
    if not _command_line().hostname and links:
        socket.sethostname(f"zn-{links[0].hardware.replace(':', '')[-6:]}")


def _command_line() -> cmdline.CommandLine:
    return cmdline.parse(files.read_text("/proc/cmdline"))


def _identity(own: Certificate) -> Identity:
    """What the API process needs."""
    operator = _command_line().operator
    anchor = identity.trust_anchor(operator) if operator else None
    return Identity(own.certificate, own.key, anchor)


_KEPT = f"{paths.RUN}/identity.json"


def _certificate_of_boot() -> Certificate:
    """The identity of a node that remembers none: made once, kept in memory for the daemon's next start."""
    try:
        return msgspec.json.decode(files.read(_KEPT), type=Certificate)
    except FileNotFoundError:
        made = Certificate(*identity.make_certificate(socket.gethostname()))
        files.replace(_KEPT, msgspec.json.encode(made), 0o600)
        return made


def _announce_address(said: str) -> None:
    announce("network", detail=said)


async def talk(state: NodeState, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection's calls, one after the other. What is no call ends the connection, not the daemon."""
    try:
        if _peer(writer) not in (os.geteuid(), paths.API_USER):
            return
        while True:
            call = msgspec.json.decode(await receive(reader), type=Call)
            reply = await (_hand_over(state, call, writer) if call.verb in _MOVING else _answer(state, call))
            if reply is None:
                return
            await send(writer, reply)
    except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError, RecursionError):
        return
    finally:
        writer.close()


# Verbs whose connection goes to the process that moves their bytes.
_MOVING = ("feed_import", "export_snapshot", "export_container", "load_image")


async def _hand_over(state: NodeState, call: Call, writer: asyncio.StreamWriter) -> Reply | None:
    """Give a call's connection away; None if it is another's now."""
    from core0.node.container_verbs import CONTAINER_CONNECTION_VERBS
    from core0.node.image_verbs import IMAGE_CONNECTION_VERBS
    from core0.node.verbs import refused
    from core0.node.volume_verbs import CONNECTION_VERBS

    transport: asyncio.Transport = writer.transport  # type: ignore[assignment]  # StreamWriter knows less of it
    transport.pause_reading()  # what comes next is for who gets it
    own: socket.socket = writer.get_extra_info("socket")
    connection = os.dup(own.fileno())
    try:
        os.set_blocking(connection, True)
        verbs = {**CONNECTION_VERBS, **CONTAINER_CONNECTION_VERBS, **IMAGE_CONNECTION_VERBS}
        refusal = refused(verbs[call.verb], state, call, connection)
        if refusal is None:
            transport.abort()
            return None
        os.set_blocking(connection, False)
        transport.resume_reading()
        return Reply(refusal=refusal)
    finally:
        os.close(connection)


async def _answer(state: NodeState, call: Call) -> Reply:
    try:
        return await answer(state, call)
    except OSError as error:
        state.events("node", call.verb, f"Failed: {error}")
        raise ConnectionError from error
    except Exception:
        os.write(2, f"zn: call {call.verb} failed\n{traceback.format_exc()}".encode())
        raise


def _peer(writer: asyncio.StreamWriter) -> int:
    """The user at the other end (SO_PEERCRED, unix(7))."""
    peer: socket.socket = writer.get_extra_info("socket")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
