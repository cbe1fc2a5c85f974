"""Disks and pools in the node's API and in its config: the same types for server, client, command line and TOML."""

from typing import Annotated, Literal

import msgspec

from core0.wire.types import ContainerName, Sha256

# One name, as of containers: it becomes a folder and a label.
PoolName = ContainerName
# What a disk is called: its id in the API, or its serial number where only one disk has it.
DiskName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:@+-]{0,119}$(?!\n)")]
Serial = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
Bytes = Annotated[int, msgspec.Meta(ge=0)]
ContentId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$(?!\n)")]

Media = Literal["hdd", "ssd", "nvme"]
Bus = Literal["nvme", "ata", "scsi", "virtio", "usb", "mmc", "other"]
Profile = Literal["single", "raid1", "raid1c3", "raid10"]
DiskState = Literal["probing", "in-use", "free", "foreign", "unclaimed", "unusable", "hung", "failing"]
PoolState = Literal["online", "degraded", "offline", "waiting", "failed"]


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that a disk holds: a file system, a partition table, a RAID member, a key header.

    Attributes:
        device: the disk, or the partition that it is on.
        type: as blkid names it, as `ext4`.
        label: its label, if it has one.
        uuid: its UUID, if it has one.
    """

    device: str
    type: str
    label: str = ""
    uuid: str = ""


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the disk says of itself (SMART, NVMe health log); None where it does not say.

    Attributes:
        ok: False if the disk predicts its failure.
        why: one plain sentence.
        temperature: degrees Celsius.
        wear: used part of its life, 0 to 1 and beyond.
        power_on_hours: hours.
        media_errors: unrecovered errors, or reallocated and pending sectors.
    """

    ok: bool
    why: str
    temperature: int | None = None
    wear: float | None = None
    power_on_hours: int | None = None
    media_errors: int | None = None


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk of the node.

    Attributes:
        id: stable name, made of WWN or serial number; of two disks that say the same, each has its place added.
        device: the kernel's name at this moment, as `sda`.
        serial: serial number as the disk says it.
        wwn: world wide name (NAA, EUI-64 or NVMe UUID), if it has one.
        model: as the disk says it.
        firmware: its revision.
        bus: how it is attached.
        media: what it is, by the bus, the kernel's flag, and the config's override.
        size: bytes.
        logical_sector: bytes; the unit of its addresses.
        physical_sector: bytes; the unit in which it writes without reading.
        read_only: whether the kernel may not write to it.
        removable: whether its medium can be taken out.
        state: what it is to this node.
        why: one plain sentence: what it is used for, or why it is not touched, and what to do.
        pool: the pool that it is a member of.
        holds: what it holds that the node did not write.
        content: names what it holds at this moment; a claim that wipes names it, so nothing else is wiped.
        health: what it says of itself; None until asked for the first time.
    """

    id: DiskName
    device: str
    serial: str
    wwn: str
    model: str
    firmware: str
    bus: Bus
    media: Media
    size: Bytes
    logical_sector: int
    physical_sector: int
    read_only: bool
    removable: bool
    state: DiskState
    why: str
    pool: str | None = None
    holds: tuple[Signature, ...] = ()
    content: str = ""
    health: Health | None = None


class Disks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All disks, by id."""

    disks: tuple[Disk, ...]


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The operator gives a disk to the node.

    Attributes:
        wipe: the disk's `content` as the operator saw it, which is destroyed; None claims a blank disk only.
    """

    wipe: ContentId | None = None


class Selector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which disks: those that fit everything that is given.

    Attributes:
        serials: one of these serial numbers or ids.
        media: one of these.
        bus: one of these.
        min_size: at least so many bytes.
        max_size: at most so many bytes.
        count: exactly so many of those that fit, the same ones as long as they are there; None takes all.
    """

    serials: tuple[Serial, ...] = ()
    media: tuple[Media, ...] = ()
    bus: tuple[Bus, ...] = ()
    min_size: Bytes = 0
    max_size: Bytes | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None


class MountOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a pool is mounted (btrfs(5)).

    Attributes:
        compress: `no`, or an algorithm that new data is compressed with.
        discard: whether freed space is told to SSDs.
        autodefrag: whether small random writes are gathered.
    """

    compress: Literal["no", "lzo", "zstd:1", "zstd:3", "zstd:6"] = "no"
    discard: bool = True
    autodefrag: bool = False


KeySource = Literal["config", "tpm2", "operator"]


class Encryption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """LUKS2 on each disk of a pool.

    Attributes:
        key: where the passphrase comes from: `config` takes `passphrase`, `tpm2` the machine's TPM, `operator`
            waits for the operator to unlock the pool after each boot. Only the config can say `config`.
        passphrase: for `config`; never shown by the API.
    """

    key: KeySource
    passphrase: Annotated[str, msgspec.Meta(min_length=8, max_length=512)] | None = None


class PoolSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a pool shall be.

    Attributes:
        select: its disks, when it is made. Later only missing ones are asked for: a pool never grows by itself.
        profile: how data and metadata are spread (mkfs.btrfs(8), PROFILES).
        format_blank: whether blank disks that fit are claimed and formatted without a claim of each.
        encryption: none, or LUKS2.
        mount: mount options.
        scrub_days: days between scrubs; None never scrubs by itself.
    """

    select: Selector
    profile: Profile = "single"
    format_blank: bool = False
    encryption: Encryption | None = None
    mount: MountOptions = MountOptions()
    scrub_days: Annotated[int, msgspec.Meta(ge=1, le=365)] | None = 30


def public(spec: PoolSpec) -> PoolSpec:
    """A spec without its secret."""
    if not spec.encryption:
        return spec
    return msgspec.structs.replace(spec, encryption=msgspec.structs.replace(spec.encryption, passphrase=None))


class PoolMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk of a pool.

    Attributes:
        disk: the disk's id; the last known one if it is missing.
        state: whether it is there and serves.
        size: bytes that it gives to the pool.
        used: bytes of it that are allocated.
        errors: reads, writes, flushes that failed, corruptions and generations found wrong since they were reset.
    """

    disk: str
    state: Literal["online", "missing", "failing"]
    size: Bytes = 0
    used: Bytes = 0
    errors: int = 0


class Scrub(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last scrub: its end in seconds since 1970 (UTC), and what it found."""

    ended: float
    errors: int
    corrected: int
    uncorrectable: int
    detail: str = ""


class Pool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pool as it is.

    Attributes:
        name: its name.
        id: its UUID, which is that of its file system.
        state: whether it serves.
        why: one plain sentence.
        spec: what it shall be; None if neither config nor API wants it any more: its data stays.
        source: who wants it.
        profile: how it spreads its data; of an adopted one it is known once it serves.
        encryption: where its key comes from; None if it is not encrypted.
        members: its disks.
        size: bytes that files can take at most, by the kernel's estimate: with `raid1` half of what the disks have.
        used: bytes that data and metadata take, each counted once.
        free: bytes that can still be written, by the kernel's estimate.
        scrub: the last scrub.
    """

    name: PoolName
    id: str
    state: PoolState
    why: str
    spec: PoolSpec | None
    source: Literal["config", "api", "none"]
    profile: Profile = "single"
    encryption: KeySource | None = None
    members: tuple[PoolMember, ...] = ()
    size: Bytes = 0
    used: Bytes = 0
    free: Bytes = 0
    scrub: Scrub | None = None


class Pools(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All pools, by name."""

    pools: tuple[Pool, ...]


class Replacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member of a pool to replace, and the disk that comes in its place."""

    old: DiskName
    new: DiskName


class Passphrase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What opens an encrypted pool, until the node ends."""

    passphrase: Annotated[str, msgspec.Meta(min_length=8, max_length=512)]


class RecoveryKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What opens an encrypted pool when the TPM that keeps its key does not give it: to be kept far from the node."""

    key: str


class EraseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk to decommission: everything on it is destroyed.

    Attributes:
        content: the disk's `content` as the operator saw it.
        method: one to insist on; None takes the first that works.
    """

    content: ContentId
    method: Literal["sanitize", "format", "security-erase", "discard", "overwrite"] | None = None


class Destruction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pool to destroy: its `id`, named again, so that no other pool of that name is hit."""

    id: str


class Reset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every pool and claim of a node to end: the node's fingerprint, named again."""

    fingerprint: Sha256


class StorageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The config's `[storage]`.

    Attributes:
        pools: by name.
        claims: disks that hold something and are given to the node all the same: serial number or id, and the
            `content` that may be wiped. After the disk has changed, the claim means nothing any more.
        media: what disks are, by serial number or id, where they say it wrongly.
    """

    pools: dict[PoolName, PoolSpec] = {}
    claims: dict[Serial, ContentId] = {}
    media: dict[Serial, Media] = {}
