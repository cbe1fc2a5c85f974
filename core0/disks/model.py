"""What the disk manager decides about: disks as seen, what the node knows to be its own, wishes, actions."""

from typing import Literal

import msgspec

from core0.wire.storage import Bus, Encryption, Health, Media, MountOptions, PoolSpec, Profile, Scrub

# The partitions of a claimed disk: the first holds a copy of the node's state, the second is for a pool.
STATE_TYPE = "7b2f3c70-5a1d-4f0e-9b1f-5a65726f4e01"
DATA_TYPE = "7b2f3c70-5a1d-4f0e-9b1f-5a65726f4e02"
STATE_NAME, DATA_NAME = "zeronode-state", "zeronode-data"
STATE_SIZE = 16 << 20
# btrfs wants 109 MiB of one disk at least; with less than this it has no room to reserve metadata.
LEAST_SIZE = 512 << 20

# How many disks a profile needs, and how many of them may be missing.
NEEDED = {"single": 1, "raid1": 2, "raid1c3": 3, "raid10": 2}
SPARE = {"single": 0, "raid1": 1, "raid1c3": 2, "raid10": 1}


class Facts(msgspec.Struct, frozen=True):
    """What sysfs says of a disk; see `core0.wire.storage.Disk`.

    Attributes:
        place: where it is plugged, as `pci-0000:00:04.0`.
        partitions: those that the kernel made: numbers to device names.
    """

    device: str
    place: str
    serial: str
    wwn: str
    model: str
    firmware: str
    bus: Bus
    rotational: bool
    size: int
    logical_sector: int
    physical_sector: int
    read_only: bool
    removable: bool
    partitions: dict[int, str] = {}


class Signature(msgspec.Struct, frozen=True):
    """A signature on a disk or on one of its partitions."""

    device: str
    type: str
    label: str = ""
    uuid: str = ""


class Content(msgspec.Struct, frozen=True):
    """What a disk holds.

    Attributes:
        id: names what it holds, for claims that wipe.
        blank: True if it holds nothing: no signature, and zeros wherever was looked.
        signatures: what strangers wrote.
        table: type of the partition table, if there is one.
        claim: the GUID of the disk's GPT if its partitions are those of a claimed disk, else "".
        state: device of its state partition, if claimed.
        data: device of its data partition, if claimed.
        kept: what the data partition holds, if claimed and not empty.
        fast: whether random reads were those of a solid-state disk; None if that was not measured.
    """

    id: str
    blank: bool = False
    signatures: tuple[Signature, ...] = ()
    table: str = ""
    claim: str = ""
    state: str = ""
    data: str = ""
    kept: Signature | None = None
    fast: bool | None = None


class SeenDisk(msgspec.Struct, frozen=True):
    """A disk as it is.

    Attributes:
        id: its stable name.
        facts: what sysfs says.
        media: what it is.
        content: what it holds; None while that is not known.
        trouble: why it is not known, once that is clear: it hangs, or cannot be read.
        hung: True if it did not answer in time.
        health: what it says of itself.
        waiting: requests that it has left without an answer for too long, of one that did answer before.
    """

    id: str
    facts: Facts
    media: Media
    content: Content | None = None
    trouble: str = ""
    hung: bool = False
    health: Health | None = None
    waiting: int = 0


class KnownDisk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk that was claimed by this node: its id and size then, and the pool that it is a member of."""

    id: str
    size: int
    pool: str | None = None


class KnownPool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pool that this node made or adopted.

    Attributes:
        uuid: of its file system.
        profile: how it spreads data.
        members: the claims (GPT GUIDs) of its disks.
        encryption: how its disks are encrypted.
        made: False from the decision until the file system is there: until then it holds nobody's data.
        created: seconds since 1970 (UTC).
        replacing: while a disk is replaced: the claims of the one that goes and the one that comes.
        stale: the claims of disks that the pool has served without: what they hold is old, and is not mixed in.
        scrub: the last scrub.
        sealed: its key as the machine's TPM sealed it, if that keeps it.
    """

    uuid: str
    profile: Profile
    members: tuple[str, ...]
    encryption: Encryption | None = None
    made: bool = True
    created: float = 0.0
    replacing: tuple[str, str] | None = None
    stale: tuple[str, ...] = ()
    scrub: Scrub | None = None
    sealed: bytes = b""


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the node remembers of its disks, by claim, and of its pools, by name."""

    disks: dict[str, KnownDisk] = {}
    pools: dict[str, KnownPool] = {}


class WantedPool(msgspec.Struct, frozen=True):
    """A pool that config or API want."""

    spec: PoolSpec
    source: Literal["config", "api"] = "api"


class Wanted(msgspec.Struct, frozen=True):
    """What config and API want.

    Attributes:
        pools: by name.
        claims: disks that are given to the node although they hold something: by name, the content given up.
        keys: the encrypted pools whose key is at hand.
    """

    pools: dict[str, WantedPool] = {}
    claims: dict[str, str] = {}
    keys: frozenset[str] = frozenset()


class SeenPool(msgspec.Struct, frozen=True):
    """A mounted pool.

    Attributes:
        claims: its disks as they were at the mount, less those that went since: the kernel takes none back.
        options: its mount options.
        devices: the kernel's names of these disks, by claim.
    """

    claims: frozenset[str] = frozenset()
    options: MountOptions = MountOptions()
    devices: dict[str, str] = {}


class Figures(msgspec.Struct, frozen=True):
    """Figures of a mounted pool.

    Attributes:
        size: bytes that it can take.
        used: bytes that data and metadata take.
        free: bytes that can still be written.
        members: of its members, by claim: size, allocated, errors since they were reset.
        full: what there is no room for any more.
        read_only: whether the kernel stopped writing to it, after an error.
    """

    size: int = 0
    used: int = 0
    free: int = 0
    members: dict[str, tuple[int, int, int]] = {}
    full: Literal["", "data", "metadata"] = ""
    read_only: bool = False


class Seen(msgspec.Struct, frozen=True):
    """Everything that is seen.

    Attributes:
        disks: by id.
        unlocked: claims of encrypted disks that are open.
        mounted: pools by name.
        settled: whether every disk that is there has been looked at, or given up.
        patient: whether missing disks may still come: a boot is young.
        busy: the disks that the node itself keeps busy for long, and what they are doing, by the kernel's name.
        strange: the state partitions whose content this image does not understand, and why: a newer one wrote it.
        served: the pools that were mounted since the node daemon began: whose disks came, and are gone.
    """

    disks: tuple[SeenDisk, ...] = ()
    unlocked: frozenset[str] = frozenset()
    mounted: dict[str, SeenPool] = {}
    settled: bool = True
    patient: bool = False
    busy: dict[str, str] = {}
    strange: dict[str, str] = {}
    served: frozenset[str] = frozenset()


class ClaimDisk(msgspec.Struct, frozen=True):
    """Give a disk to the node, for a pool perhaps. What it holds must be `content`, which ends unless it is blank."""

    disk: str
    content: str
    blank: bool
    pool: str = ""

    def __str__(self) -> str:
        return f"claim {self.disk}{'' if self.blank else f', wiping what it holds ({self.content})'}"


class MakePool(msgspec.Struct, frozen=True):
    """Make a pool of claimed disks that are in none; named by id, since a claim may come just before."""

    name: str
    spec: PoolSpec
    disks: tuple[str, ...]

    def __str__(self) -> str:
        return f"make pool {self.name}, {self.spec.profile}, of {', '.join(self.disks)}"


class RemakePool(msgspec.Struct, frozen=True):
    """Make a pool again whose making was interrupted: nothing was ever stored in it."""

    name: str

    def __str__(self) -> str:
        return f"make pool {self.name}, whose making was interrupted"


class Unlock(msgspec.Struct, frozen=True):
    """Open an encrypted disk of a pool."""

    pool: str
    claim: str

    def __str__(self) -> str:
        return f"unlock disk {self.claim[:8]} of pool {self.pool}"


class Mount(msgspec.Struct, frozen=True):
    """Mount a pool."""

    name: str
    options: MountOptions
    degraded: bool = False

    def __str__(self) -> str:
        return f"mount pool {self.name}{', degraded' if self.degraded else ''}"


class Remount(msgspec.Struct, frozen=True):
    """Change a mounted pool's options."""

    name: str
    options: MountOptions

    def __str__(self) -> str:
        return f"mount pool {self.name} with other options"


class Release(msgspec.Struct, frozen=True):
    """Let go of a mounted pool that too many disks have left: nothing in it can be read or written any more."""

    name: str

    def __str__(self) -> str:
        return f"release pool {self.name}"


Action = ClaimDisk | MakePool | RemakePool | Unlock | Mount | Remount | Release
