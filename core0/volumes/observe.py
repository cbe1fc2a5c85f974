"""Volumes as they are on a mounted pool. Reads, never changes. May hang with a disk: call it in the worker."""

import contextlib
import errno
import os
from collections.abc import Iterator

import msgspec

from core0.linux import btrfs, files
from core0.volumes.model import (
    FOLDERS,
    INCOMING,
    SNAPSHOTS,
    VOLUMES,
    Record,
    SeenPool,
    SeenSnapshot,
    SeenVolume,
)

ATTRIBUTE = "trusted.zeronode.volume"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A subvolume's root folder has this inode number (btrfs_tree.h, BTRFS_FIRST_FREE_OBJECTID).
_ROOT_INODE = 256


@contextlib.contextmanager
def opened(name: str, folder: int | None = None) -> Iterator[int]:
    """A folder's descriptor, for the block; a link is no folder."""
    descriptor = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def observe(root: str) -> SeenPool:
    """Everything on a pool, by the path of its mount."""
    with opened(root) as pool:
        space = os.statvfs(pool)
        quota = btrfs.quota(pool)
        entries = set(os.listdir(pool))
        ready = entries.issuperset(FOLDERS)
        groups = btrfs.groups(pool)
        volumes = tuple(_volumes(pool, groups)) if VOLUMES in entries else ()
        return SeenPool(
            ready,
            quota.on,
            quota.simple,
            space.f_blocks * space.f_frsize,
            space.f_bavail * space.f_frsize,
            volumes,
            _entries(pool, INCOMING) if INCOMING in entries else (),
            _orphans(pool) if ready else (),
            _idle(groups, set(btrfs.subvolumes(pool)), volumes),
            tuple(_disks(pool)),
        )


def _disks(pool: int) -> Iterator[str]:
    """Those that are there: of a disk that was pulled, the file system goes on to tell the path that it had."""
    for device in btrfs.devices(pool):
        with contextlib.suppress(FileNotFoundError):
            yield _disk_number(os.stat(device.path).st_rdev)


def _disk_number(device: int) -> str:
    """`major:minor` of the disk that a device is, or is a partition of: io.max takes no partition."""
    path = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    if os.path.exists(f"{path}/partition"):
        return files.read_text(f"{path}/../dev").strip()
    return f"{os.major(device)}:{os.minor(device)}"


def _entries(pool: int, name: str) -> tuple[str, ...]:
    with opened(name, pool) as folder:
        return tuple(sorted(os.listdir(folder)))


def _orphans(pool: int) -> tuple[str, ...]:
    """Snapshots whose volume was deleted: the power went between the two steps of that."""
    volumes = set(_entries(pool, VOLUMES))
    return tuple(name for name in _entries(pool, SNAPSHOTS) if name not in volumes)


def observe_volume(root: str, name: str) -> SeenVolume | None:
    """One volume; None if there is none of that name."""
    with opened(root) as pool, opened(VOLUMES, pool) as folder:
        return _volume(pool, folder, name, None)


def settle(root: str) -> None:
    """Write everything back, so that figures are those of this moment."""
    with opened(root) as pool:
        btrfs.sync(pool)


def count_shared(root: str, name: str) -> int:
    """Bytes that a clone still has of its source."""
    with opened(root) as pool, opened(VOLUMES, pool) as folder, opened(name, folder) as volume:
        record = read_record(volume)
        return btrfs.older_bytes(volume, record.born) if record else 0


def _volumes(pool: int, groups: dict[int, btrfs.Group]) -> Iterator[SeenVolume]:
    with opened(VOLUMES, pool) as folder:
        for name in sorted(os.listdir(folder)):
            seen = _volume(pool, folder, name, groups)
            if seen:
                yield seen


def _volume(pool: int, folder: int, name: str, groups: dict[int, btrfs.Group] | None) -> SeenVolume | None:
    try:
        with opened(name, folder) as volume:
            if not is_subvolume(volume):
                return None
            seen, record = btrfs.subvolume(volume), read_record(volume)
    except (FileNotFoundError, NotADirectoryError):
        return None
    number = btrfs.group_id(1, record.group) if record else 0
    known = groups if groups is not None else btrfs.groups(pool, {number, seen.id})
    group, own = known.get(number, btrfs.Group()), known.get(seen.id, btrfs.Group())
    return SeenVolume(
        name,
        seen.id,
        seen.generation,
        seen.created,
        record,
        group.referenced,
        group.limit,
        number in own.parents,
        tuple(sorted(_snapshots(pool, name), key=lambda one: (one.created, one.number))),
    )


def is_subvolume(descriptor: int) -> bool:
    """Whether a folder is the root of a subvolume."""
    return os.fstat(descriptor).st_ino == _ROOT_INODE


def read_record(volume: int) -> Record | None:
    """What is noted of a volume."""
    try:
        return msgspec.json.decode(os.getxattr(volume, ATTRIBUTE), type=Record)
    except msgspec.DecodeError:
        return None
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None


def _snapshots(pool: int, volume: str) -> Iterator[SeenSnapshot]:
    try:
        with opened(SNAPSHOTS, pool) as all_, opened(volume, all_) as folder:
            for name in os.listdir(folder):
                with opened(name, folder) as snapshot:
                    if is_subvolume(snapshot):
                        seen = btrfs.subvolume(snapshot)
                        yield SeenSnapshot(name, seen.id, seen.uuid, seen.received, seen.created)
    except FileNotFoundError:
        return


def _idle(
    groups: dict[int, btrfs.Group], subvolumes: set[int], volumes: tuple[SeenVolume, ...]
) -> tuple[int, ...]:
    """Groups that count nothing, of subvolumes and volumes that are gone."""
    used = {btrfs.group_id(1, one.record.group) for one in volumes if one.record}
    empty = (number for number, group in groups.items() if not group.referenced)
    return tuple(sorted(one for one in empty if one not in used | subvolumes and one != btrfs.TOP_LEVEL))
