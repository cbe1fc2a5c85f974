"""Calls to a node's API over pinned TLS."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from core0.wire.config import ConfigStatus, NodeConfig
from core0.wire.image_store import Collected, Commit, ImagePull, NodeImage, NodeImages
from core0.wire.links import Link, Links
from core0.wire.networks import Network, Networks, NetworkSpec
from core0.wire.operations import Operation, Operations
from core0.wire.secrets import Secret, Secrets, SecretValue
from core0.wire.state import Adoption, StateStatus
from core0.wire.storage import (
    Claim,
    Destruction,
    Disk,
    Disks,
    EraseRequest,
    Passphrase,
    Pool,
    Pools,
    PoolSpec,
    RecoveryKey,
    Replacement,
    Reset,
)
from core0.wire.types import (
    Boot,
    Container,
    Containers,
    ContainerSpec,
    ContainerStats,
    Events,
    Health,
    Limits,
    Node,
    PowerRequest,
    Rename,
)
from core0.wire.volumes import Import, ImportRequest, Rollback, Volume, Volumes, VolumeSpec
from corex.client.pin import Pin
from corex.http.problem import Problem

T = TypeVar("T")
Reissue = Callable[[datetime.datetime], ssl.SSLContext]
_TIMEOUT = 30.0
# A stream may take as long as it likes, but not a minute without a byte; its first may wait for a check.
_MOVING = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT, sock_read=600.0)
_ALERT_TIMEOUT = 5.0
_ALERTS = {
    "CERTIFICATE_EXPIRED": "the client's certificate is expired; check the clocks of this machine and of the node",
    "UNKNOWN_CA": "the node does not know the operator's key that signed it; use the key that the node booted with",
    "CERTIFICATE_REQUIRED": "the node wants a client certificate; use the operator's key",
    "BAD_CERTIFICATE": "the node does not take the client's certificate",
    "UNSUPPORTED_CERTIFICATE": "the certificate is not one for clients",
    "DECRYPT_ERROR": "its signature is not by the operator's key that the node booted with",
    "CERTIFICATE_UNKNOWN": "the node could not check the client's certificate",
}


class NodeError(Exception):
    """A call that was not answered as wished; the message has cause and remedy."""


class UnreachableError(NodeError):
    """Nobody answers at the address, or not in time."""


class WrongNodeError(NodeError):
    """The node's certificate is not the one that was pinned."""


class NotAllowedError(NodeError):
    """The node does not take the client's certificate."""


class RefusedError(NodeError):
    """The node answered with a problem document."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.detail}; {problem.remedy}" if problem.remedy else problem.detail)
        self.problem = problem


class NodeClient:
    """One node's API. An asynchronous context manager; connections are kept between calls.

    Args:
        address: `host:port`.
        fingerprint: SHA-256 of the node's certificate (DER), hexadecimal.
        context: TLS with the client certificate, from `client_context`.
        reissue: makes another one, whose certificate is as of a moment: a node whose clock is ahead takes the first
            one for expired. It is asked for at most once, with the node's time, before anything was answered.
    """

    def __init__(
        self, address: str, fingerprint: str, context: ssl.SSLContext, reissue: Reissue | None = None
    ) -> None:
        self._address = address
        self._context = context
        self._reissue = reissue
        self._pin = Pin(bytes.fromhex(fingerprint))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._pin), timeout=aiohttp.ClientTimeout(total=_TIMEOUT)
        )

    async def __aenter__(self) -> "NodeClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        self._pin.end()

    async def node(self) -> Node:
        """What the node is."""
        return await self._call("GET", "/v1/node", Node)

    async def health(self) -> Health:
        """Whether it can do its work."""
        return await self._call("GET", "/v1/health", Health)

    async def boot(self) -> Boot:
        """How its boot went."""
        return await self._call("GET", "/v1/boot", Boot)

    async def events(self, after: int = 0, wait: float = 0.0) -> Events:
        """Events behind a cursor, waiting up to so many seconds (60 at most) for the first."""
        return await self._call("GET", "/v1/events", Events, query={"after": str(after), "wait": str(wait)})

    async def containers(self, labels: Iterable[str] = ()) -> tuple[Container, ...]:
        """All containers, or those that have all of some labels: `key`, or `key=value` without a comma."""
        query = _given(label=",".join(labels) or None)
        return (await self._call("GET", "/v1/containers", Containers, query=query)).containers

    async def container(self, name: str, wait: float = 0.0) -> Container:
        """One container, waiting up to so many seconds (60 at most) until it has settled."""
        return await self._call("GET", _path(name), Container, query={"wait": str(wait)})

    async def put_container(
        self, name: str, spec: ContainerSpec, wait: float = 0.0, *, new: bool = False
    ) -> Container:
        """Have a container as the spec says. With `new`, one that is there and differs is a conflict."""
        return await self._call("PUT", _path(name), Container, query=_putting(new, wait=str(wait)), body=spec)

    async def start_container(self, name: str, wait: float = 0.0) -> Container:
        """Start a stopped container."""
        return await self._call("POST", f"{_path(name)}/start", Container, query={"wait": str(wait)})

    async def stop_container(self, name: str, wait: float = 0.0) -> Container:
        """Stop a container."""
        return await self._call("POST", f"{_path(name)}/stop", Container, query={"wait": str(wait)})

    async def limit_container(self, name: str, limits: Limits, wait: float = 0.0) -> Container:
        """Give a container other limits; one that runs goes on with them."""
        query = {"wait": str(wait)}
        return await self._call("PUT", f"{_path(name)}/limits", Container, query=query, body=limits)

    async def container_end(self, name: str, wait: float = 0.0) -> Container:
        """One container, waiting up to so many seconds (60 at most) until it does not run."""
        return await self._call("GET", f"{_path(name)}/end", Container, query={"wait": str(wait)})

    async def container_stats(self, name: str) -> ContainerStats:
        """What a container uses."""
        return await self._call("GET", f"{_path(name)}/stats", ContainerStats)

    async def pause_container(self, name: str, wait: float = 0.0) -> Container:
        """Halt a container's processes where they are."""
        return await self._call("POST", f"{_path(name)}/pause", Container, query={"wait": str(wait)})

    async def resume_container(self, name: str, wait: float = 0.0) -> Container:
        """Let a paused container's processes go on."""
        return await self._call("POST", f"{_path(name)}/resume", Container, query={"wait": str(wait)})

    async def rename_container(self, name: str, new: str) -> Container:
        """Call a container that does not run something else."""
        return await self._call("POST", f"{_path(name)}/rename", Container, body=Rename(new))

    async def commit_container(self, name: str, image: str) -> Operation:
        """Make the image `local:IMAGE` of a container that runs."""
        return await self._call("POST", f"{_path(name)}/commit", Operation, body=Commit(image))

    async def export_container(self, name: str) -> AsyncIterator[bytes]:
        """The files of a container that runs, as a tar, piece by piece. Raises UnreachableError: it was cut."""
        async with self._open("GET", f"{_path(name)}/export", patience=_MOVING) as response:
            try:
                async for piece in response.content.iter_any():
                    yield piece
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise await self._explain(error) from error

    async def delete_container(self, name: str) -> None:
        """Remove a container with its files."""
        await self._call("DELETE", _path(name), type(None))

    async def images(self) -> NodeImages:
        """All images of containers."""
        return await self._call("GET", "/v1/images", NodeImages)

    async def image(self, digest: str) -> NodeImage:
        """One image."""
        return await self._call("GET", _path(digest, "images"), NodeImage)

    async def pull_image(self, image: str) -> Operation:
        """Pull an image, also if one of that name is there."""
        return await self._call("POST", "/v1/images/pull", Operation, body=ImagePull(image))

    async def load_image(self, name: str, data: AsyncIterator[bytes], image: str = "") -> NodeImage:
        """Send an image as a tar of an OCI layout; containers name it `local:NAME`.

        Args:
            name: what it shall be called.
            data: the tar.
            image: which of several, by its name in the layout or its digest.
        """
        query = {"name": name, **({"image": image} if image else {})}
        headers = {"Content-Type": "application/octet-stream"}
        async with self._open(
            "POST", "/v1/images/load", query=query, data=data, headers=headers, patience=_MOVING
        ) as response:
            return msgspec.json.decode(await response.read(), type=NodeImage)

    async def delete_image(self, digest: str) -> Collected:
        """Remove an image that no container has."""
        return await self._call("DELETE", _path(digest, "images"), Collected)

    async def collect_images(self) -> Collected:
        """Remove every image that no container has."""
        return await self._call("POST", "/v1/images/gc", Collected)

    async def operations(self) -> tuple[Operation, ...]:
        """Long work that runs, and the last that ended."""
        return (await self._call("GET", "/v1/operations", Operations)).operations

    async def operation(self, name: str, wait: float = 0.0) -> Operation:
        """One piece of long work, waiting up to so many seconds (60 at most) for its end."""
        return await self._call("GET", _path(name, "operations"), Operation, query={"wait": str(wait)})

    async def cancel_operation(self, name: str) -> Operation:
        """Ask long work to end."""
        return await self._call("DELETE", _path(name, "operations"), Operation)

    async def links(self) -> tuple[Link, ...]:
        """The node's own links."""
        return (await self._call("GET", "/v1/links", Links)).links

    async def link(self, name: str) -> Link:
        """One link, by name or PCI address."""
        return await self._call("GET", _path(name, "links"), Link)

    async def state(self) -> StateStatus:
        """What the node remembers, and which of its disks hold it."""
        return await self._call("GET", "/v1/state", StateStatus)

    async def adopt_state(self, disk: str) -> StateStatus:
        """Have the machine be the node that a disk remembers: its certificate is that node's some seconds later."""
        return await self._call("POST", "/v1/state/adopt", StateStatus, body=Adoption(disk))

    async def disks(self) -> tuple[Disk, ...]:
        """All disks."""
        return (await self._call("GET", "/v1/disks", Disks)).disks

    async def disk(self, name: str) -> Disk:
        """One disk, by id or serial number."""
        return await self._call("GET", _path(name, "disks"), Disk)

    async def claim_disk(self, name: str, claim: Claim) -> Disk:
        """Give a disk to the node."""
        return await self._call("POST", f"{_path(name, 'disks')}/claim", Disk, body=claim)

    async def adopt_disk(self, name: str) -> Disk:
        """Take over a disk of another node with what it holds."""
        return await self._call("POST", f"{_path(name, 'disks')}/adopt", Disk)

    async def pools(self) -> tuple[Pool, ...]:
        """All pools."""
        return (await self._call("GET", "/v1/pools", Pools)).pools

    async def pool(self, name: str, wait: float = 0.0) -> Pool:
        """One pool, waiting up to so many seconds (60 at most) until it serves or has failed."""
        return await self._call("GET", _path(name, "pools"), Pool, query={"wait": str(wait)})

    async def put_pool(self, name: str, spec: PoolSpec, wait: float = 0.0, *, new: bool = False) -> Pool:
        """Have a pool as the spec says. With `new`, one that is there and differs is a conflict."""
        query = _putting(new, wait=str(wait))
        return await self._call("PUT", _path(name, "pools"), Pool, query=query, body=spec)

    async def unlock_pool(self, name: str, passphrase: str, wait: float = 0.0) -> Pool:
        """Give the passphrase of an encrypted pool."""
        path, body = f"{_path(name, 'pools')}/unlock", Passphrase(passphrase)
        return await self._call("POST", path, Pool, query={"wait": str(wait)}, body=body)

    async def recovery_key(self, pool: str) -> RecoveryKey:
        """The key that the machine's TPM keeps for a pool."""
        return await self._call("POST", f"{_path(pool, 'pools')}/recovery-key", RecoveryKey)

    async def scrub_pool(self, name: str) -> Operation:
        """Read all of a pool and correct what can be corrected."""
        return await self._call("POST", f"{_path(name, 'pools')}/scrub", Operation)

    async def replace_disk(self, pool: str, replacement: Replacement) -> Operation:
        """Rebuild a disk of a pool on another one."""
        return await self._call("POST", f"{_path(pool, 'pools')}/replace", Operation, body=replacement)

    async def destroy_pool(self, name: str, destruction: Destruction) -> None:
        """Destroy a pool and everything in it."""
        await self._call("POST", f"{_path(name, 'pools')}/destroy", type(None), body=destruction)

    async def erase_disk(self, name: str, request: EraseRequest) -> Operation:
        """Erase a disk for good."""
        return await self._call("POST", f"{_path(name, 'disks')}/erase", Operation, body=request)

    async def reset(self, reset: Reset) -> None:
        """End every pool and every claim of the node."""
        await self._call("POST", "/v1/reset", type(None), body=reset)

    async def volumes(self) -> tuple[Volume, ...]:
        """All volumes."""
        return (await self._call("GET", "/v1/volumes", Volumes)).volumes

    async def volume(self, name: str, pool: str | None = None) -> Volume:
        """One volume; `pool` says which, if two pools have one of that name."""
        return await self._call("GET", _path(name, "volumes"), Volume, query=_given(pool=pool))

    async def put_volume(self, name: str, spec: VolumeSpec, *, new: bool = False) -> Volume:
        """Have a volume as the spec says. With `new`, one that is there and differs is a conflict."""
        return await self._call("PUT", _path(name, "volumes"), Volume, query=_putting(new), body=spec)

    async def delete_volume(self, name: str, pool: str | None = None, *, snapshots: bool = False) -> None:
        """Delete a volume with everything in it."""
        query = _given(pool=pool, snapshots="true" if snapshots else None)
        await self._call("DELETE", _path(name, "volumes"), type(None), query=query)

    async def take_snapshot(self, volume: str, snapshot: str, pool: str | None = None) -> Volume:
        """Have a snapshot of a volume."""
        return await self._call("PUT", _snapshot(volume, snapshot), Volume, query=_given(pool=pool))

    async def delete_snapshot(self, volume: str, snapshot: str, pool: str | None = None) -> None:
        """Delete a snapshot."""
        await self._call("DELETE", _snapshot(volume, snapshot), type(None), query=_given(pool=pool))

    async def roll_back(self, volume: str, snapshot: str, pool: str | None = None) -> Volume:
        """Give a volume a snapshot's content."""
        path, body = f"{_path(volume, 'volumes')}/rollback", Rollback(snapshot)
        return await self._call("POST", path, Volume, query=_given(pool=pool), body=body)

    async def export_snapshot(
        self,
        volume: str,
        snapshot: str,
        base: str | None = None,
        pool: str | None = None,
        *,
        offset: int = 0,
        sha256: str = "",
    ) -> AsyncIterator[bytes]:
        """A snapshot as a btrfs stream, piece by piece.

        Args:
            volume: its volume.
            snapshot: its name.
            base: an earlier snapshot that the receiver has: only what differs comes.
            pool: which of two volumes of one name.
            offset: bytes of the stream that the caller has.
            sha256: of those bytes.

        Raises:
            UnreachableError: the stream was cut; go on by `offset`.
        """
        given = {"offset": str(offset), "sha256": sha256} if offset else {}
        query = {**_given(base=base, pool=pool), **given}
        path = f"{_snapshot(volume, snapshot)}/stream"
        async with self._open("GET", path, query=query, patience=_MOVING) as response:
            try:
                async for piece in response.content.iter_any():
                    yield piece
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise await self._explain(error) from error

    async def begin_import(self, volume: str, request: ImportRequest, pool: str | None = None) -> Import:
        """Get the node ready for a stream; the same again finds where to go on."""
        path = f"{_path(volume, 'volumes')}/import"
        return await self._call("POST", path, Import, query=_given(pool=pool), body=request)

    async def imported(self, operation: str, wait: float = 0.0) -> Import:
        """A stream that comes, waiting up to so many seconds (60 at most) for its end."""
        return await self._call("GET", _path(operation, "imports"), Import, query={"wait": str(wait)})

    async def feed_import(self, operation: str, offset: int, data: AsyncIterator[bytes]) -> Import:
        """Send a stream from an offset to its end."""
        path = f"{_path(operation, 'imports')}/stream"
        query, headers = {"offset": str(offset)}, {"Content-Type": "application/octet-stream"}
        async with self._open(
            "PUT", path, query=query, data=data, headers=headers, patience=_MOVING
        ) as response:
            return msgspec.json.decode(await response.read(), type=Import)

    async def secrets(self) -> tuple[Secret, ...]:
        """All secrets of containers, without their values."""
        return (await self._call("GET", "/v1/secrets", Secrets)).secrets

    async def secret(self, name: str) -> Secret:
        """One secret, without its value."""
        return await self._call("GET", _path(name, "secrets"), Secret)

    async def put_secret(self, name: str, value: SecretValue) -> Secret:
        """Give the node a secret, which it keeps in memory."""
        return await self._call("PUT", _path(name, "secrets"), Secret, body=value)

    async def delete_secret(self, name: str) -> None:
        """Have it forget one that no container has."""
        await self._call("DELETE", _path(name, "secrets"), type(None))

    async def networks(self) -> tuple[Network, ...]:
        """All networks of containers."""
        return (await self._call("GET", "/v1/networks", Networks)).networks

    async def network(self, name: str) -> Network:
        """One network."""
        return await self._call("GET", _path(name, "networks"), Network)

    async def put_network(self, name: str, spec: NetworkSpec, *, new: bool = False) -> Network:
        """Have a network as the spec says. With `new`, one that is there and differs is a conflict."""
        return await self._call("PUT", _path(name, "networks"), Network, query=_putting(new), body=spec)

    async def delete_network(self, name: str) -> None:
        """Delete a network that no container is in."""
        await self._call("DELETE", _path(name, "networks"), type(None))

    async def prepare_mesh_key(self, network: str) -> Network:
        """Have another key ready for a network's mesh."""
        return await self._call("POST", f"{_path(network, 'networks')}/mesh/next-key", Network)

    async def activate_mesh_key(self, network: str) -> Network:
        """Use the key that was prepared."""
        return await self._call("POST", f"{_path(network, 'networks')}/mesh/activate-key", Network)

    async def config(self) -> ConfigStatus:
        """The config in force."""
        return await self._call("GET", "/v1/config", ConfigStatus)

    async def put_config(self, config: NodeConfig, trial: float | None = None) -> ConfigStatus:
        """Give the node a config; with `trial` for so many seconds, unless it is confirmed before."""
        query = _given(trial=None if trial is None else str(trial))
        return await self._call("PUT", "/v1/config", ConfigStatus, query=query, body=config)

    async def confirm_config(self) -> ConfigStatus:
        """Keep the config that is on trial."""
        return await self._call("POST", "/v1/config/confirm", ConfigStatus)

    async def power(self, request: PowerRequest) -> None:
        """Reboot or power off."""
        await self._call("POST", "/v1/power", type(None), body=request)

    async def openapi(self) -> dict[str, object]:
        """The API's OpenAPI 3.1 document."""
        return await self._call("GET", "/v1/openapi.json", dict[str, object])

    async def _call(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        query: dict[str, str] | None = None,
        body: msgspec.Struct | None = None,
    ) -> T:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        wait = float((query or {}).get("wait", "0"))
        async with self._open(
            method,
            path,
            query=query,
            data=msgspec.json.encode(body) if body is not None else None,
            headers=headers,
            patience=aiohttp.ClientTimeout(total=_TIMEOUT + wait),
        ) as response:
            return msgspec.json.decode(await response.read() or b"null", type=kind)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        data: bytes | AsyncIterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        patience: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer, to be read in the block. Raises NodeError for any other, and for a lost connection."""
        try:
            async with await self._send(method, path, query, data, headers, patience) as response:
                self._reissue = None
                if response.status >= 400:
                    raise RefusedError(_decode_problem(await response.read(), response.status))
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise await self._explain(error) from error

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None,
        data: bytes | AsyncIterator[bytes] | None,
        headers: dict[str, str] | None,
        patience: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """The answer to a request; if the certificate is expired by the node's clock alone, to a second one."""

        def request() -> Awaitable[aiohttp.ClientResponse]:
            return self._session.request(
                method,
                f"https://{self._address}{path}",
                params=query,
                data=data,
                headers=headers,
                ssl=self._context,
                timeout=patience,
            )

        try:
            return await request()
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if isinstance(data, AsyncIterator) or not await self._follow_clock():
                raise
        return await request()

    async def _follow_clock(self) -> bool:
        """Have a certificate that is valid by the node's clock, which is ahead of this machine's; False if it is not.

        The node is the pinned one, and who has the operator's key may sign for whatever time it likes.
        """
        reissue, self._reissue = self._reissue, None
        if reissue is None or await self._alert() != _ALERTS["CERTIFICATE_EXPIRED"]:
            return False
        from core0.client.credentials import client_context

        try:
            async with self._session.get(
                f"https://{self._address}/v1/node", ssl=client_context(None)
            ) as response:
                moment = parsedate_to_datetime(response.headers["Date"])
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError):
            return False
        self._context = reissue(moment)
        return True

    async def _explain(self, error: BaseException) -> NodeError:
        """The error of our tree for one of the transport."""
        if isinstance(error, aiohttp.ServerFingerprintMismatch):
            return WrongNodeError(
                f"cannot trust the node at {self._address}: its certificate is {error.got.hex()}, "
                f"not {error.expected.hex()}; if it was rebooted, take its new fingerprint from its console"
            )
        if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
            alert = await self._alert()
            if alert:
                return NotAllowedError(f"cannot log in to the node at {self._address}: {alert}")
        reason = str(error) or type(error).__name__
        return UnreachableError(
            f"cannot reach the node at {self._address}: {reason}; "
            "check that it runs and that the address is right"
        )

    async def _alert(self) -> str:
        """Why the node ended the TLS handshake, if it did.

        In TLS 1.3 the client's part is done before the server has seen the certificate, so the alert arrives
        where aiohttp expects an answer, and aiohttp drops it. A second connection only listens for it.
        """
        host, _, port = self._address.rpartition(":")
        try:
            async with asyncio.timeout(_ALERT_TIMEOUT):
                reader, writer = await asyncio.open_connection(host, int(port), ssl=self._context)
                try:
                    await reader.read(1)
                finally:
                    writer.close()
        except ssl.SSLError as error:
            return next((cause for alert, cause in _ALERTS.items() if alert in str(error)), str(error))
        except (OSError, TimeoutError):
            pass
        return ""


def _path(name: str, kind: str = "containers") -> str:
    return f"/v1/{kind}/{quote(name, safe='')}"


def _snapshot(volume: str, snapshot: str) -> str:
    return f"{_path(volume, 'volumes')}/snapshots/{quote(snapshot, safe='')}"


def _putting(new: bool, **query: str) -> dict[str, str]:
    return {**query, "new": "true"} if new else query


def _given(**query: str | None) -> dict[str, str]:
    return {name: value for name, value in query.items() if value is not None}


def _decode_problem(data: bytes, status: int) -> Problem:
    try:
        return msgspec.json.decode(data, type=Problem)
    except msgspec.DecodeError:
        return Problem("about:blank", "Error", status, f"the node answered {status} without saying why")
