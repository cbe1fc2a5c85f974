"""The node daemon's verbs: what the API process may ask, each a function from its call to a result."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from core0.links.manager import Links
from core0.node import facts
from core0.node.events import EventRing
from core0.node.remembered import Remembered
from core0.wire import paths
from core0.wire.console import announce
from core0.wire.control import (
    LONGEST_WAIT,
    Call,
    ContainerQuery,
    EventsQuery,
    Identity,
    Refusal,
    RefusedError,
    Reply,
)
from core0.wire.types import Check, Container, ContainerSpec, Events, PowerRequest
from core0.wire.types import Containers as ContainerList

if TYPE_CHECKING:
    from core0.clock.manager import Clock
    from core0.config.manager import Configs
    from core0.containers.manager import Containers
    from core0.disks.manager import Disks
    from core0.mesh.manager import Meshes
    from core0.names.manager import Names
    from core0.networks.manager import Networks
    from core0.node.operations import OperationTable
    from core0.volumes.manager import Volumes
    from core0.wire.images import ImagesConfig

# What the API answers before the machine goes down, in seconds.
_GOODBYE = 0.2


class NodeState(msgspec.Struct, dict=True):
    """What the verbs work on.

    Attributes:
        identity: for the API process.
        fingerprint: of the node's certificate.
        events: what happened.
        links: the link manager.
        remembered: what the node remembers.
        make_containers: makes the container manager when it is first used.
        make_disks: makes the disk manager when it is first used.
        make_configs: makes the keeper of the config when it is first used.
        make_volumes: makes the volume manager when it is first used.
        make_networks: makes the manager of containers' networks when it is first used.
        make_names: makes who answers containers' questions for names, with those networks.
        named: set once there is one.
        make_meshes: makes the mesh manager when a network first spans nodes.
        meshed: set once there is one.
        registries: what the config in force says of images.
        serving: set once the API serves: what a boot does not wait for begins then.
    """

    identity: Identity
    fingerprint: str
    events: EventRing
    links: Links
    remembered: Remembered
    make_containers: "Callable[[NodeState], Containers]"
    make_disks: "Callable[[NodeState], Disks]"
    make_configs: "Callable[[NodeState], Configs]"
    make_volumes: "Callable[[NodeState], Volumes]"
    make_networks: "Callable[[NodeState], Networks]"
    make_names: "Callable[[NodeState], Names]"
    make_meshes: "Callable[[NodeState], Meshes]"
    registries: "ImagesConfig | None" = None
    named: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    meshed: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    serving: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    @cached_property
    def containers(self) -> "Containers":
        """The container manager. Importing it takes longer than all else of this process that a boot waits for."""
        return self.make_containers(self)

    @cached_property
    def disks(self) -> "Disks":
        """The disk manager, which comes after the boot."""
        return self.make_disks(self)

    @cached_property
    def volumes(self) -> "Volumes":
        """The volume manager, which comes after the boot, too."""
        return self.make_volumes(self)

    @cached_property
    def networks(self) -> "Networks":
        """The manager of containers' networks."""
        return self.make_networks(self)

    @cached_property
    def names(self) -> "Names":
        """Who answers containers' questions for names."""
        return self.make_names(self)

    @cached_property
    def meshes(self) -> "Meshes":
        """The mesh manager, which runs once the API serves."""
        self.meshed.set()
        return self.make_meshes(self)

    def hosts_of(self, network: str) -> dict[str, int]:
        """The containers of a network and their numbers there. Without a container manager there are none."""
        return self.containers.hosts_of(network) if "containers" in self.__dict__ else {}

    def taken_subnets(self) -> dict[str, tuple[str, ...]]:
        """The subnets of networks, the whole of those that span nodes, by whose they are."""
        return {f"network {name}": subnets for name, subnets in self.networks.reach().items()}

    def port_owner(self, port: int) -> str:
        """Which container has a UDP port of the node published. Without a container manager none has."""
        return self.containers.port_owner(port) if "containers" in self.__dict__ else ""

    def look_at_servers(self) -> None:
        """The node knows other name servers or time servers: those who ask them shall know."""
        if "names" in self.__dict__:
            self.names.look()
        if "clock" in self.__dict__:
            self.clock.look()

    def users_of(self, volume: str) -> tuple[str, ...]:
        """The containers that have a volume in their spec. Without a container manager there are none."""
        return self.containers.users_of(volume) if "containers" in self.__dict__ else ()

    def volumes_came(self) -> None:
        """A pool's volumes can be used, or lie on other disks now: its containers shall know."""
        if "containers" in self.__dict__:
            self.containers.volumes_came()

    async def let_go_of_pools(self) -> None:
        """A pool is to end: what only images keep there for containers to come shall not be in the way."""
        if "containers" in self.__dict__:
            await self.containers.store.let_go()

    @cached_property
    def operations(self) -> "OperationTable":
        """Long work."""
        from core0.node.operations import OperationTable

        return OperationTable(self.events)

    @cached_property
    def clock(self) -> "Clock":
        """The clock's manager, which comes after the boot."""
        from core0.clock.manager import Clock

        return Clock(self.events, lambda: self.links.timeservers)

    @cached_property
    def configs(self) -> "Configs":
        """The keeper of the config."""
        return self.make_configs(self)


async def answer(state: NodeState, call: Call) -> Reply:
    """Carry out a call. A refusal is an answer, too; anything else that fails is a defect and raised."""
    try:
        verb = VERBS.get(call.verb) or _later_verbs()[call.verb]
        result = await verb(state, call)
    except RefusedError as error:
        return Reply(refusal=error.refusal)
    except msgspec.ValidationError as error:
        return Reply(refusal=Refusal(422, "invalid", f"cannot accept the request: {error}"))
    return Reply(result=msgspec.Raw(msgspec.json.encode(result)))


def refused(work: "Callable[..., None]", *arguments: object) -> Refusal | None:
    """Do something that may be refused; why it was."""
    try:
        work(*arguments)
    except RefusedError as error:
        return error.refusal
    except msgspec.ValidationError as error:
        return Refusal(422, "invalid", f"cannot accept the request: {error}")
    return None


def _later_verbs() -> "Mapping[str, Callable[[NodeState, Call], Awaitable[Any]]]":
    """Those that no boot waits for."""
    from core0.node.container_verbs import CONTAINER_VERBS
    from core0.node.image_verbs import IMAGE_VERBS
    from core0.node.link_verbs import LINK_VERBS
    from core0.node.network_verbs import NETWORK_VERBS
    from core0.node.secret_verbs import SECRET_VERBS
    from core0.node.state_verbs import STATE_VERBS
    from core0.node.storage_verbs import STORAGE_VERBS
    from core0.node.volume_verbs import VOLUME_VERBS

    return {
        **CONTAINER_VERBS,
        **IMAGE_VERBS,
        **LINK_VERBS,
        **NETWORK_VERBS,
        **SECRET_VERBS,
        **STATE_VERBS,
        **STORAGE_VERBS,
        **VOLUME_VERBS,
    }


async def _identity(state: NodeState, _: Call) -> Identity:
    return state.identity


async def _serving(state: NodeState, _: Call) -> None:
    announce("ready", detail="what it is told ends with this boot" if state.remembered.ephemeral else "")
    state.events("node", "api", "Answers authenticated requests")
    state.serving.set()


async def _node(state: NodeState, _: Call) -> Any:
    return facts.describe_node(state.fingerprint, state.links.seen(), state.remembered.ephemeral)


async def _health(state: NodeState, _: Call) -> Any:
    storage = state.disks.book.checks() if "disks" in vars(state) else ()
    clock = (state.clock.check(),) if "clock" in vars(state) else ()
    return facts.describe_health(state.links.seen(), (_remembers(state), *clock, *storage))


def _remembers(state: NodeState) -> Check:
    """Whether what the node is told is where it should be."""
    if state.remembered.ephemeral:
        return Check("state", ok=True, why="no disk keeps it: what the node is told ends with this boot")
    copies = state.remembered.store.status().copies
    there = sum(copy.ok for copy in copies)
    return Check("state", there > 0, f"{there} of {len(copies)} disks hold all that the node was told")


async def _boot(_: NodeState, __: Call) -> Any:
    return facts.describe_boot()


async def _events(state: NodeState, call: Call) -> Events:
    query = msgspec.json.decode(call.body, type=EventsQuery)
    return await state.events.wait_after(query.after, min(query.wait, LONGEST_WAIT))


async def _containers(state: NodeState, _: Call) -> ContainerList:
    return ContainerList(state.containers.list())


async def _container(state: NodeState, call: Call) -> Container:
    query = msgspec.json.decode(call.body, type=ContainerQuery)
    return await state.containers.wait(call.name, min(query.wait, LONGEST_WAIT), traffic=query.traffic)


async def _put_container(state: NodeState, call: Call) -> Container:
    spec = msgspec.json.decode(call.body, type=ContainerSpec)
    return await state.containers.put(call.name, spec, new=call.new)


async def _start_container(state: NodeState, call: Call) -> Container:
    return await state.containers.set_running(call.name, True)


async def _stop_container(state: NodeState, call: Call) -> Container:
    return await state.containers.set_running(call.name, False)


async def _delete_container(state: NodeState, call: Call) -> None:
    await state.containers.delete(call.name)


async def _power(_: NodeState, call: Call) -> None:
    request = msgspec.json.decode(call.body, type=PowerRequest)
    asyncio.get_running_loop().call_later(_GOODBYE, _tell_init, request.action)


def _tell_init(action: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        control.sendto(action.encode(), paths.INIT_SOCKET)


VERBS: Mapping[str, Callable[[NodeState, Call], Awaitable[Any]]] = {
    "identity": _identity,
    "serving": _serving,
    "node": _node,
    "health": _health,
    "boot": _boot,
    "events": _events,
    "containers": _containers,
    "container": _container,
    "put_container": _put_container,
    "start_container": _start_container,
    "stop_container": _stop_container,
    "delete_container": _delete_container,
    "power": _power,
}
