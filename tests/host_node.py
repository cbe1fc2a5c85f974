"""A node on this machine for tests: the real node daemon's talk and the real API process' serving, in one loop.

What is not here is what a booted machine alone has: PID 1, the template, cgroups. A container that is created
fails for want of a puller; one that lives is a process of the test's own with the record that the daemon reads.
"""

import asyncio
import contextlib
import datetime
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core0.api.app import Api
from core0.api.daemon import Daemon
from core0.api.main import tls_context
from core0.client.client import NodeClient
from core0.client.credentials import client_context, issue_certificate
from core0.config.manager import Configs, fetch
from core0.containers.apply import World
from core0.containers.certificates import Certificates
from core0.containers.manager import Containers
from core0.containers.model import Record, Wanted
from core0.containers.observe import start_time
from core0.containers.secrets import SecretStore
from core0.containers.storage import place_of
from core0.disks.manager import Disks
from core0.disks.model import Facts, SeenPool
from core0.images.store import Store
from core0.links.manager import Links
from core0.linux import cgroups, openssl
from core0.linux.worker import Worker
from core0.mesh.manager import Meshes
from core0.names.manager import Names
from core0.networks.manager import Networks
from core0.node import identity
from core0.node.events import EventRing
from core0.node.main import talk
from core0.node.meshes import AroundMeshes
from core0.node.remembered import Remembered
from core0.node.verbs import NodeState
from core0.state.disk import Areas
from core0.state.model import Machine
from core0.state.store import StateStore
from core0.volumes.manager import Volumes
from core0.volumes.memory import Memory
from core0.wire import paths, ports
from core0.wire.config import NodeConfig
from core0.wire.control import Identity, Report
from core0.wire.link_config import NetworkConfig
from core0.wire.storage import MountOptions
from core0.wire.types import ContainerSpec, CoreX
from corex.http.server import listen, serve

MAX_BODY = 1 << 20
TOKEN = "ab" * 32
HERE = "e2b1c3d4-1111-4222-8333-444455556666"


def remembered(folder: Path, worker: Worker, report: Report, uuid: str = HERE) -> StateStore:
    """The node's state, kept in a file below a folder until disks join."""
    return StateStore(Areas(worker), Machine(uuid), report, str(folder / "state.json"))


class CheckedLinks:
    """The links of a config: checked like a node's, and never applied, as those here are the test machine's own."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self.taken: list[NetworkConfig] = []

    async def prepare(self, config: NetworkConfig) -> None:
        """Nothing: no link is made."""

    def change(self, config: NetworkConfig) -> None:
        """Check it with the links that there are."""
        self._links.check(config)
        self.taken.append(config)

    def adopt(self, config: NetworkConfig) -> None:
        """Check it."""
        self.change(config)


@dataclass
class HostNode:
    """Where the node's files are, who may use it, and where it answers once `running`."""

    folder: Path
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    lives: list[subprocess.Popen[bytes]] = field(default_factory=list)
    wanted: dict[str, Wanted] = field(default_factory=dict)
    port: int = 0
    fingerprint: str = ""
    keeps_identity: bool = False
    identity: Identity | None = None
    state: NodeState | None = None
    worker: Worker | None = None
    observe: Callable[[], tuple[Facts, ...]] = tuple
    pools: dict[str, Path] = field(default_factory=dict)
    cgroup: Path | None = None

    @property
    def socket(self) -> Path:
        """The node daemon's socket."""
        return self.folder / "node.sock"

    @property
    def address(self) -> str:
        """Where the API answers."""
        return f"127.0.0.1:{self.port}"

    def certificate(
        self, key: Ed25519PrivateKey | None = None, hours: float = 1.0, now: datetime.datetime | None = None
    ) -> bytes:
        """A client certificate; by default the operator's."""
        now = now or datetime.datetime.now(datetime.UTC)
        return issue_certificate(key or self.key, "tests", now=now, valid_for=datetime.timedelta(hours=hours))

    def client(self, pem: bytes | None, fingerprint: str = "", address: str = "") -> NodeClient:
        """A client; use it with `async with`."""
        return NodeClient(address or self.address, fingerprint or self.fingerprint, client_context(pem))

    def operator(self) -> NodeClient:
        """The operator's client."""
        return self.client(self.certificate())

    def add_container(
        self, name: str, spec: ContainerSpec, number: int = 1, work: int | None = None
    ) -> Record:
        """A container that runs when the daemon starts: a process that ends by SIGTERM, and its record.

        It holds the folder `work` of its files.
        """
        process = subprocess.Popen(["sleep", "600"], pass_fds=() if work is None else (work,))
        self.lives.append(process)
        threading.Thread(target=process.wait, daemon=True).start()  # reaps, as PID 1 does
        corex = CoreX(port=ports.COREX_FIRST + number - 1, fingerprint="cd" * 32)
        record = Record(
            number,
            spec,
            "sha256:" + "0" * 64,
            "10.1.0.2",
            "fd00::2",
            2,
            corex,
            process.pid,
            start_time(process.pid),
            place_of(work) if work else (0, 0),
        )
        if self.cgroup:
            (self.cgroup / name).mkdir()
            (self.cgroup / name / "cgroup.procs").write_text(str(process.pid))
        folder = self.folder / "containers" / name
        folder.mkdir()
        (folder / "record.json").write_bytes(msgspec.json.encode(record))
        self.wanted[name] = Wanted(spec)
        return record

    @contextlib.asynccontextmanager
    async def daemon(self) -> AsyncIterator[NodeState]:
        """Run the node daemon."""
        if not (self.identity and self.keeps_identity):
            certificate, key, self.fingerprint = identity.make_certificate("host")
            self.identity = Identity(certificate, key, self._anchor())
        events = EventRing()
        links = Links(events, lambda said: None, self.folder / "leases.json", self.folder / "links.json")
        assert self.worker
        kept = Remembered(self.worker, events, tuple, str(self.folder / "state.json"))
        for name, wanted in self.wanted.items():
            await kept.store.put(f"container/{name}", msgspec.json.encode(wanted))
        self.state = NodeState(
            self.identity,
            self.fingerprint,
            events,
            links,
            kept,
            self.containers,
            self.disks,
            self.configs,
            self.volumes,
            self.networks,
            self.names,
            self.meshes,
        )
        self.state.containers.resume()
        keeping = asyncio.create_task(self.state.volumes.run(), name="volumes")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.socket))
        server = await asyncio.start_server(self._talk, sock=listener)
        try:
            yield self.state
        finally:
            self.socket.unlink()
            server.close()
            await _cancel([keeping])
            await _cancel(
                task
                for task in asyncio.all_tasks()
                if task.get_name().partition(" ")[0] in ("container", "talk")
            )
            self.state.networks.close()
            links.close()

    async def told(self, message: str) -> None:
        """Wait for an event."""
        assert self.state
        cursor = 0
        async with asyncio.timeout(60):
            while True:
                found = await self.state.events.wait_after(cursor, 60)
                if any(event.message == message for event in found.events):
                    return
                cursor = found.cursor

    def networks(self, state: NodeState) -> Networks:
        """The network manager; no container is ever linked, so it changes nothing of this machine."""
        networks = Networks(state.remembered.store, state.events, state.names, state.hosts_of)
        networks.meshes = lambda: state.meshes
        return networks

    def names(self, state: NodeState) -> Names:
        """Who would answer containers' questions for names: nobody has it run."""

        async def fork(_: int) -> None:
            raise OSError("no template is there")

        return Names(state.events, tuple, fork)

    def meshes(self, state: NodeState) -> Meshes:
        """The mesh manager; it does not run, so it changes nothing of this machine."""
        return Meshes(state.remembered.store, state.events, AroundMeshes(state), openssl.new_x25519)

    def containers(self, state: NodeState) -> Containers:
        """A container manager that has not taken over anything yet."""
        assert self.worker
        world = World(
            Store(self.folder / "images"),
            state.networks,
            Certificates(partial(identity.make_certificate, for_browsers=True)),
            state.volumes.use,
            self.worker,
            self.folder / "containers",
            self.cgroup or self.folder / "cgroup",
            SecretStore(self.folder / "secrets"),
        )
        return Containers(world, state.remembered.store, state.events)

    def configs(self, state: NodeState) -> Configs:
        """A keeper of the config, which comes over the API."""

        def apply(config: NodeConfig) -> None:
            state.disks.configure(config.storage)

        network = CheckedLinks(state.links)
        store = state.remembered.store
        return Configs(store, state.events, network, apply, openssl.verify, fetch, None, None)

    def disks(self, state: NodeState) -> Disks:
        """A disk manager that sees the disks of the test: those of this machine are nobody's; it has the `pools`."""
        assert self.worker
        folders = {str(place.parent) for place in self.pools.values()} or {str(self.folder / "pools")}
        (pools,), mounted = folders, self.folder / "mounted.json"
        serving = {name: SeenPool(frozenset(), MountOptions()) for name in self.pools}
        mounted.write_bytes(msgspec.json.encode(serving))
        made = Disks(
            self.worker,
            state.remembered.store,
            state.events,
            state.operations,
            self.observe,
            lambda: None,  # the programs are this machine's
            pools,
            str(mounted),
        )
        made.book.found_by = 0.0  # no drivers are being loaded
        return made

    def volumes(self, state: NodeState) -> Volumes:
        """The volume manager of those pools."""
        assert self.worker
        memory = Memory(str(self.folder / "volumes"))
        return Volumes(
            state.disks.book,
            self.worker,
            state.events,
            memory,
            state.users_of,
            state.operations,
            state.volumes_came,
        )

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        assert self.state
        task.set_name("talk")
        with contextlib.suppress(asyncio.CancelledError):  # Python 3.11's streams log it as an error
            await talk(self.state, reader, writer)

    def _anchor(self) -> str:
        return identity.trust_anchor(self.key.public_key().public_bytes_raw())

    @contextlib.asynccontextmanager
    async def api(self, presented: Identity | None = None) -> AsyncIterator[Daemon]:
        """Run the API process' part, with the daemon's identity or another; yields its way to the daemon."""
        shown = presented or self.identity
        assert shown
        daemon = Daemon(str(self.socket))
        listener = listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        serving = await serve(Api(daemon, MAX_BODY), [listener], tls_context(shown))
        try:
            yield daemon
        finally:
            await serving.stop(0.0)
            daemon.close()

    def end(self) -> None:
        """End the worker and the containers' processes."""
        if self.worker:
            self.worker.close()
        for process in self.lives:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


async def _cancel(tasks: Iterable[asyncio.Task[object]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


@pytest.fixture
def host_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system_call_filters: Path
) -> Iterator[HostNode]:
    """A node that is not running yet; its files are below `tmp_path`."""
    monkeypatch.setattr(paths, "RECEIVE_SECCOMP", str(system_call_filters / "receive.bpf"))
    monkeypatch.setattr(paths, "STORAGE", "")  # the programs are this machine's; the worker must know it
    node = HostNode(tmp_path / "node", worker=Worker())
    for name in ("images", "containers", "cgroup", "system", "exits"):
        (node.folder / name).mkdir(parents=True)
    (node.folder / "image.json").write_text(json.dumps({"version": "1.2.3", "build_id": "b" * 12}))
    (node.folder / "boot.log").write_text(
        "zn: phase init done at 0.900s\nzn: phase drivers failed at 1.200s: no such module\n"
    )
    for name, path in (
        ("IMAGE", "image.json"),
        ("BOOT_LOG", "boot.log"),
        ("CGROUP_SYSTEM", "system"),
        ("EXITS", "exits"),
        ("INIT_SOCKET", "init.sock"),
    ):
        monkeypatch.setattr(paths, name, str(node.folder / path))
    yield node
    node.end()


@pytest.fixture
def cgroup_node(host_node: HostNode) -> Iterator[HostNode]:
    """A node whose containers are in cgroups of this machine's kernel."""
    mounted = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    place = next((Path(fields[1]) for fields in mounted if fields[2] == "cgroup2"), None)
    if os.geteuid() or place is None or not os.access(place, os.W_OK):
        pytest.skip("needs root and a cgroup2 to write to")
    host_node.cgroup = place / f"zn-tests-{os.getpid()}"
    host_node.cgroup.mkdir()
    yield host_node
    cgroups.kill(host_node.cgroup)
    cgroups.remove(host_node.cgroup)
