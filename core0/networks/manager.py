"""The network manager: networks as they are wished for, and the containers' links, addresses and ports in them.

Wishes are in the node's state. The kernel gets to know a network with the first container: a boot waits for no packet
filter. From then on one table has it all, and each change is a transaction.
"""

import asyncio
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from core0.linux import memory, netlink, tools
from core0.linux.netlink import AddressChanges, End, Netlink
from core0.networks import filter as packet_filter
from core0.networks.addresses import free_host, free_ipv4, free_ipv6
from core0.networks.checks import (
    Around,
    check_change,
    check_fixed,
    check_free,
    check_room,
    check_spec,
    check_unused,
    overlap,
)
from core0.networks.inside import configure
from core0.networks.model import (
    Attachment,
    Kept,
    Policy,
    link_of,
    policy_of,
    zone_of,
)
from core0.wire.control import RefusedError, Report, absent, conflict, invalid, taken
from core0.wire.mesh import Mesh, MeshSpec
from core0.wire.names import Host, Zone
from core0.wire.network import (
    CONTAINER_LINK_PREFIX,
    CONTAINER_LINKS,
    GATEWAY,
    GATEWAY_HARDWARE,
    MESH_LINK_PREFIX,
)
from core0.wire.networks import DEFAULT, Network, NetworkMember, NetworkSpec, NetworkState
from core0.wire.state import NEWER_IMAGE
from core0.wire.subnets import Subnet, parse_interface
from core0.wire.types import Limits, NetworkName, PublishedPort, Traffic

if TYPE_CHECKING:
    from core0.linux.netlink_traffic import Counters

_SECTION = "network/"
_LOOPBACK = 1
# Seconds after the first container in which others may follow.
_CALM = 5.0
_NO_LIMITS = Limits()
_LINK_LOCAL = ("169.254.", "fe80:")


class Keep(Protocol):
    """Where the node's state is kept."""

    @property
    def node(self) -> str:
        """The node's id."""

    def get(self, section: str) -> bytes | None:
        """A section of the state."""

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """The sections whose names begin so."""

    async def put(self, section: str, value: bytes) -> None:
        """Write a section; returns when every copy has it."""

    async def remove(self, section: str) -> None:
        """Take a section away; returns when no copy has it."""


class Names(Protocol):
    """Who answers containers' questions for names."""

    def begin(self) -> None:
        """Answer from now on."""

    def set_zones(self, zones: Iterable[Zone]) -> None:
        """Say which networks there are."""

    def add(self, host: Host) -> None:
        """Say that a container is linked."""

    def remove(self, ipv4: str) -> None:
        """Say that the container with an address is gone; one that is not known is fine."""


class Meshes(Protocol):
    """What networks that span nodes need; each raises RefusedError, and has changed nothing then."""

    def check(self, network: str, spec: MeshSpec, subnets: tuple[str, str], hosts: Mapping[str, str]) -> None:
        """Refuse what cannot be; `hosts` are the containers by their addresses."""

    async def adopt(self, network: str, spec: MeshSpec) -> None:
        """Have key, port and link for a network."""

    async def drop(self, network: str) -> None:
        """Forget them; those of a network that has none are fine."""

    async def follow(self) -> None:
        """Bring the kernel to a wish that is another one now."""

    def link_of(self, network: str) -> str:
        """The name of a network's link to other nodes; empty if it can have none."""

    def resolvers(self, network: str) -> tuple[str, ...]:
        """Where other nodes of a network answer for names."""

    def owner_of(self, port: int) -> str:
        """Which mesh listens on a UDP port; empty if none does."""

    def show(self, network: str, spec: MeshSpec, subnets: tuple[str, str]) -> Mesh | None:
        """A mesh as it is."""


class Networks:
    """All networks of containers.

    Args:
        keep: the node's state.
        report: where to tell what happened.
        names: who answers containers' questions for names.
        users: the containers that are wanted in a network, or still there, and their numbers in it.
    """

    def __init__(
        self,
        keep: Keep,
        report: Report,
        names: Names,
        users: Callable[[str], Mapping[str, int]],
    ) -> None:
        self._keep = keep
        self._report = report
        self._names = names
        self._users = users
        self._rtnetlink = Netlink()
        self._filter: packet_filter.Filter | None = None
        self._resumed: dict[int, tuple[Attachment, tuple[PublishedPort, ...]]] = {}
        self._hosts: dict[int, Host] = {}
        self._changes: AddressChanges | None = None
        self._changing = asyncio.Lock()
        # Asked only of networks that span nodes. Who has meshes says so.
        self.meshes: Callable[[], Meshes] = _no_meshes
        self._networks = dict(self._kept())
        if DEFAULT not in self._networks:
            self._networks[DEFAULT] = self._chosen_default()

    def _kept(self) -> Iterator[tuple[str, Kept]]:
        for section in self._keep.names(_SECTION):
            name = section.removeprefix(_SECTION)
            try:
                msgspec.convert(name, NetworkName)
                kept = msgspec.json.decode(self._keep.get(section) or b"", type=Kept)
                check_spec(msgspec.structs.replace(kept.spec, ipv4=kept.ipv4, ipv6=kept.ipv6))
                _ = kept.lent
            except (msgspec.ValidationError, ValueError, RefusedError) as error:
                said = f"this image does not understand what it shall be: {error}"
                self._report("network", name, f"Warning: {said}; put it again, or {NEWER_IMAGE}")
                continue
            yield name, kept

    def _chosen_default(self) -> Kept:
        used = [subnet for kept in self._networks.values() for subnet in kept.subnets]
        return self._with_subnets(DEFAULT, NetworkSpec(), used)

    def close(self) -> None:
        """Close the sockets to the kernel."""
        self._rtnetlink.close()
        if self._filter:
            self._filter.close()
        if self._changes:
            asyncio.get_running_loop().remove_reader(self._changes.fileno())
            self._changes.close()

    # what is shown

    def list(self) -> tuple[Network, ...]:
        """All networks, by name."""
        around = self._around()
        return tuple(self._shown(name, around) for name in sorted(self._networks))

    def get(self, name: str) -> Network:
        """One network. Raises RefusedError (404) if there is none."""
        self._network(name)
        shown, traffic = self._shown(name, self._around()), self._traffic_by_host()
        members = tuple(
            msgspec.structs.replace(one, traffic=traffic.get((name, one.container)))
            for one in shown.containers
        )
        return msgspec.structs.replace(shown, containers=members)

    def _shown(self, name: str, around: Around) -> Network:
        kept = self._networks[name]
        users = sorted(self._users(name).items())
        ipv4, ipv6 = kept.subnets
        members = tuple(
            NetworkMember(user, ipv4.address(host), ipv6.address(host)) for user, host in users if host
        )
        trouble = self._trouble_with(name, kept, around)
        why = trouble or _in_words(kept.spec)
        state: NetworkState = "conflict" if trouble else "ready"
        mesh = self.meshes().show(name, kept.spec.mesh, (kept.ipv4, kept.ipv6)) if kept.spec.mesh else None
        return Network(name, state, why, kept.ipv4, kept.ipv6, kept.spec, members, mesh)

    def _trouble_with(self, name: str, kept: Kept, around: Around) -> str:
        """What a link of the node got since: it came later, so the network is the one to go."""
        others = {other: one for other, one in self._networks.items() if other != name}
        found = next(filter(None, (overlap(subnet, others, around) for subnet in kept.reach)), "")
        return f"it overlaps {found}: put it with another subnet" if found else ""

    def _network(self, name: str) -> Kept:
        try:
            return self._networks[name]
        except KeyError:
            raise absent(f"cannot find network {name[:80]!a}: there is none", "see 'zn network ls'") from None

    # verbs

    async def put(self, name: str, spec: NetworkSpec, *, new: bool = False) -> Network:
        """Have a network as the spec says. Idempotent; what it may reach changes at once, also for what runs.

        Raises:
            RefusedError: if that cannot be, or would change one though it shall be `new`; nothing has changed then.
        """
        async with self._changing:
            old = self._networks.get(name)
            around = self._around()
            if old and old.spec == spec:
                return self._shown(name, around)
            if new and old:
                raise taken("network", name)
            check_spec(spec)
            kept = self._made(name, spec, old, around)
            if spec.mesh:
                await self.meshes().adopt(name, spec.mesh)
            await self._keep.put(_SECTION + name, msgspec.json.encode(kept))
            self._networks[name] = kept
            if self._filter:
                self._filter.set_network(self._policy(name, kept))
            self._tell_zones()
            await self._follow_mesh(name, old, kept)
            self._report("network", name, f"{'Changed' if old else 'Created'}: {kept.ipv4} and {kept.ipv6}")
            return self._shown(name, around)

    def _check_mesh(self, name: str, kept: Kept, spec: MeshSpec) -> None:
        users = self._users(name).items()
        hosts = {subnet.address(host): user for user, host in users for subnet in kept.subnets}
        self.meshes().check(name, spec, (kept.ipv4, kept.ipv6), hosts)

    async def _follow_mesh(self, name: str, old: Kept | None, kept: Kept | None) -> None:
        """Let the links to other nodes follow a network that is another one now, or gone."""
        if kept and kept.spec.mesh:
            await self.meshes().follow()
        elif old and old.spec.mesh:
            await self.meshes().drop(name)

    def _policy(self, name: str, kept: Kept) -> Policy:
        return policy_of(name, kept, self.meshes().link_of(name) if kept.spec.mesh else "")

    def reach(self) -> dict[str, tuple[str, ...]]:
        """The subnets of all networks, the whole of those that span nodes."""
        return {name: tuple(map(str, kept.reach)) for name, kept in self._networks.items()}

    def spans(self) -> dict[str, tuple[MeshSpec, tuple[str, str]]]:
        """The networks that span nodes: how, and their own subnets."""
        return {
            name: (kept.spec.mesh, (kept.ipv4, kept.ipv6))
            for name, kept in self._networks.items()
            if kept.spec.mesh
        }

    def _made(self, name: str, spec: NetworkSpec, old: Kept | None, around: Around) -> Kept:
        """A network with its subnets, none of which anything else has."""
        others = {other: one for other, one in self._networks.items() if other != name}
        used = [subnet for one in others.values() for subnet in one.reach]
        used += [parse_interface(text)[0] for texts in around.values() for text in texts]
        given = spec
        if old:  # what the node chose stays
            given = msgspec.structs.replace(
                spec,
                ipv4=spec.ipv4 or (old.ipv4 if old.spec.ipv4 is None else None),
                ipv6=spec.ipv6 or (old.ipv6 if old.spec.ipv6 is None else None),
            )
        kept = msgspec.structs.replace(self._with_subnets(name, given, used), spec=spec)
        if spec.mesh:
            self._check_mesh(name, kept, spec.mesh)
        check_room(kept)
        if old is None or (old.subnets, old.reach) != (kept.subnets, kept.reach):
            check_free(name, kept, others, around)
        if old:
            check_change(name, old, kept, self._users(name))
        return kept

    def _with_subnets(self, name: str, spec: NetworkSpec, used: Sequence[Subnet]) -> Kept:
        ipv4 = spec.ipv4 or free_ipv4(used)
        ipv6 = spec.ipv6 or free_ipv6(self._keep.node, used)
        if ipv4 is None or ipv6 is None:
            field = "ipv4" if ipv4 is None else "ipv6"
            detail = (
                f"cannot choose an {field} subnet for network {name}: all that the node would take are in use"
            )
            raise conflict(detail, f"give it an {field} subnet", f"/{field}")
        return Kept(spec, str(ipv4), str(ipv6))

    async def delete(self, name: str) -> None:
        """Delete a network. Raises RefusedError: there is none, it is the default, or containers are in it."""
        async with self._changing:
            kept = self._network(name)
            if name == DEFAULT:
                detail = f"cannot delete network {name}: containers that name no network are in it"
                raise conflict(detail, "change it, or leave it unused")
            check_unused(name, self._users(name))
            del self._networks[name]  # before it is forgotten, so that no container comes meanwhile
            try:
                await self._keep.remove(_SECTION + name)
            except RefusedError:
                self._networks[name] = kept
                raise
            if self._filter:
                self._filter.forget_network(name)
            self._tell_zones()
            await self._follow_mesh(name, kept, None)
            self._report("network", name, "Deleted")

    # what containers need

    def trouble(self, name: str) -> str:
        """Why no container can be in a network of that name; empty if one can."""
        return "" if name in self._networks else f"there is no network {name}"

    def choose_host(self, name: str, used: Sequence[int]) -> int:
        """A free number in a network. Raises RefusedError: there is no such network, or it is full."""
        kept = self._network(name)
        host = free_host(kept.lent | frozenset(used), check_room(kept))
        if host is None:
            detail = (
                f"cannot put another container into network {name}: all addresses of {kept.ipv4} are in use"
            )
            raise conflict(detail, "remove one, or use another network", "/network")
        return host

    def fixed_host(self, name: str, ipv4: str | None, ipv6: str | None) -> int | None:
        """The number that a container's own addresses mean, None without any. Raises RefusedError (422)."""
        kept = self._network(name)
        return check_fixed(name, kept, ipv4, ipv6)

    def addresses(self, network: str, host: int) -> tuple[str, str]:
        """IPv4 and IPv6 address of a number in a network. Raises OSError: there is no such network."""
        ipv4, ipv6 = self._linked(network).subnets
        return ipv4.address(host), ipv6.address(host)

    def _linked(self, network: str) -> Kept:
        kept = self._networks.get(network)
        if kept is None:
            raise FileNotFoundError(errno.ENOENT, f"cannot link it: {self.trouble(network)}")
        return kept

    def attach(
        self, number: int, name: str, network: str, host: int, namespace: int, limits: Limits = _NO_LIMITS
    ) -> None:
        """Make the link of a container: `eth0` in its network namespace, routed.

        Args:
            number: the container's, which names the link.
            name: its name, which the others of the network may ask for.
            network: its network.
            host: its number there.
            namespace: a descriptor of its network namespace.
            limits: how much it may receive and send.

        Raises:
            OSError: with what could not be done; nothing is left then.
        """
        kept = self._linked(network)
        attachment = Attachment(number, network, *self.addresses(network, host), kept.link_mtu)
        rules = self._need_filter()
        requests = _link_requests(attachment, kept.link_segment, namespace)
        try:
            self._rtnetlink.apply([*requests, *_limit_requests(attachment, limits)])
            rules.attach(attachment)
            configure(namespace, attachment, limits.send_bps)
        except OSError:
            self.detach(number)
            raise
        self._name(number, Host(network, name, attachment.ipv4, attachment.ipv6))

    def limit(self, number: int, limits: Limits) -> None:
        """Limit what a container that is linked receives, or free it. Raises OSError."""
        from core0.linux import netlink_traffic

        # also for the container's end, which cannot load any
        tools.load_modules((netlink_traffic.MODULE,))
        link = self._rtnetlink.link(CONTAINER_LINKS + number)
        if link is None:
            raise OSError(errno.ENODEV, "cannot limit its link: it has none")
        netlink_traffic.set_rate(self._rtnetlink, link, limits.receive_bps)

    def publish(self, number: int, ports: Sequence[PublishedPort]) -> None:
        """Lead ports of the node to a container that is linked."""
        if ports:
            self._need_filter().publish(link_of(number), ports)

    def resume(
        self,
        number: int,
        name: str,
        network: str,
        addresses: tuple[str, str],
        ports: Sequence[PublishedPort],
    ) -> None:
        """Go on with a container that an earlier daemon linked; see `enforce`."""
        self._resumed[number] = (Attachment(number, network, *addresses, mtu=0), tuple(ports))
        self._name(number, Host(network, name, *addresses))

    def enforce(self) -> None:
        """Have a packet filter of our own in force for the containers that were resumed.

        Until then it is the earlier daemon's, which does not learn of other addresses of the node.
        """
        if self._resumed:
            self._need_filter()

    def traffic(self, number: int) -> Traffic | None:
        """What went over a container's link; None if it has none."""
        from core0.linux.netlink_traffic import counters_of

        if number not in self._hosts or not self._filter:
            return None
        try:
            counted = counters_of(self._rtnetlink, CONTAINER_LINKS + number)
        except OSError as error:
            if error.errno != errno.ENODEV:  # the namespace has ended at this moment, and the link with it
                raise
            return None
        return _seen_inside(counted, self._filter.refused(link_of(number)))

    def _traffic_by_host(self) -> dict[tuple[str, str], Traffic]:
        """The traffic of all containers, by their network and name: one look for all of them."""
        from core0.linux.netlink_traffic import all_counters

        if not self._filter:
            return {}
        refused = self._filter.all_refused()
        counted = {one.index - CONTAINER_LINKS: one for one in all_counters(self._rtnetlink)}
        return {
            (host.network, host.name): _seen_inside(counted[number], refused.get(link_of(number), 0))
            for number, host in self._hosts.items()
            if number in counted
        }

    def guard(self) -> None:
        """Have the packet filter in force, whether there are containers or not. Raises OSError."""
        self._need_filter()

    def watch_mesh(self, link: str) -> None:
        """Have the packet filter see what comes by the link of a mesh, made a moment ago. Raises OSError."""
        self._need_filter().watch_mesh(link)

    def port_owner(self, port: int) -> str:
        """Which mesh listens on a UDP port of the node; empty if none does."""
        return self.meshes().owner_of(port) if self.spans() else ""

    def detach(self, number: int) -> None:
        """Take a container's ports and link away; the kernel deletes the link with the namespace, too."""
        self._forget(number)
        _delete_link(number)

    async def remove(self, number: int) -> None:
        """The same, while everything else goes on: the kernel waits for all processors (synchronize_net)."""
        self._forget(number)
        await asyncio.to_thread(_delete_link, number)

    def _name(self, number: int, host: Host) -> None:
        self._hosts[number] = host
        self._names.add(host)

    def _forget(self, number: int) -> None:
        self._resumed.pop(number, None)
        host = self._hosts.pop(number, None)
        if host:
            self._names.remove(host.ipv4)
        if self._filter:
            self._filter.detach(link_of(number))

    # the kernel

    def _need_filter(self) -> packet_filter.Filter:
        """The packet filter, made with the first container: a boot does not wait for it."""
        if not self._filter:
            tools.load_modules(("veth", *packet_filter.MODULES))
            self._filter = packet_filter.Filter(self._policy(*one) for one in self._networks.items())
            self._resume_all(self._filter)
            self._rtnetlink.apply(self._own_addresses())
            self._watch()
            self._look_around()
            self._tell_zones()
            self._names.begin()
            # a MiB that libnftables needed to read the rules
            asyncio.get_running_loop().call_later(_CALM, memory.release)
        return self._filter

    def _resume_all(self, rules: packet_filter.Filter) -> None:
        """Let the filter know what an earlier daemon linked, as far as it is still there."""
        mtus = {link.name: link.mtu for link in self._rtnetlink.links()}
        for attachment, ports in self._resumed.values():
            there = msgspec.structs.replace(attachment, mtu=mtus.get(attachment.link, 0))
            try:
                rules.attach(there)
            except OSError:  # the link has ended since
                rules.attach(attachment)
            rules.publish(attachment.link, ports)
        for link in mtus:
            if link.startswith(MESH_LINK_PREFIX):
                rules.watch_mesh(link)

    def _own_addresses(self) -> Sequence[netlink.Request]:
        """Where the node's errors to containers come from: it may have no other address of a family."""
        _, ipv6 = self._networks[DEFAULT].subnets
        return [
            netlink.add_address(_LOOPBACK, f"{GATEWAY}/32"),
            netlink.add_address(_LOOPBACK, f"{ipv6.address(1)}/128", properties=netlink.UNIQUE),
        ]

    def _watch(self) -> None:
        """From now on know when the node's own links get other addresses."""
        self._changes = AddressChanges()
        asyncio.get_running_loop().add_reader(self._changes.fileno(), self._addresses_changed)

    def _addresses_changed(self) -> None:
        # containers' links come and go with theirs
        if self._changes and any(index < CONTAINER_LINKS for index in self._changes.links()):
            self._look_around()

    def _tell_zones(self) -> None:
        self._names.set_zones(
            zone_of(name, kept, self._resolvers(name) if kept.spec.mesh else ())
            for name, kept in self._networks.items()
        )

    def _resolvers(self, name: str) -> tuple[str, ...]:
        """Those on other nodes that know names of a network, too."""
        return tuple(one for one in self.meshes().resolvers(name) if ":" not in one)

    def _look_around(self) -> None:
        """Tell the packet filter which subnets the node is on."""
        if self._filter:
            self._filter.set_lan([text for texts in self._around().values() for text in texts])

    def _around(self) -> Around:
        """The addresses of the node's own links.

        They are looked for by addresses, which links of containers have none of: there may be a thousand of those.
        """
        by_link: dict[int, tuple[str, ...]] = {}
        for address in self._rtnetlink.addresses():
            if address.index != _LOOPBACK and not address.interface.startswith(_LINK_LOCAL):
                by_link[address.index] = (*by_link.get(address.index, ()), address.interface)
        links = {index: self._rtnetlink.link(index) for index in by_link}
        return {
            link.name: by_link[index]
            for index, link in links.items()
            if link and not link.name.startswith((CONTAINER_LINK_PREFIX, MESH_LINK_PREFIX))
        }


def _no_meshes() -> Meshes:
    raise invalid("cannot span nodes: there is nothing here that could", "leave mesh out", "/mesh")


def _delete_link(number: int) -> None:
    """Delete a container's link; one that is gone already is fine."""
    with Netlink() as rtnetlink:
        try:
            rtnetlink.apply([netlink.delete_link(link_of(number))])
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise


def _link_requests(attachment: Attachment, segment: int, namespace: int) -> list[netlink.Request]:
    """All of a link in one batch.

    Both ends know each other's hardware address, so neither has to ask, and the node's end needs no address: the same
    one on a thousand links would make the kernel look through all of them for each new one.
    """
    index = attachment.index
    end = End(attachment.link, GATEWAY_HARDWARE, index)
    return [
        netlink.add_veth(
            end, End("eth0", attachment.hardware), namespace, mtu=attachment.mtu, segment=segment
        ),
        netlink.forbid_link_local(index),
        netlink.add_route(f"{attachment.ipv4}/32", index),
        netlink.add_route(f"{attachment.ipv6}/128", index),
        netlink.add_neighbour(index, attachment.ipv4, attachment.hardware),
        netlink.add_neighbour(index, attachment.ipv6, attachment.hardware),
    ]


def _limit_requests(attachment: Attachment, limits: Limits) -> list[netlink.Request]:
    """The queue of the node's end, for containers that have a limit."""
    if not (limits.receive_bps or limits.send_bps):
        return []
    from core0.linux import netlink_traffic

    # also for the container's end, which cannot load any
    tools.load_modules((netlink_traffic.MODULE,))
    if not limits.receive_bps:
        return []
    return netlink_traffic.limit_rate(attachment.index, limits.receive_bps, attachment.mtu)


def _seen_inside(counted: "Counters", refused: int) -> Traffic:
    """The counters of the node's end of a link, as its other end sees them."""
    return Traffic(
        received_bytes=counted.sent_bytes,
        received_packets=counted.sent_packets,
        received_dropped=counted.sent_dropped,
        sent_bytes=counted.received_bytes,
        sent_packets=counted.received_packets,
        sent_dropped=counted.received_dropped,
        sent_refused=refused,
    )


def _in_words(spec: NetworkSpec) -> str:
    ways = {
        "nat": "its containers reach outside behind the node's address",
        "routed": "its containers reach outside with their own addresses",
        "none": "its containers reach each other only",
    }
    return (
        ways[spec.egress]
        if spec.egress_allow or spec.egress == "none"
        else "its containers may reach nothing outside"
    )
