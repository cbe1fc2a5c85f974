"""What meshes need of the rest of the node."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from core0.linux.tools import load_modules
from core0.linux.unprivileged import ask_unprivileged
from core0.mesh.model import Span
from core0.mesh.resolve import Found, believe

if TYPE_CHECKING:
    from core0.node.verbs import NodeState

# An emulated machine takes some seconds to start a process; then each of three name servers has two tries of 2 s.
_DEADLINE = 60.0


class AroundMeshes:
    """The node, as the mesh manager sees it."""

    def __init__(self, state: "NodeState") -> None:
        self._state = state

    def spans(self) -> Mapping[str, Span]:
        """The networks that span nodes."""
        return {name: Span(spec, *subnets) for name, (spec, subnets) in self._state.networks.spans().items()}

    def enforce(self) -> None:
        """Have the packet filter in force. Raises OSError."""
        self._state.networks.guard()

    def watch(self, link: str) -> None:
        """Have the packet filter see what comes by a link that was made a moment ago. Raises OSError."""
        self._state.networks.watch_mesh(link)

    def load(self) -> None:
        """Have the kernel know WireGuard: its driver is in the storage part. Raises OSError."""
        load_modules(("wireguard",))

    def port_owner(self, port: int) -> str:
        """Which container has a UDP port published; empty if none has."""
        return self._state.port_owner(port)

    async def resolve(self, host: str) -> Found:
        """Ask the node's name servers, by a process without privilege. Raises OSError."""
        if not self._state.links.nameservers:
            return Found(error="the node knows no name server; name one in the config, or let DHCP do so")
        try:
            said, code = await ask_unprivileged("resolve", host.encode(), _DEADLINE)
        except TimeoutError:
            raise OSError(f"no answer within {_DEADLINE:.0f} s") from None
        try:
            return believe(msgspec.json.decode(said, type=Found))
        except msgspec.DecodeError:
            raise OSError(f"the resolver ended with {code}") from None
