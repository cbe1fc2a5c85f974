"""What the volume manager decides about: volumes as seen on a pool, what is noted of each, the actions.

A volume is a writable subvolume below `volumes`, its snapshots are read-only ones below `snapshots/<volume>`. What is
noted of it is an extended attribute of its root folder, which its containers cannot see: it is written in the same
transaction as everything else, comes and goes with the volume, and needs no file that could be half written. What is
being made or is being deleted lies in `incoming` under another name: what is found there after a power cut was never
acknowledged, or was deleted.

Quota is btrfs's simple kind (docs/decisions/0010-simple-quota.md): a group for each volume counts what the volume,
its snapshots and its earlier selves wrote and still need. What a clone still has of its source is not among that, so
it is counted apart (`shared`) and taken off the limit.
"""

import msgspec

from core0.wire.volumes import IoLimits, Origin, VolumeSpec

VOLUMES, SNAPSHOTS, INCOMING = "volumes", "snapshots", "incoming"
FOLDERS = (VOLUMES, SNAPSHOTS, INCOMING)
# A clone may write this part of its size, however much of its source may be in it: until that is counted.
_CLONE_PART = 100


class Record(msgspec.Struct, frozen=True):
    """What is noted of a volume.

    Attributes:
        size: bytes that it may take.
        group: number of its quota group.
        io: limits for its containers.
        origin: what it was made as a copy of.
        born: the transaction that made the copy; what is older is its source's.
        shared: bytes of its source that it leads to, as last counted; before, a number that they cannot exceed.
        counted: whether they were counted.
    """

    size: int
    group: int
    io: IoLimits = IoLimits()
    origin: Origin | None = None
    born: int = 0
    shared: int = 0
    counted: bool = False

    @property
    def limit(self) -> int:
        """Bytes that its quota group may take."""
        return max(self.size - self.shared, self.size // _CLONE_PART)


class SeenSnapshot(msgspec.Struct, frozen=True):
    """A snapshot: its name, number, UUID, the one it had elsewhere if it was received, seconds since 1970."""

    name: str
    number: int
    uuid: str
    received: str
    created: float


class SeenVolume(msgspec.Struct, frozen=True):
    """A volume as it is.

    Attributes:
        name: its name.
        number: its subvolume's.
        generation: the transaction that changed it last.
        created: seconds since 1970, UTC.
        record: what is noted of it; None if nothing is, or nothing that can be understood.
        written: bytes that its quota group counts.
        limit: of that group; None without one.
        member: whether the subvolume is in that group.
        snapshots: by time.
    """

    name: str
    number: int
    generation: int
    created: float
    record: Record | None = None
    written: int = 0
    limit: int | None = None
    member: bool = False
    snapshots: tuple[SeenSnapshot, ...] = ()

    @property
    def used(self) -> int:
        """Bytes that it takes of its size."""
        return self.written + (self.record.shared if self.record else 0)


class SeenPool(msgspec.Struct, frozen=True):
    """What there is on a pool.

    Attributes:
        ready: whether the folders are there.
        quota: whether quota is on.
        simple: whether it is the simple kind.
        size: bytes that files can take at most.
        free: bytes that they still can.
        volumes: by name.
        leftovers: entries of `incoming`.
        orphans: entries of `snapshots` whose volume is gone.
        groups: quota groups that count nothing and belong to nothing.
        disks: those of its disks that are there, as `major:minor`.
    """

    ready: bool
    quota: bool
    simple: bool
    size: int
    free: int
    volumes: tuple[SeenVolume, ...] = ()
    leftovers: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    disks: tuple[str, ...] = ()

    def find(self, name: str) -> SeenVolume | None:
        """The volume of that name."""
        return next((one for one in self.volumes if one.name == name), None)


class MakeFolders(msgspec.Struct, frozen=True, tag=True):
    """Make the folders that volumes lie in."""

    def __str__(self) -> str:
        return "make the folders"


class EnableQuota(msgspec.Struct, frozen=True, tag=True):
    """Turn simple quota on."""

    def __str__(self) -> str:
        return "turn quota on"


class Regroup(msgspec.Struct, frozen=True, tag=True):
    """Put a volume and its snapshots into its quota group again, which is made if it is gone."""

    name: str
    record: Record

    def __str__(self) -> str:
        return f"count volume {self.name} in its group again"


class SetRecord(msgspec.Struct, frozen=True, tag=True):
    """Note something else of a volume, and limit it so."""

    name: str
    record: Record

    def __str__(self) -> str:
        return f"limit volume {self.name} to {self.record.size} bytes"


class Sweep(msgspec.Struct, frozen=True, tag=True):
    """Delete what was half made when the power went, or what was deleted and is still there."""

    folder: str
    entry: str

    def __str__(self) -> str:
        return f"sweep {self.folder}/{self.entry} away"


class DropGroup(msgspec.Struct, frozen=True, tag=True):
    """Delete a quota group that counts nothing any more."""

    group: int

    def __str__(self) -> str:
        return f"drop quota group {self.group >> 48}/{self.group & (1 << 48) - 1}"


class Create(msgspec.Struct, frozen=True, tag=True):
    """Make an empty volume."""

    name: str
    size: int
    io: IoLimits = IoLimits()

    def __str__(self) -> str:
        return f"create volume {self.name} of {self.size} bytes"


class Clone(msgspec.Struct, frozen=True, tag=True):
    """Make a volume that begins as a copy."""

    name: str
    origin: Origin
    size: int
    io: IoLimits = IoLimits()

    def __str__(self) -> str:
        at = f" at {self.origin.snapshot}" if self.origin.snapshot else ""
        return f"clone volume {self.origin.volume}{at} as {self.name}"


class TakeSnapshot(msgspec.Struct, frozen=True, tag=True):
    """Take a snapshot of a volume."""

    volume: str
    name: str

    def __str__(self) -> str:
        return f"take snapshot {self.name} of volume {self.volume}"


class DeleteSnapshot(msgspec.Struct, frozen=True, tag=True):
    """Delete a snapshot. Asked for by a verb, never planned."""

    volume: str
    name: str

    def __str__(self) -> str:
        return f"delete snapshot {self.name} of volume {self.volume}"


class DeleteVolume(msgspec.Struct, frozen=True, tag=True):
    """Delete a volume with its snapshots. Asked for by a verb, never planned."""

    name: str

    def __str__(self) -> str:
        return f"delete volume {self.name}"


class RollBack(msgspec.Struct, frozen=True, tag=True):
    """Give a volume a snapshot's content. Asked for by a verb, never planned."""

    volume: str
    snapshot: str

    def __str__(self) -> str:
        return f"roll volume {self.volume} back to {self.snapshot}"


class AdoptImport(msgspec.Struct, frozen=True, tag=True):
    """Make what was received a snapshot; with a spec, its volume, too. Asked for by a verb, never planned."""

    entry: str
    received: str
    volume: str
    snapshot: str
    spec: VolumeSpec | None = None

    def __str__(self) -> str:
        return f"import snapshot {self.snapshot} of volume {self.volume}"


Repair = MakeFolders | EnableQuota | Regroup | SetRecord | Sweep | DropGroup
Action = Repair | Create | Clone | TakeSnapshot | DeleteSnapshot | DeleteVolume | RollBack | AdoptImport
