"""The network manager: links and published ports of containers."""

from collections.abc import Callable, Iterable

from core0.linux import netlink
from core0.linux.modules import Modules
from core0.linux.netlink import Netlink
from core0.networks import filter as packet_filter
from core0.networks.model import CONTAINER_LINK_PREFIX
from core0.wire.network import CONTAINER_GATEWAY, container_address


class Networks:
    """The containers' links.

    Args:
        nameservers: the name servers that the node knows now.
    """

    def __init__(self, nameservers: Callable[[], tuple[str, ...]]) -> None:
        self._nameservers = nameservers
        self._rtnetlink = Netlink()
        self._filter: packet_filter.Filter | None = None

    @property
    def nameservers(self) -> tuple[str, ...]:
        """Whom containers ask for names: those that the node asks."""
        return self._nameservers()

    def close(self) -> None:
        """Close the socket to the kernel."""
        self._rtnetlink.close()

    def attach(self, number: int, namespace: int) -> str:
        """Make the link of container `number`: `eth0` in its network namespace, routed; returns its address."""
        address = container_address(number)
        name = f"{CONTAINER_LINK_PREFIX}{number}"
        self._need_filter()
        self._rtnetlink.apply([netlink.add_veth(name, "eth0", namespace)])
        index = next(link.index for link in self._rtnetlink.links() if link.name == name)
        self._rtnetlink.apply(
            [
                netlink.add_address(index, f"{CONTAINER_GATEWAY}/32"),
                netlink.add_route(f"{address}/32", index),
            ]
        )
        return address

    def detach(self, number: int) -> None:
        """Delete a container's link; the kernel deletes it with the container's namespace, too."""
        name = f"{CONTAINER_LINK_PREFIX}{number}"
        if any(link.name == name for link in self._rtnetlink.links()):
            self._rtnetlink.apply([netlink.delete_link(name)])

    def publish(self, address: str, ports: Iterable[tuple[str, int, int]]) -> None:
        """Lead ports of the node to a container: (protocol, node's port, container's port)."""
        for protocol, port, target in ports:
            self._need_filter().publish(protocol, port, address, target)

    def withdraw(self, ports: Iterable[tuple[str, int, int]]) -> None:
        """Take published ports back."""
        for protocol, port, _ in ports:
            self._need_filter().withdraw(protocol, port)

    def _need_filter(self) -> packet_filter.Filter:
        """The packet filter, made with the first container: a boot does not wait for it."""
        if not self._filter:
            modules = Modules.of_running_kernel()
            for name in ("veth", *packet_filter.MODULES):
                modules.load(name)
            self._filter = packet_filter.Filter()
        return self._filter
