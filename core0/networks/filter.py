"""The packet filter in force: which networks, containers and ports the kernel knows, changed by transactions."""

import contextlib
from collections.abc import Iterable, Sequence
from itertools import count

from core0.linux import files
from core0.linux.nfnetlink import Element, Nfnetlink, add_element, delete_element
from core0.linux.nftables import Nftables
from core0.networks import ruleset, shortcut
from core0.networks.model import Attachment, MeshPolicy, Policy
from core0.wire.subnets import parse_interface
from core0.wire.types import PublishedPort

MODULES = (
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_fib_inet",
    "nft_limit",
    "nft_connlimit",
    "nft_fwd_netdev",
)

# What the kernel keeps of connections, by its memory (nf_conntrack-sysctl.rst), and the part of it for one container.
_MOST_FLOWS, _SHARE = "/proc/sys/net/netfilter/nf_conntrack_max", 4


class Filter:
    """The ruleset in force; making one ends what an earlier one knew."""

    def __init__(self, networks: Iterable[Policy]) -> None:
        self._nftables, self._nfnetlink = Nftables(), Nfnetlink()
        self._networks: dict[str, Policy] = {}
        self._containers: dict[str, tuple[Attachment, list[Element]]] = {}
        self._ports: dict[str, list[ruleset.Elements]] = {}
        self._around: dict[str, tuple[str, ...]] = {}
        # By network and MTU: those of a group reach each other by the short way. No number is given out twice.
        self._groups: dict[str, dict[int, int]] = {}
        self._numbers = count(1)
        # Links of meshes that are looked at: both directions go by the short way, or neither does.
        self._watched: set[str] = set()
        self._nftables.run(ruleset.RULESET)
        self._nftables.run(ruleset.limit_flows(int(files.read(_MOST_FLOWS)) // _SHARE))
        known = tuple(networks)
        if known:
            self._nftables.run("".join(map(ruleset.define_chain, known)))
            self._nftables.run(ruleset.add(*map(self._elements, known)))
            self._networks = {one.name: one for one in known}

    def _elements(self, network: Policy) -> ruleset.Elements:
        found, mesh = ruleset.elements_of_network(network), network.mesh
        if mesh is None or mesh.link not in self._watched:
            return found
        return {**found, **self._ways(network.name, mesh)}

    def _ways(self, network: str, mesh: MeshPolicy) -> ruleset.Elements:
        return shortcut.elements_of_mesh(mesh, self._group(network, mesh.mtu))

    def _group(self, network: str, mtu: int) -> int:
        groups = self._groups.setdefault(network, {})
        return groups.get(mtu) or groups.setdefault(mtu, next(self._numbers))

    def set_network(self, network: Policy) -> None:
        """Know a network, or that it is another one now. Established connections stay."""
        old = self._networks.get(network.name)
        if old == network:
            return
        before, after = self._elements(old) if old else {}, self._elements(network)
        self._nftables.run(ruleset.define_chain(network))
        self._nftables.run(
            ruleset.delete(ruleset.difference(before, after)) + ruleset.add(ruleset.difference(after, before))
        )
        if old:
            self._nftables.run(ruleset.delete_chains(old, besides=network))
            self._forget_link(old, besides=network)
        self._networks[network.name] = network

    def forget_network(self, name: str) -> None:
        """Know a network no more; one that is not known is fine."""
        network = self._networks.pop(name, None)
        if network:
            self._nftables.run(ruleset.delete(self._elements(network)))
            self._nftables.run(ruleset.delete_chains(network))
            self._groups.pop(name, None)
            self._forget_link(network)

    def _forget_link(self, network: Policy, besides: Policy | None = None) -> None:
        mesh, kept = network.mesh, besides and besides.mesh
        if mesh and not (kept and kept.link == mesh.link):
            self._watched.discard(mesh.link)

    def attach(self, attachment: Attachment) -> None:
        """Let a container send with its addresses. Its link has to be there; it may end at any moment."""
        group = self._group(attachment.network, attachment.mtu)
        elements = ruleset.elements_of_container(attachment)
        elements += shortcut.elements_of_container(attachment, group)
        watch = [shortcut.watch_container(attachment.link)] if attachment.mtu else []
        try:
            self._nfnetlink.commit([*watch, *map(add_element, elements)])
        except OSError:
            self._take_back(elements)
            raise
        self._containers[attachment.link] = (attachment, elements)

    def _take_back(self, elements: Iterable[Element]) -> None:
        """Delete what may be there: the kernel can have carried out all of it and lost only its answer."""
        with contextlib.suppress(FileNotFoundError):
            self._nfnetlink.commit([delete_element(one) for one in elements])

    def watch_mesh(self, link: str) -> None:
        """Have the short way lead over a link of a mesh, which is there."""
        self._nfnetlink.commit([shortcut.watch_mesh(link)])
        if link not in self._watched:
            known = ((one.name, one.mesh) for one in self._networks.values())
            ways = [self._ways(name, mesh) for name, mesh in known if mesh and mesh.link == link]
            self._nftables.run(ruleset.add(*ways))
            self._watched.add(link)

    def publish(self, link: str, ports: Iterable[PublishedPort]) -> None:
        """Lead ports of the node to a container that is attached."""
        elements = ruleset.elements_of_ports(self._containers[link][0], ports)
        self._nftables.run(ruleset.add(elements))
        self._ports.setdefault(link, []).append(elements)

    def detach(self, link: str) -> None:
        """Forget a container with its ports; one that is not known is fine."""
        ports = self._ports.pop(link, [])
        if ports:
            self._nftables.run(ruleset.delete(*ports))
        _, elements = self._containers.pop(link, (None, ()))
        if elements:
            self._nfnetlink.commit([delete_element(one) for one in elements])

    def close(self) -> None:
        """Close the socket to the kernel; the filter stays in force."""
        self._nfnetlink.close()

    def refused(self, link: str) -> int:
        """How many packets of a container were refused, by its link; 0 for one that is not known."""
        return self._nfnetlink.count(ruleset.refused_of(link))

    def all_refused(self) -> dict[str, int]:
        """The same of all containers."""
        counts = self._nfnetlink.counts(*ruleset.REFUSED)
        return {value.rstrip(b"\0").decode(): packets for value, packets in counts.items()}

    def set_lan(self, interfaces: Sequence[str]) -> None:
        """Say which addresses the node has, with their prefix lengths: those subnets are not the Internet."""
        self._replace("lan", sorted({str(parse_interface(one)[0]) for one in interfaces}))

    def _replace(self, name: str, values: Sequence[str]) -> None:
        wanted = tuple(dict.fromkeys(values))
        if self._around.get(name) != wanted:
            of_both = (
                (family, [one for one in wanted if (":" in one) == (family == 6)]) for family in (4, 6)
            )
            self._nftables.run("".join(ruleset.replace(f"{name}{family}", part) for family, part in of_both))
            self._around[name] = wanted
