"""The packet filter in force: which networks, containers and ports the kernel knows, changed by transactions."""

from collections.abc import Iterable, Sequence

from core0.linux.nftables import Nftables
from core0.networks import ruleset
from core0.networks.model import Attachment, Policy
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
)


class Filter:
    """The ruleset in force; making one ends what an earlier one knew."""

    def __init__(self, networks: Iterable[Policy]) -> None:
        self._nftables = Nftables()
        self._networks: dict[str, Policy] = {}
        self._containers: dict[str, tuple[Attachment, list[ruleset.Elements]]] = {}
        self._around: dict[str, tuple[str, ...]] = {}
        self._nftables.run(ruleset.RULESET)
        known = tuple(networks)
        if known:
            self._nftables.run("".join(map(ruleset.define_chain, known)))
            self._nftables.run(ruleset.add(*map(ruleset.elements_of_network, known)))
            self._networks = {one.name: one for one in known}

    def set_network(self, network: Policy) -> None:
        """Know a network, or that it is another one now. Established connections stay."""
        old = self._networks.get(network.name)
        if old == network:
            return
        before = ruleset.elements_of_network(old) if old else {}
        after = ruleset.elements_of_network(network)
        self._nftables.run(ruleset.define_chain(network))
        self._nftables.run(
            ruleset.delete(ruleset.difference(before, after)) + ruleset.add(ruleset.difference(after, before))
        )
        if old:
            self._nftables.run(ruleset.delete_chains(old, besides=network))
        self._networks[network.name] = network

    def forget_network(self, name: str) -> None:
        """Know a network no more; one that is not known is fine."""
        network = self._networks.pop(name, None)
        if network:
            self._nftables.run(ruleset.delete(ruleset.elements_of_network(network)))
            self._nftables.run(ruleset.delete_chains(network))

    def attach(self, attachment: Attachment) -> None:
        """Let a container send with its addresses."""
        elements = ruleset.elements_of_container(attachment)
        self._nftables.run(ruleset.add(elements))
        self._containers[attachment.link] = (attachment, [elements])

    def publish(self, link: str, ports: Iterable[PublishedPort]) -> None:
        """Lead ports of the node to a container that is attached."""
        attachment, known = self._containers[link]
        elements = ruleset.elements_of_ports(attachment, ports)
        self._nftables.run(ruleset.add(elements))
        known.append(elements)

    def detach(self, link: str) -> None:
        """Forget a container with its ports; one that is not known is fine."""
        _, known = self._containers.pop(link, (None, []))
        if known:
            self._nftables.run(ruleset.delete(*known))

    def refused(self, link: str = "") -> dict[str, int]:
        """How many packets of containers were refused, by their links; of one link, or of all."""
        what = (
            f'get element inet zeronode refused {{ "{link}" }}' if link else "list set inet zeronode refused"
        )
        return ruleset.counted(self._nftables.ask(what))

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
