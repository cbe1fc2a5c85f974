"""What the container manager decides about, and what it writes down of each container it made."""

import msgspec

from core0.images.model import Image
from core0.linux.cgroups import Freezer
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


class Seen(msgspec.Struct, frozen=True):
    """A container as it is: what was made of it, whether its first process lives, and whether they all are halted."""

    record: Record | None = None
    alive: bool = False
    image: Image | None = None
    freezer: Freezer = "thawed"


class Pull(msgspec.Struct, frozen=True):
    """Have the image here."""

    reference: str

    def __str__(self) -> str:
        return f"pull {self.reference}"


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


Action = Pull | Create | Limit | Freeze | Thaw | Stop | Remove


def first_id(number: int) -> int:
    """The node's user id that is root in container `number`."""
    return _FIRST_ID + number * IDS
