"""What the container manager decides about, and what it writes down of each container it made."""

import functools
from typing import Annotated

import msgspec

from core0.images.model import Image
from core0.linux.cgroups import Freezer
from core0.wire import ports
from core0.wire.types import ContainerSpec, CoreX

# Each container has its own range of user ids on the node; 0 to 65535 inside.
IDS = 65536
_FIRST_ID = 1_000_000


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the operator wants of a container, and what is kept for it as long as that is wanted.

    What has its default is not written down: an earlier image understands what uses nothing that it lacks.

    Attributes:
        spec: what it shall be.
        run: whether it shall run.
        host: its number in its network, which makes its addresses; 0 if none was chosen yet.
        paused: whether its processes shall be halted where they are.
    """

    spec: ContainerSpec
    run: bool = True
    host: int = 0
    paused: bool = False


class Identity(msgspec.Struct, frozen=True):
    """What clients know a container's Core-X by, the same for as long as the container is wanted.

    Attributes:
        number: its slot, which makes the port.
        certificate: PEM.
        key: its private key (PKCS #8), PEM.
        fingerprint: SHA-256 of the certificate's DER, in hexadecimal.
    """

    number: Annotated[int, msgspec.Meta(ge=1, le=ports.COREX_LAST - ports.COREX_FIRST + 1)]
    certificate: str
    key: str
    fingerprint: str


def encode_wish(wanted: Wanted) -> bytes:
    """A wish as the node's state has it: without what has its default, also within the spec."""
    return msgspec.json.encode(_brief(wanted))


def _brief(value: object) -> object:
    """A value whose structs have only the fields that are not as usual."""
    if isinstance(value, tuple):
        return [_brief(one) for one in value]
    if not isinstance(value, msgspec.Struct):
        return value
    return {
        name: _brief(content)
        for name, usual in _defaults(type(value))
        if (content := getattr(value, name)) != usual
    }


@functools.cache
def _defaults(kind: type[msgspec.Struct]) -> tuple[tuple[str, object], ...]:
    """The fields of a type of structs, and what each usually is."""
    return tuple(
        (field.name, field.default_factory() if callable(field.default_factory) else field.default)
        for field in msgspec.structs.fields(kind)
    )


class Record(msgspec.Struct, frozen=True):
    """A container that was made: enough for a new node daemon to take it over.

    Attributes:
        number: its slot: user ids and link come from it.
        spec: what it was made from.
        image_digest: of the image's manifest.
        address: its IPv4 address.
        address6: its IPv6 address.
        host: its number in its network.
        corex: where its Core-X answers.
        pid: its first process.
        started: that process's start time in clock ticks since boot (proc_pid_stat(5), field 22).
        storage: device and inode of the folder by which its files are reached (`storage`).
    """

    number: int
    spec: ContainerSpec
    image_digest: str
    address: str
    address6: str
    host: int
    corex: CoreX
    pid: int
    started: int
    storage: tuple[int, int] = (0, 0)


class Seen(msgspec.Struct, frozen=True):
    """A container as it is.

    Attributes:
        record: what was made of it.
        alive: whether its first process lives.
        image: what it is made of, if that is here.
        freezer: whether its processes are halted.
        lacks: what it needs to begin and is not there, in words.
    """

    record: Record | None = None
    alive: bool = False
    image: Image | None = None
    freezer: Freezer = "thawed"
    lacks: str = ""


class Pull(msgspec.Struct, frozen=True):
    """Have the image here."""

    reference: str

    def __str__(self) -> str:
        return f"pull {self.reference}"


class Wait(msgspec.Struct, frozen=True):
    """Wait for what the container needs to begin."""

    why: str

    def __str__(self) -> str:
        return f"wait: {self.why}"


class Create(msgspec.Struct, frozen=True):
    """Make and start the container."""

    spec: ContainerSpec

    def __str__(self) -> str:
        return "create"


class Limit(msgspec.Struct, frozen=True):
    """Limit the container as another spec says that differs in nothing else."""

    record: Record
    spec: ContainerSpec

    def __str__(self) -> str:
        return "limit"


class Freeze(msgspec.Struct, frozen=True):
    """Halt the container's processes where they are."""

    def __str__(self) -> str:
        return "freeze"


class Thaw(msgspec.Struct, frozen=True):
    """Let the container's processes go on."""

    def __str__(self) -> str:
        return "thaw"


class Stop(msgspec.Struct, frozen=True):
    """Ask Core-X to end in order, kill what is left."""

    record: Record

    def __str__(self) -> str:
        return "stop"


class Remove(msgspec.Struct, frozen=True):
    """Take away what an ended container left: link, ports, cgroup, files."""

    record: Record

    def __str__(self) -> str:
        return "remove"


Action = Pull | Wait | Create | Limit | Freeze | Thaw | Stop | Remove


def first_id(number: int) -> int:
    """The node's user id that is root in container `number`."""
    return _FIRST_ID + number * IDS
