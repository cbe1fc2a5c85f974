"""The mesh manager: a link of WireGuard's for each network that spans nodes, with its key, its peers and its routes.

Wishes are the networks'; keys are made here and kept in the node's state. One loop brings the kernel to what is
wanted, looks each second at peers whose key is to change, and now and then whether one with an endpoint went silent.
"""

import asyncio
import base64
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from core0.linux.link_actions import DeleteLink
from core0.linux.netlink import Netlink
from core0.linux.wireguard import Endpoint, WireGuard
from core0.mesh import checks
from core0.mesh.apply import apply
from core0.mesh.endpoint import is_address, parse_endpoint
from core0.mesh.explain import show, tell
from core0.mesh.model import Action, CreateLink, Kept, Key, SeenLink, Span, WantedLink
from core0.mesh.observe import look_again, observe
from core0.mesh.plan import plan
from core0.mesh.resolve import Found
from core0.mesh.wanted import want
from core0.wire.control import Report, conflict
from core0.wire.mesh import FIRST_PORT, Mesh, MeshSpec, parse_key
from core0.wire.state import NEWER_IMAGE
from core0.wire.subnets import parse_part

_SECTION = "mesh/"
_LAST_PORT = 65535
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
# Seconds between looks at peers: whose key changes; and whether one with an endpoint went silent.
_CHANGING, _WATCHING = 1.0, 15.0
# A peer that is sent to shakes hands after 120 s, and tries each five (REKEY_AFTER_TIME, REKEY_TIMEOUT).
_SILENT = 135.0
# Seconds that whoever changes a wish waits for the kernel to have it, so that one step can follow another.
_LATEST = 5.0
# UDP ports that the node may need itself.
_RESERVED = {53: "the node's name server", 68: "the node's DHCP client", 546: "the node's DHCPv6 client"}
# Seconds between two questions for the same name.
_ASK_AGAIN = 30.0


class Keep(Protocol):
    """Where the node's state is kept."""

    def get(self, section: str) -> bytes | None:
        """A section of the state."""

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """The sections whose names begin so."""

    async def put(self, section: str, value: bytes) -> None:
        """Write a section; returns when every copy has it."""

    async def remove(self, section: str) -> None:
        """Take a section away; returns when no copy has it."""


class Around(Protocol):
    """What meshes need of the node."""

    def spans(self) -> Mapping[str, Span]:
        """The networks that span nodes."""

    def enforce(self) -> None:
        """Have a packet filter in force that knows them: without one, all that arrives would be forwarded."""

    def watch(self, link: str) -> None:
        """Have the packet filter see what comes by a link that was made a moment ago. Raises OSError."""

    def load(self) -> None:
        """Have the kernel know WireGuard; may take long."""

    def port_owner(self, port: int) -> str:
        """Which container has a UDP port of the node published; empty if none has."""

    async def resolve(self, host: str) -> Found:
        """The addresses of a host. Raises OSError: nobody could be asked."""


class Meshes:
    """All meshes of the node.

    Args:
        keep: the node's state.
        report: where to tell what happened.
        around: the rest of the node.
        make_key: makes a key pair, private and public.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        keep: Keep,
        report: Report,
        around: Around,
        make_key: Callable[[], tuple[bytes, bytes]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keep = keep
        self._report = report
        self._around = around
        self._make_key = make_key
        self._clock = clock
        self._kept = dict(self._remembered())
        self._rtnetlink: Netlink | None = None
        self._wireguard: WireGuard | None = None
        self._seen: tuple[SeenLink, ...] = ()
        self._is_dirty = True
        self._failures: dict[str, str] = {}
        self._told: dict[bytes, Endpoint] = {}
        self._located: dict[str, str] = {}
        self._unresolved: dict[str, str] = {}
        self._asked: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._asking: asyncio.TaskGroup | None = None

    def _remembered(self) -> Iterator[tuple[str, Kept]]:
        for section in self._keep.names(_SECTION):
            name = section.removeprefix(_SECTION)
            try:
                kept = msgspec.json.decode(self._keep.get(section) or b"", type=Kept)
                for key in filter(None, (kept.key, kept.next_key)):
                    parse_key(key.public)
                    parse_key(key.private)
            except (msgspec.ValidationError, ValueError) as error:
                said = f"this image does not understand its key: {error}; {NEWER_IMAGE}"
                self._report("mesh", name, f"Warning: {said}")
                continue
            yield name, kept

    def close(self) -> None:
        """Close the sockets to the kernel."""
        for opened in (self._rtnetlink, self._wireguard):
            if opened:
                opened.close()

    # what networks ask

    def check(self, network: str, spec: MeshSpec, subnets: tuple[str, str], hosts: Mapping[str, str]) -> None:
        """Refuse what cannot be, with its field; nothing has changed then.

        Args:
            network: its name.
            spec: the wish.
            subnets: the network's own, this node's part.
            hosts: the containers of the network by their addresses.

        Raises:
            RefusedError: why.
        """
        own = {key.public for kept in self._kept.values() for key in (kept.key, kept.next_key) if key}
        checks.check_mesh(Span(spec, *subnets), own, hosts)
        port = spec.port
        if port and (owner := self._owner(port, besides=network)):
            raise checks.port_refusal(network, port, owner)

    def _owner(self, port: int, besides: str = "") -> str:
        return _RESERVED.get(port) or self.owner_of(port, besides) or self._around.port_owner(port)

    def owner_of(self, port: int, besides: str = "") -> str:
        """Which mesh listens on a UDP port, in words; empty if none does."""
        found = (name for name, kept in self._kept.items() if kept.port == port and name != besides)
        return next((f"the mesh of network {name}" for name in found), "")

    async def adopt(self, network: str, spec: MeshSpec) -> None:
        """Have key, port and number for a mesh; those that it has stay. Raises RefusedError."""
        old = self._kept.get(network)
        port = spec.port or (old.port if old else self._free_port())
        kept = (
            msgspec.structs.replace(old, port=port)
            if old
            else Kept(self._free_number(), port, self._new_key())
        )
        if kept != old:
            await self._remember(network, kept)

    async def _remember(self, network: str, kept: Kept) -> None:
        await self._keep.put(_SECTION + network, msgspec.json.encode(kept))
        self._kept[network] = kept

    def _new_key(self) -> Key:
        private, public = (base64.b64encode(half).decode() for half in self._make_key())
        return Key(private, public)

    def _free_port(self) -> int:
        found = (port for port in range(FIRST_PORT, _LAST_PORT + 1) if not self._owner(port))
        port = next(found, None)
        if port is None:
            detail = "cannot choose a UDP port for the mesh: all that the node would take are in use"
            raise conflict(detail, "give it a port", "/mesh/port")
        return port

    def _free_number(self) -> int:
        used = {kept.number for kept in self._kept.values()}
        return next(number for number in range(1, len(used) + 2) if number not in used)

    async def drop(self, network: str) -> None:
        """Forget a mesh with its keys; one that there is none of is fine."""
        if network in self._kept:
            await self._keep.remove(_SECTION + network)
            del self._kept[network]
            await self.follow()

    async def follow(self) -> None:
        """Bring the kernel to a wish that is another one now; returns when that was tried, or after seconds."""
        self._is_dirty = True
        self._settled.clear()
        self._wake.set()
        if self._asking:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LATEST):
                    await self._settled.wait()

    def link_of(self, network: str) -> str:
        """The name of a mesh's link; empty if its key was not understood."""
        kept = self._kept.get(network)
        return kept.link if kept else ""

    def show(self, network: str, spec: MeshSpec, subnets: tuple[str, str]) -> Mesh | None:
        """A mesh as it is, its peers as the kernel sees them now."""
        kept = self._kept.get(network)
        if kept is None:
            return None
        seen = [link for link in self._seen if link.name == kept.link]
        found = look_again(seen, self._wireguard) if self._wireguard else ()
        failure = self._failures.get(kept.link) or self._failures.get("", "")
        return show(
            kept, Span(spec, *subnets), next(iter(found), None), failure, self._unresolved, self._clock()
        )

    def resolvers(self, network: str) -> tuple[str, ...]:
        """The addresses that other nodes have for themselves within a network, where each may be asked for names."""
        span = self._around.spans().get(network)
        texts = (text for peer in span.spec.peers.values() for text in (peer.ipv4, peer.ipv6)) if span else ()
        parts = (parse_part(text) for text in texts if text)
        return tuple(part.address(1) for part in parts if part.size > 1)

    # keys

    async def prepare_key(self, network: str) -> None:
        """Have another key ready; its peers are to know it before it is used. Idempotent. Raises RefusedError."""
        kept = self._mesh(network)
        if kept.next_key is None:
            key = self._new_key()
            await self._remember(network, msgspec.structs.replace(kept, next_key=key))
            self._report("mesh", network, f"Prepared: its next public key is {key.public}")

    async def activate_key(self, network: str) -> None:
        """Use the key that was prepared, and forget the one before. Raises RefusedError: there is none prepared."""
        kept = self._mesh(network)
        if kept.next_key is None:
            detail = f"cannot change the key of network {network}'s mesh: none is prepared"
            raise conflict(detail, "prepare one, and let its peers know it first: 'zn network rotate'")
        await self._remember(network, msgspec.structs.replace(kept, key=kept.next_key, next_key=None))
        self._report("mesh", network, f"Changed: its public key is {kept.next_key.public}")
        await self.follow()

    def _mesh(self, network: str) -> Kept:
        kept = self._kept.get(network)
        if kept is None:
            detail = f"cannot change the key of network {network}: it does not span nodes"
            raise conflict(detail, "give it a mesh first: 'zn network mesh'")
        return kept

    # the kernel

    async def run(self) -> None:
        """Keep the kernel as it is wanted. Ends only by cancellation, or by a defect, which it raises."""
        delay = _FIRST_DELAY
        async with asyncio.TaskGroup() as self._asking:
            while True:
                self._wake.clear()
                is_dirty, self._is_dirty = self._is_dirty, False
                failed = await self._reconcile(is_dirty)
                if not self._wake.is_set():
                    self._settled.set()
                delay = min(delay * 2, _LONGEST_DELAY) if failed else _FIRST_DELAY
                self._is_dirty |= failed
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay if failed else self._pause()):
                        await self._wake.wait()

    async def _reconcile(self, is_dirty: bool) -> bool:
        """Bring the kernel to what is wanted; returns whether something failed, which is told once.

        Args:
            is_dirty: whether more than peers may differ: a wish did, or the last try failed.
        """
        wanted = self._wanted()
        if not wanted and not self._wireguard:
            return False
        try:
            await self._open()
        except OSError as error:
            self._note({"": str(error)})
            return True
        assert self._rtnetlink  # noqa: S101 — opened above
        assert self._wireguard  # noqa: S101
        if is_dirty:
            self._seen = observe(self._rtnetlink, self._wireguard)
        else:
            self._seen = look_again(self._seen, self._wireguard)
        silent = self._silent(wanted)
        actions = plan(wanted, self._seen, {*silent, *self._moved(wanted)})
        self._note(await self._carry_out(actions))
        self._told = {
            key: peer.endpoint
            for link in wanted
            for peer in link.peers.values()
            for key in peer.keys
            if peer.endpoint
        }
        if actions:
            self._seen = observe(self._rtnetlink, self._wireguard)
        self._look_up()
        return bool(self._failures)

    async def _open(self) -> None:
        """Have filter, module and sockets. Raises OSError."""
        self._around.enforce()
        if not self._wireguard:
            await asyncio.to_thread(self._around.load)
            self._rtnetlink = self._rtnetlink or Netlink()
            self._wireguard = WireGuard()

    def _wanted(self) -> list[WantedLink]:
        spans = self._around.spans()
        return [
            want(name, self._kept[name], span, self._locate)
            for name, span in sorted(spans.items())
            if name in self._kept
        ]

    async def _carry_out(self, actions: Sequence[Action]) -> dict[str, str]:
        """Apply a plan. After a failure nothing more is done to the link; returns what failed, by link."""
        failures: dict[str, str] = {}
        done = []
        for action in actions:
            if action.link in failures:
                continue
            try:
                await self._apply(action)
            except OSError as error:
                failures[action.link] = str(error.strerror or error)
            else:
                done.append(action)
        networks = {kept.link: name for name, kept in self._kept.items()}
        for link, said in tell(done):
            self._report("mesh", networks.get(link, link), said)
        return failures

    async def _apply(self, action: Action) -> None:
        assert self._rtnetlink  # noqa: S101 — opened before anything is planned
        assert self._wireguard  # noqa: S101
        if isinstance(action, DeleteLink):
            await asyncio.to_thread(_delete, action, self._wireguard)
            return
        secret = next((kept.key.secret for kept in self._kept.values() if kept.link == action.link), None)
        apply(action, self._rtnetlink, self._wireguard, secret)
        if isinstance(action, CreateLink):
            self._around.watch(action.link)

    def _note(self, failures: dict[str, str]) -> None:
        for link, said in failures.items():
            if self._failures.get(link) != said:
                self._report("mesh", link or "all", f"Failed: {said}")
        self._failures = failures

    # where peers are

    def _locate(self, text: str) -> Endpoint | None:
        """Where an endpoint is now, outside of its own mesh."""
        host, port = parse_endpoint(text)
        found = host if is_address(host) else self._located.get(host)
        return (found, port) if found else None

    def _moved(self, wanted: Sequence[WantedLink]) -> set[bytes]:
        """Keys of peers that are somewhere else now by the wish, or by the answer of a name server."""
        return {
            key
            for link in wanted
            for peer in link.peers.values()
            for key in peer.keys
            if peer.endpoint and self._told.get(key, peer.endpoint) != peer.endpoint
        }

    def _silent(self, wanted: Sequence[WantedLink]) -> set[bytes]:
        """Keys of peers that have not answered for long: they may be where they were said to be."""
        since = self._clock() - _SILENT
        names = {link.name for link in wanted}
        return {
            key
            for link in self._seen
            if link.name in names
            for key, peer in link.device.peers.items()
            if peer.handshake < since
        }

    def _look_up(self) -> None:
        """Ask for the names of peers that are not known, or may not be right any more."""
        now = time.monotonic()
        silent = {base64.b64encode(key).decode() for key in self._silent(self._wanted())}
        for span in self._around.spans().values():
            for peer in span.spec.peers.values():
                host = parse_endpoint(peer.endpoint)[0] if peer.endpoint else ""
                if not host or is_address(host) or now - self._asked.get(host, -_ASK_AGAIN) < _ASK_AGAIN:
                    continue
                if host not in self._located or not silent.isdisjoint(peer.public_keys):
                    self._asked[host] = now
                    assert self._asking  # noqa: S101 — `run` made it
                    self._asking.create_task(self._resolve(host))

    async def _resolve(self, host: str) -> None:
        try:
            found = await self._around.resolve(host)
        except OSError as error:
            found = Found(error=str(error))
        if found.addresses:
            self._unresolved.pop(host, None)
            if self._located.get(host) not in found.addresses:
                self._located[host] = found.addresses[0]
                self._wake.set()
        elif self._unresolved.get(host) != found.error:
            self._unresolved[host] = found.error
            self._report("mesh", host, f"Warning: cannot find host {host}: {found.error}; asking again")

    def _pause(self) -> float | None:
        """Seconds until the peers are to be looked at again; None if that need not be."""
        peers = [peer for span in self._around.spans().values() for peer in span.spec.peers.values()]
        if any(len(peer.public_keys) > 1 for peer in peers):
            return _CHANGING
        return _WATCHING if any(peer.endpoint for peer in peers) else None


def _delete(action: DeleteLink, wireguard: WireGuard) -> None:
    """In a thread: the kernel waits for all processors meanwhile (synchronize_net)."""
    with Netlink() as rtnetlink:
        apply(action, rtnetlink, wireguard, None)
