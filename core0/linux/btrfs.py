"""btrfs by its ioctls: subvolumes, snapshots, quota groups, streams, what a file system says of itself. No policy.

Every call takes an open descriptor on the file system; names are one path component, relative to a folder's
descriptor, so nothing here follows a path. Sources: include/uapi/linux/btrfs.h and btrfs_tree.h; fs/btrfs/ioctl.c
and qgroup.c where the headers do not say what a call really does.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

# The subvolume that holds all others.
TOP_LEVEL = 5

_W, _R, _WR = 1, 2, 3
_READ_ONLY, _INHERIT, _BY_ID = 1 << 1, 1 << 2, 1 << 4
_ROOT_READ_ONLY = 1
_LONGEST_NAME = 255
_VOLUME_ARGUMENTS = struct.Struct("=q4088s")
_VOLUME_ARGUMENTS_2 = struct.Struct("=qQQQQ16x4040s")
_INHERITANCE = struct.Struct("=QQQQ5Q")
_SET_LIMITS = 1
_LIMIT_REFERENCED, _LIMIT_EXCLUSIVE = 1, 2
_QUOTA_ENABLE, _QUOTA_DISABLE, _QUOTA_ENABLE_SIMPLE = 1, 2, 4
_SEARCH_KEY = struct.Struct("=7Q4I4Q")
_SEARCH_HEADER = struct.Struct("=QQQII")
_SEARCH_BUFFER = 64 << 10
_ALL = (1 << 64) - 1
_ROOT_TREE, _QUOTA_TREE, _OWN_TREE = 1, 8, 0
_KEY_EXTENT_DATA = 108
_KEY_ROOT_BACKREF, _KEY_STATUS, _KEY_INFO, _KEY_LIMIT, _KEY_RELATION = 144, 240, 242, 244, 246
_STATUS_ITEM, _INFO_ITEM, _LIMIT_ITEM = (
    struct.Struct("<QQQQ"),
    struct.Struct("<QQQQQ"),
    struct.Struct("<QQQQQ"),
)
_BACKREF_ITEM = struct.Struct("<QQH")
# Generation, then (behind sizes and encodings) the kind of extent, its place and its size on the disks.
_EXTENT_ITEM = struct.Struct("<Q12xBQQ")
_INLINE = 0
# Places are noted as a bit for each sector in pieces of this many bytes; a piece stands for 128 MiB.
_PIECE, _SECTOR_BITS, _PIECE_BITS = 4096, 12, 27
_STATUS_ON, _STATUS_RESCAN, _STATUS_INCONSISTENT, _STATUS_SIMPLE = 1, 2, 4, 8
_SUBVOLUME_INFO = struct.Struct("=Q256sQQQQ16s16s16sQQQQ" + "QI4x" * 4 + "64x")
_FILESYSTEM_INFO = struct.Struct("=QQ16sIIIHHQQ16s944x")
_DEVICE_INFO = struct.Struct("=Q16sQQ3032x1024s")
_DEVICE_STATS = struct.Struct("=QQQ5Q968x")
_SPACE = struct.Struct("=QQQ")
_SEND = struct.Struct("=qQQQQI28x")

_SPACES = {1: "data", 2: "system", 4: "metadata", 1 << 49: "reserve"}
_GROUP_LEVEL = 48
# Of an item in a tree: object, type, offset.
_Key = tuple[int, int, int]


def _number(direction: int, number: int, size: int) -> int:
    """An ioctl's number as asm-generic/ioctl.h makes it."""
    return direction << 30 | size << 16 | 0x94 << 8 | number


SUBVOL_CREATE = _number(_W, 14, _VOLUME_ARGUMENTS.size)
SNAP_CREATE = _number(_W, 1, _VOLUME_ARGUMENTS.size)
SNAP_DESTROY = _number(_W, 15, _VOLUME_ARGUMENTS.size)
SUBVOL_CREATE_V2 = _number(_W, 24, _VOLUME_ARGUMENTS_2.size)
SNAP_CREATE_V2 = _number(_W, 23, _VOLUME_ARGUMENTS_2.size)
SNAP_DESTROY_V2 = _number(_W, 63, _VOLUME_ARGUMENTS_2.size)
_SYNC = _number(0, 8, 0)
_START_SYNC, _WAIT_SYNC = _number(_R, 24, 8), _number(_W, 22, 8)
_GET_FLAGS = _number(_R, 25, 8)
_GET_INFO = _number(_R, 60, _SUBVOLUME_INFO.size)
_TREE_SEARCH = _number(_WR, 17, _SEARCH_KEY.size + 8)
_QUOTA_CTL = _number(_WR, 40, 16)
_GROUP_ASSIGN, _GROUP_CREATE = _number(_W, 41, 24), _number(_W, 42, 16)
_GROUP_LIMIT = _number(_R, 43, 48)
_RESCAN_WAIT = _number(0, 46, 0)
_FS_INFO, _DEV_INFO = _number(_R, 31, _FILESYSTEM_INFO.size), _number(_WR, 30, _DEVICE_INFO.size)
_GET_DEV_STATS = _number(_WR, 52, _DEVICE_STATS.size)
_SPACE_INFO = _number(_WR, 20, 16)
_SEND_STREAM = _number(_W, 38, _SEND.size)


class Subvolume(msgspec.Struct, frozen=True):
    """A subvolume as it is.

    Attributes:
        id: its number, never used again in this file system.
        parent: the number of the subvolume that its name is in; 0 once it is deleted.
        generation: the transaction that changed it last.
        made: the transaction that made it.
        read_only: whether it can be written.
        uuid: its own, hexadecimal.
        source: of the subvolume that it is a snapshot of; empty if it is none.
        received: of the subvolume that was sent to make it; empty if it was not received.
        created: seconds since 1970, UTC.
    """

    id: int
    parent: int
    generation: int
    made: int
    read_only: bool
    uuid: str
    source: str
    received: str
    created: float


class Quota(msgspec.Struct, frozen=True):
    """Quota's state: on or not, in simple mode or not, its figures right or not, being counted anew or not."""

    on: bool = False
    simple: bool = False
    inconsistent: bool = False
    rescanning: bool = False


class Group(msgspec.Struct, frozen=True):
    """A quota group; the one of a subvolume has the subvolume's number.

    Attributes:
        referenced: bytes that it leads to.
        exclusive: bytes that it alone leads to.
        limit: most bytes referenced; None without a limit.
        parents: groups that it is a member of.
    """

    referenced: int = 0
    exclusive: int = 0
    limit: int | None = None
    parents: tuple[int, ...] = ()


class Filesystem(msgspec.Struct, frozen=True):
    """A mounted file system: its UUID, how many devices it has, the highest number of one, its transaction."""

    uuid: str
    devices: int
    last_device: int
    generation: int
    sector: int
    node: int


class Device(msgspec.Struct, frozen=True):
    """A device of a file system; its path is the kernel's, empty if the device is missing."""

    number: int
    uuid: str
    path: str
    size: int
    used: int


class DeviceErrors(msgspec.Struct, frozen=True):
    """Errors of a device since they were reset."""

    write: int
    read: int
    flush: int
    corruption: int
    generation: int

    @property
    def total(self) -> int:
        """All together."""
        return self.write + self.read + self.flush + self.corruption + self.generation


class Space(msgspec.Struct, frozen=True):
    """Bytes of one kind of block groups: allocated, and used of them; raid1's count once."""

    total: int
    used: int


def _ioctl(descriptor: int, request: int, buffer: bytearray, doing: str) -> None:
    # A bytearray is changed in place; bytes are copied, and over 1,024 of them refused.
    try:
        fcntl.ioctl(descriptor, request, buffer)
    except OSError as error:
        raise OSError(error.errno, f"{doing}: {error.strerror}") from None


def _name(name: str) -> bytes:
    """A name as the kernel takes it; what it would understand as something else is refused here."""
    data = os.fsencode(name)
    if not data or len(data) > _LONGEST_NAME or b"/" in data or b"\0" in data or data in (b".", b".."):
        raise ValueError(f"cannot name a subvolume {name[:80]!a}: it is no single name of a folder's entry")
    return data


def group_id(level: int, number: int) -> int:
    """The id of the quota group that tools show as `level/number`."""
    return level << _GROUP_LEVEL | number


def create_subvolume(folder: int, name: str, *, limit: int | None = None, groups: Sequence[int] = ()) -> None:
    """Make an empty subvolume. Durable after the next commit, not before; see `commit`.

    Args:
        folder: the folder that gets the entry.
        name: the entry.
        limit: most bytes that it may lead to, set in the same transaction; None sets none.
        groups: quota groups that it becomes a member of.
    """
    doing = f"cannot create subvolume {name}"
    _call_2(folder, SUBVOL_CREATE_V2, _name(name), doing, limit=limit, groups=groups)


def create_snapshot(
    folder: int,
    name: str,
    source: int,
    *,
    read_only: bool,
    limit: int | None = None,
    groups: Sequence[int] = (),
) -> None:
    """Make a snapshot of the subvolume that `source` is a descriptor of. The kernel commits before it returns.

    Args:
        folder: the folder that gets the entry.
        name: the entry.
        source: the root folder of a subvolume.
        read_only: whether it can be written.
        limit: most bytes that it may lead to; None sets none.
        groups: quota groups that it becomes a member of.
    """
    doing = f"cannot create snapshot {name}"
    flags = _READ_ONLY if read_only else 0
    _call_2(
        folder, SNAP_CREATE_V2, _name(name), doing, source=source, flags=flags, limit=limit, groups=groups
    )


def _call_2(
    folder: int,
    request: int,
    name: bytes,
    doing: str,
    *,
    source: int = 0,
    flags: int = 0,
    limit: int | None = None,
    groups: Sequence[int] = (),
) -> None:
    """A call with `struct btrfs_ioctl_vol_args_v2`, with what the new subvolume inherits if that is anything."""
    size = pointer = 0
    if limit is not None or groups:
        flags |= _INHERIT
        inherited = _inheritance(limit, groups)
        size, pointer = len(inherited), ctypes.addressof(inherited)
    buffer = bytearray(_VOLUME_ARGUMENTS_2.pack(source, 0, flags, size, pointer, name))
    _ioctl(folder, request, buffer, doing)


def _inheritance(limit: int | None, groups: Sequence[int]) -> "ctypes.Array[ctypes.c_char]":
    flags, limits = (0, 0) if limit is None else (_SET_LIMITS, _LIMIT_REFERENCED)
    head = _INHERITANCE.pack(flags, len(groups), 0, 0, limits, limit or 0, 0, 0, 0)
    data = head + struct.pack(f"={len(groups)}Q", *groups)
    return ctypes.create_string_buffer(data, len(data))


def delete_subvolume(folder: int, name: str) -> None:
    """Take a subvolume's entry away; the kernel frees what it held later. Durable after the next commit."""
    _ioctl(
        folder,
        SNAP_DESTROY,
        bytearray(_VOLUME_ARGUMENTS.pack(0, _name(name))),
        f"cannot delete subvolume {name}",
    )


def delete_subvolume_by_number(descriptor: int, number: int) -> None:
    """The same by its number, wherever its entry is below the mount of an open file."""
    buffer = bytearray(_VOLUME_ARGUMENTS_2.pack(0, 0, _BY_ID, 0, 0, struct.pack("=Q", number)))
    _ioctl(descriptor, SNAP_DESTROY_V2, buffer, f"cannot delete subvolume number {number}")


def commit(descriptor: int) -> None:
    """Return when all that was done before is on the disks: also subvolumes, renames and limits.

    Faster than syncfs(2), which writes back every file of the file system first.
    """
    transaction = bytearray(8)
    _ioctl(descriptor, _START_SYNC, transaction, "cannot start a commit")
    _ioctl(descriptor, _WAIT_SYNC, transaction, "cannot commit")


def sync(descriptor: int) -> None:
    """Write all files back, commit, and start the cleaner that frees deleted subvolumes."""
    _ioctl(descriptor, _SYNC, bytearray(), "cannot synchronise the file system")


def subvolume(descriptor: int) -> Subvolume:
    """What the subvolume of an open file or folder is."""
    buffer = bytearray(_SUBVOLUME_INFO.size)
    _ioctl(descriptor, _GET_INFO, buffer, "cannot read about the subvolume")
    number, _, parent, _, generation, flags, uuid, source, received, *times = _SUBVOLUME_INFO.unpack(buffer)
    # Transactions and times: changed, created, sent, received.
    made, created = times[1], times[6] + times[7] / 1e9
    return Subvolume(
        number,
        parent,
        generation,
        made,
        bool(flags & _ROOT_READ_ONLY),
        uuid.hex(),
        _uuid(source),
        _uuid(received),
        created,
    )


def _uuid(data: bytes) -> str:
    return data.hex() if any(data) else ""


def is_read_only(descriptor: int) -> bool:
    """Whether a subvolume, given by its root folder, cannot be written."""
    buffer = bytearray(8)
    _ioctl(descriptor, _GET_FLAGS, buffer, "cannot read the subvolume's flags")
    return bool(int.from_bytes(buffer, "little") & _READ_ONLY)


def subvolumes(descriptor: int) -> dict[int, tuple[int, str]]:
    """All subvolumes by number: the subvolume that each one's entry is in, and the entry's name."""
    found = {}
    for key, data in _search(descriptor, _ROOT_TREE, _KEY_ROOT_BACKREF, _KEY_ROOT_BACKREF):
        _, _, length = _BACKREF_ITEM.unpack_from(data)
        name = data[_BACKREF_ITEM.size : _BACKREF_ITEM.size + length]
        found[key[0]] = (key[2], os.fsdecode(name))
    return found


def enable_quota(descriptor: int, *, simple: bool) -> None:
    """Turn quota on; the full mode then counts what is there already (`wait_rescan`)."""
    command = _QUOTA_ENABLE_SIMPLE if simple else _QUOTA_ENABLE
    _ioctl(descriptor, _QUOTA_CTL, bytearray(struct.pack("=QQ", command, 0)), "cannot turn quota on")


def disable_quota(descriptor: int) -> None:
    """Turn quota off; all groups and limits are gone."""
    _ioctl(descriptor, _QUOTA_CTL, bytearray(struct.pack("=QQ", _QUOTA_DISABLE, 0)), "cannot turn quota off")


def wait_rescan(descriptor: int) -> None:
    """Wait until the counting that is under way, if any, has ended."""
    _ioctl(descriptor, _RESCAN_WAIT, bytearray(), "cannot wait for the quota groups")


def create_group(descriptor: int, group: int) -> None:
    """Make a quota group."""
    what = bytearray(struct.pack("=QQ", 1, group))
    _ioctl(descriptor, _GROUP_CREATE, what, f"cannot create quota group {group:#x}")


def delete_group(descriptor: int, group: int) -> None:
    """Delete a quota group. Raises OSError EBUSY if its subvolume exists."""
    what = bytearray(struct.pack("=QQ", 0, group))
    _ioctl(descriptor, _GROUP_CREATE, what, f"cannot delete quota group {group:#x}")


def assign_group(descriptor: int, member: int, group: int) -> None:
    """Make a quota group a member of one of a higher level."""
    what = bytearray(struct.pack("=QQQ", 1, member, group))
    _ioctl(descriptor, _GROUP_ASSIGN, what, f"cannot add group {member:#x} to {group:#x}")


def unassign_group(descriptor: int, member: int, group: int) -> None:
    """End a quota group's membership in one of a higher level."""
    what = bytearray(struct.pack("=QQQ", 0, member, group))
    _ioctl(descriptor, _GROUP_ASSIGN, what, f"cannot take group {member:#x} out of {group:#x}")


def limit_group(descriptor: int, group: int, limit: int | None) -> None:
    """Let a quota group lead to so many bytes at most; None takes the limit away."""
    what = bytearray(
        struct.pack("=QQQQQQ", group, _LIMIT_REFERENCED, _ALL if limit is None else limit, 0, 0, 0)
    )
    _ioctl(descriptor, _GROUP_LIMIT, what, f"cannot limit quota group {group:#x}")


def quota(descriptor: int) -> Quota:
    """Quota's state as of the last commit."""
    for _, data in _search(descriptor, _QUOTA_TREE, _KEY_STATUS, _KEY_STATUS):
        _, _, flags, _ = _STATUS_ITEM.unpack_from(data)
        return Quota(
            bool(flags & _STATUS_ON),
            bool(flags & _STATUS_SIMPLE),
            bool(flags & _STATUS_INCONSISTENT),
            bool(flags & _STATUS_RESCAN),
        )
    return Quota()


def groups(descriptor: int, only: Iterable[int] | None = None) -> dict[int, Group]:
    """Quota groups by id, with their figures as of the last commit: all of them, or those with given ids."""
    found: dict[int, Group] = {}
    for (low, kind, high), data in _group_items(descriptor, only):
        if kind == _KEY_INFO:
            _, referenced, _, exclusive, _ = _INFO_ITEM.unpack_from(data)
            found[high] = Group(referenced, exclusive)
        elif kind == _KEY_LIMIT and high in found:
            flags, most, _, _, _ = _LIMIT_ITEM.unpack_from(data)
            limit = most if flags & _LIMIT_REFERENCED and most != _ALL else None
            found[high] = msgspec.structs.replace(found[high], limit=limit)
        elif kind == _KEY_RELATION and low in found and low >> _GROUP_LEVEL < high >> _GROUP_LEVEL:
            found[low] = msgspec.structs.replace(found[low], parents=(*found[low].parents, high))
    return found


def _group_items(descriptor: int, only: Iterable[int] | None) -> Iterator[tuple[_Key, bytes]]:
    if only is None:
        yield from _search(descriptor, _QUOTA_TREE, _KEY_INFO, _KEY_RELATION)
        return
    for group in only:
        for kind in (_KEY_INFO, _KEY_LIMIT):
            yield from _search(descriptor, _QUOTA_TREE, kind, kind, (0, 0), (group, group))
        both = (group, group)
        yield from _search(descriptor, _QUOTA_TREE, _KEY_RELATION, _KEY_RELATION, both, (0, _ALL))


def _search(
    descriptor: int,
    tree: int,
    first: int,
    last: int,
    objects: tuple[int, int] = (0, _ALL),
    offsets: tuple[int, int] = (0, _ALL),
) -> Iterator[tuple[_Key, bytes]]:
    """The items of a tree in the order of their keys, with keys and contents.

    Args:
        descriptor: any file of the file system.
        tree: its number.
        first: the lowest type.
        last: the highest type.
        objects: the lowest and the highest object.
        offsets: the lowest and the highest offset.
    """
    key = (objects[0], first, offsets[0])
    end = (objects[1], last, offsets[1])
    while key <= end:
        buffer = bytearray(_SEARCH_KEY.size + 8 + _SEARCH_BUFFER)
        # The kernel gives all between two keys; only with both ends the same it is one object, type or offset.
        limits = (key[0], end[0], key[2], end[2], 0, _ALL, key[1], end[1])
        _SEARCH_KEY.pack_into(buffer, 0, tree, *limits, 4096, 0, 0, 0, 0, 0)
        struct.pack_into("=Q", buffer, _SEARCH_KEY.size, _SEARCH_BUFFER)
        try:
            _ioctl(descriptor, _TREE_SEARCH, buffer, f"cannot search tree {tree}")
        except FileNotFoundError:  # there is no quota tree while quota is off
            return
        count = _SEARCH_KEY.unpack_from(buffer)[9]
        if not count:
            return
        at = _SEARCH_KEY.size + 8
        for _ in range(count):
            _, low, high, kind, length = _SEARCH_HEADER.unpack_from(buffer, at)
            at += _SEARCH_HEADER.size
            key = (low, kind, high)
            if first <= kind <= last and offsets[0] <= high <= offsets[1]:
                yield key, bytes(buffer[at : at + length])
            at += length
        key = _next_key(key)


def _next_key(key: _Key) -> _Key:
    low, kind, high = key
    if high < _ALL:
        return low, kind, high + 1
    return (low, kind + 1, 0) if kind < 255 else (low + 1, 0, 0)


def older_bytes(descriptor: int, generation: int) -> int:
    """Bytes that a subvolume leads to and that a transaction or an earlier one wrote: its source's, if it is a copy.

    Reads all of the subvolume's tree: as long as it takes to list its files. Each extent counts once and whole, as
    quota counts it.
    """
    total = 0
    seen: dict[int, bytearray] = {}
    for _, data in _search(descriptor, _OWN_TREE, _KEY_EXTENT_DATA, _KEY_EXTENT_DATA):
        if len(data) < _EXTENT_ITEM.size or data[20] == _INLINE:
            continue
        written, _, place, size = _EXTENT_ITEM.unpack_from(data)
        if place and written <= generation and _is_new(seen, place >> _SECTOR_BITS):
            total += size
    return total


def _is_new(seen: dict[int, bytearray], sector: int) -> bool:
    """Note a sector; False if it was noted before."""
    number, bit = divmod(sector, 1 << (_PIECE_BITS - _SECTOR_BITS))
    piece = seen.setdefault(number, bytearray(_PIECE))
    byte, mask = bit >> 3, 1 << (bit & 7)
    if piece[byte] & mask:
        return False
    piece[byte] |= mask
    return True


def filesystem(descriptor: int) -> Filesystem:
    """What a mounted file system is."""
    buffer = bytearray(_FILESYSTEM_INFO.size)
    _FILESYSTEM_INFO.pack_into(buffer, 0, 0, 0, b"", 0, 0, 0, 0, 0, 2, 0, b"")  # 2: tell the generation, too
    _ioctl(descriptor, _FS_INFO, buffer, "cannot read about the file system")
    last, devices, uuid, node, sector, _, _, _, _, generation, _ = _FILESYSTEM_INFO.unpack(buffer)
    return Filesystem(_dashed(uuid), devices, last, generation, sector, node)


def _dashed(uuid: bytes) -> str:
    text = uuid.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def devices(descriptor: int) -> tuple[Device, ...]:
    """The devices of a mounted file system, by number."""
    found = []
    for number in range(1, filesystem(descriptor).last_device + 1):
        buffer = bytearray(_DEVICE_INFO.pack(number, b"", 0, 0, b""))
        try:
            _ioctl(descriptor, _DEV_INFO, buffer, f"cannot read about device {number}")
        except OSError as error:
            if error.errno != errno.ENODEV:  # numbers of removed devices are not used again
                raise
            continue
        _, uuid, used, size, path = _DEVICE_INFO.unpack(buffer)
        found.append(Device(number, _dashed(uuid), os.fsdecode(path.partition(b"\0")[0]), size, used))
    return tuple(found)


def device_errors(descriptor: int, number: int, *, reset: bool = False) -> DeviceErrors:
    """The errors that a device made since they were reset; with `reset`, count from zero again."""
    buffer = bytearray(_DEVICE_STATS.pack(number, 5, int(reset), 0, 0, 0, 0, 0))
    _ioctl(descriptor, _GET_DEV_STATS, buffer, f"cannot read the errors of device {number}")
    return DeviceErrors(*_DEVICE_STATS.unpack(buffer)[3:8])


def spaces(descriptor: int) -> Mapping[str, Space]:
    """What is allocated and used, for `data`, `metadata` and `system`; a file system with mixed groups has `data`.

    The `reserve` is a part of what metadata has free: the kernel keeps it for its own needs, and for deleting.
    """
    head = bytearray(16)
    _ioctl(descriptor, _SPACE_INFO, head, "cannot read the space")
    slots = struct.unpack("=QQ", head)[1]
    buffer = bytearray(16 + _SPACE.size * slots)
    struct.pack_into("=QQ", buffer, 0, slots, 0)
    _ioctl(descriptor, _SPACE_INFO, buffer, "cannot read the space")
    found: dict[str, Space] = {}
    for place in range(min(slots, struct.unpack_from("=QQ", buffer)[1])):
        flags, total, used = _SPACE.unpack_from(buffer, 16 + _SPACE.size * place)
        for bit, kind in _SPACES.items():
            if flags & bit:
                before = found.get(kind, Space(0, 0))
                found[kind] = Space(before.total + total, before.used + used)
                break
    return found


def send(snapshot: int, out: int, *, parent: int = 0, clone_sources: Sequence[int] = ()) -> None:
    """Write a read-only subvolume as a stream (version 1) to a pipe or file; returns when all is written.

    Args:
        snapshot: descriptor of its root folder.
        out: where the stream goes.
        parent: number of a read-only subvolume; only what differs from it is sent. 0 sends all.
        clone_sources: numbers of read-only subvolumes that the receiver has, too.
    """
    sources = sorted({*clone_sources, parent} - {0})
    array = (ctypes.c_uint64 * max(1, len(sources)))(*sources)
    arguments = _SEND.pack(out, len(sources), ctypes.addressof(array), parent, 0, 0)
    _ioctl(snapshot, _SEND_STREAM, bytearray(arguments), "cannot send the snapshot")
