"""The talk between the API process and the node daemon: calls and replies over a Unix stream socket.

Each message is a length (4 bytes, big endian) and that many bytes of JSON. One connection carries one call at a
time. The daemon trusts no length: a message over the limit ends the connection.
"""

import asyncio
import struct
from typing import Annotated, Literal, Protocol

import msgspec

LARGEST = 4 << 20
# Seconds that a call may wait for what it asks for.
LONGEST_WAIT = 60.0
_LENGTH = struct.Struct(">I")

Verb = Literal[
    "identity",
    "serving",
    "node",
    "health",
    "boot",
    "events",
    "containers",
    "container",
    "put_container",
    "start_container",
    "stop_container",
    "delete_container",
    "limit_container",
    "container_end",
    "container_stats",
    "pause_container",
    "resume_container",
    "rename_container",
    "export_container",
    "commit_container",
    "power",
    "operations",
    "operation",
    "cancel_operation",
    "disks",
    "disk",
    "claim_disk",
    "adopt_disk",
    "pools",
    "pool",
    "put_pool",
    "unlock_pool",
    "recovery_key",
    "scrub_pool",
    "replace_disk",
    "destroy_pool",
    "erase_disk",
    "reset",
    "links",
    "link",
    "state",
    "adopt_state",
    "config",
    "put_config",
    "confirm_config",
    "volumes",
    "volume",
    "put_volume",
    "delete_volume",
    "take_snapshot",
    "delete_snapshot",
    "roll_back_volume",
    "begin_import",
    "import",
    "feed_import",
    "export_snapshot",
    "networks",
    "network",
    "put_network",
    "delete_network",
    "prepare_mesh_key",
    "activate_mesh_key",
    "images",
    "image",
    "pull_image",
    "load_image",
    "delete_image",
    "collect_images",
    "secrets",
    "secret",
    "put_secret",
    "delete_secret",
]


# A container's (`core0.wire.types.ContainerName`), or none.
_Name = Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)?$(?!\n)")]


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call: what to do, on what, with what. The name becomes a path, so the daemon takes no other than these.

    With `new`, one of that name that is there is not to be changed.
    """

    verb: Verb
    name: _Name = ""
    body: msgspec.Raw = msgspec.Raw(b"null")
    new: bool = False


class Refusal(msgspec.Struct, frozen=True):
    """Why a call failed: the HTTP status and problem type for the caller, the cause, the remedy, the field."""

    status: int
    type: str
    detail: str
    remedy: str = ""
    pointer: str = ""


class RefusedError(Exception):
    """A wish that cannot be granted; nothing was changed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


def conflict(detail: str, remedy: str, pointer: str = "") -> RefusedError:
    """A refusal because of how things are (409)."""
    return RefusedError(Refusal(409, "conflict", detail, remedy, pointer))


def invalid(detail: str, remedy: str, pointer: str) -> RefusedError:
    """A refusal of what can never be (422)."""
    return RefusedError(Refusal(422, "invalid", detail, remedy, pointer))


def taken(kind: str, name: str) -> RefusedError:
    """A refusal to make something of a name that something has (409)."""
    remedy = "choose another name, or ask to change the one that is there"
    return conflict(f"cannot create {kind} {name}: there is one of that name", remedy)


def absent(detail: str, remedy: str) -> RefusedError:
    """A refusal because there is no such thing (404)."""
    return RefusedError(Refusal(404, "not-found", detail, remedy))


class Reply(msgspec.Struct, frozen=True):
    """The answer: a result, or a refusal."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    refusal: Refusal | None = None


class Identity(msgspec.Struct, frozen=True):
    """What the API process needs to serve TLS: PEM texts, and the operator's certificate to trust, if any."""

    certificate: str
    key: str
    operator_certificate: str | None


class EventsQuery(msgspec.Struct, frozen=True):
    """Events after a cursor; wait up to so many seconds for the first."""

    after: int
    wait: float


class ContainerQuery(msgspec.Struct, frozen=True):
    """A container, once it is neither pulling, creating nor stopping, or after so many seconds as it is.

    Attributes:
        wait: the seconds.
        traffic: whether what went over its link is told, too, which the kernel is asked for.
    """

    wait: float
    traffic: bool = False


class Report(Protocol):
    """Where managers tell what happened: a kind, its subject, one sentence."""

    def __call__(self, kind: str, subject: str, message: str) -> None:
        """Report one event."""


def encoded(message: msgspec.Struct) -> bytes:
    """One message as it is sent."""
    data = msgspec.json.encode(message)
    return _LENGTH.pack(len(data)) + data


async def send(writer: asyncio.StreamWriter, message: msgspec.Struct) -> None:
    """Send one message."""
    writer.write(encoded(message))
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> bytes:
    """Receive one message's JSON.

    Raises:
        asyncio.IncompleteReadError: if the other side closed.
        ConnectionError: if the message is over the limit.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > LARGEST:
        raise ConnectionError(f"cannot receive a message of {length} bytes: the limit is {LARGEST}")
    return await reader.readexactly(length)
