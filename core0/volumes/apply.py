"""Carries out actions on a mounted pool: the only module here that changes one. Call it in the worker: disks hang.

What a call did is on the disks when it returns. Whatever becomes visible does so by one rename or one snapshot, which
the file system's transaction has whole or not at all; before, it lies in `incoming` under a name of its own.
"""

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Iterator

import msgspec

from core0.linux import btrfs, files, mounts
from core0.volumes.model import (
    FOLDERS,
    INCOMING,
    SNAPSHOTS,
    VOLUMES,
    Action,
    AdoptImport,
    Clone,
    Create,
    DeleteSnapshot,
    DeleteVolume,
    DropGroup,
    EnableQuota,
    MakeFolders,
    Record,
    Regroup,
    Repair,
    RollBack,
    SeenPool,
    SeenVolume,
    SetRecord,
    Sweep,
    TakeSnapshot,
)
from core0.volumes.observe import (
    ATTRIBUTE,
    is_subvolume,
    observe,
    observe_volume,
    opened,
    read_record,
)
from core0.wire.volumes import Origin


def repair(root: str, actions: tuple[Action, ...]) -> SeenPool:
    """Carry out actions on the pool mounted at `root`; returns what is there afterwards."""
    _carry_out(root, actions)
    return observe(root)


def change(root: str, actions: tuple[Action, ...], name: str) -> SeenVolume | None:
    """Carry out actions; returns what the volume of that name is afterwards, None if it is gone."""
    _carry_out(root, actions)
    return observe_volume(root, name)


def hand_out(root: str, name: str, answer: int) -> None:
    """Send a detached mount of a volume over the socket `answer`."""
    with opened(root) as pool, opened(VOLUMES, pool) as volumes, opened(name, volumes) as volume:
        if not is_subvolume(volume):
            raise OSError(errno.EINVAL, f"cannot mount volume {name}: it is no subvolume")
        mount = mounts.clone_tree("", directory=volume)
    with socket.socket(fileno=answer) as way:
        socket.send_fds(way, [b"mount"], [mount])


def stage(root: str, entry: str, group: int, size: int) -> None:
    """Make the subvolume `entry` of `incoming` that something is received in.

    Args:
        root: where the pool is mounted.
        entry: its name.
        group: number of the quota group that it counts to; 0 makes one of its own.
        size: limit of that one.
    """
    with opened(root) as pool, opened(INCOMING, pool) as incoming:
        btrfs.create_subvolume(incoming, entry)
        with opened(entry, incoming) as made:
            own = btrfs.subvolume(made).id
            if not group:
                _make_group(pool, Record(size, own))
            btrfs.assign_group(pool, own, btrfs.group_id(1, group or own))
        btrfs.commit(pool)


def _carry_out(root: str, actions: tuple[Action, ...]) -> None:
    with opened(root) as pool:
        for action in actions:
            _do(pool, action)
        if not all(isinstance(action, TakeSnapshot) for action in actions):  # the kernel commits each itself
            btrfs.commit(pool)


def _do(pool: int, action: Action) -> None:
    match action:
        case Create():
            _create(pool, action)
        case Clone():
            _clone(pool, action)
        case TakeSnapshot(volume, name):
            _take_snapshot(pool, volume, name)
        case DeleteSnapshot(volume, name):
            _delete_snapshot(pool, volume, name)
        case DeleteVolume(name):
            _delete_volume(pool, name)
        case RollBack(volume, snapshot):
            _roll_back(pool, volume, snapshot)
        case AdoptImport():
            _adopt_import(pool, action)
        case _:
            _put_in_order(pool, action)


def _put_in_order(pool: int, action: Repair) -> None:
    match action:
        case MakeFolders():
            _make_folders(pool)
        case EnableQuota():
            btrfs.enable_quota(pool, simple=True)
        case Regroup(name, record):
            _regroup(pool, name, record)
        case SetRecord(name, record):
            _set_record(pool, name, record)
        case Sweep(folder, entry):
            _sweep(pool, folder, entry)
        case DropGroup(group):
            _drop_group(pool, group)


def _make_folders(pool: int) -> None:
    for name in FOLDERS:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=pool)


def _create(pool: int, action: Create) -> None:
    with opened(VOLUMES, pool) as volumes, _staged(pool) as (incoming, name):
        _refuse_existing(volumes, action.name)
        btrfs.create_subvolume(incoming, name)
        with opened(name, incoming) as made:
            number = btrfs.subvolume(made).id
            record = Record(action.size, number, action.io)
            _make_group(pool, record)
            btrfs.assign_group(pool, number, btrfs.group_id(1, number))
            os.fchmod(made, 0o755)
            write_record(made, record)
        os.rename(name, action.name, src_dir_fd=incoming, dst_dir_fd=volumes)


def _clone(pool: int, action: Clone) -> None:
    with opened(VOLUMES, pool) as volumes, _staged(pool) as (incoming, name):
        _refuse_existing(volumes, action.name)
        with _origin(pool, action.origin) as source:
            btrfs.create_snapshot(incoming, name, source, read_only=False)
        shared = _taken(pool, volumes, action.origin.volume)
        with opened(name, incoming) as made:
            seen = btrfs.subvolume(made)
            record = Record(action.size, seen.id, action.io, action.origin, seen.made, shared)
            _make_group(pool, record)
            btrfs.assign_group(pool, seen.id, btrfs.group_id(1, seen.id))
            write_record(made, record)
        os.rename(name, action.name, src_dir_fd=incoming, dst_dir_fd=volumes)


def _taken(pool: int, volumes: int, name: str) -> int:
    """What a volume takes of its size: its copy cannot have more of it. Right after a snapshot, which commits."""
    with opened(name, volumes) as volume:
        record = _record_of(name, volume)
    number = btrfs.group_id(1, record.group)
    return btrfs.groups(pool, {number})[number].referenced + record.shared


def _roll_back(pool: int, volume: str, snapshot: str) -> None:
    """The volume's earlier self goes to `incoming`, in whose place the new one comes at the same moment."""
    with opened(VOLUMES, pool) as volumes, _staged(pool) as (incoming, name):
        with opened(volume, volumes) as before:
            record = _record_of(volume, before)
        group = btrfs.group_id(1, record.group)
        with _origin(pool, Origin(volume, snapshot)) as source:
            btrfs.create_snapshot(incoming, name, source, read_only=False)
        with opened(name, incoming) as made:
            write_record(made, record)
            btrfs.assign_group(pool, btrfs.subvolume(made).id, group)  # last: the group may be full
        files.exchange(incoming, name, volumes, volume)


def _adopt_import(pool: int, action: AdoptImport) -> None:
    """The snapshot first: without its volume it is nobody's, and swept away."""
    with (
        opened(INCOMING, pool) as incoming,
        opened(action.entry, incoming) as place,
        opened(action.received, place) as source,
    ):
        if not (is_subvolume(source) and btrfs.is_read_only(source) and btrfs.subvolume(source).received):
            raise OSError(errno.EINVAL, "what was received is no whole snapshot")
        if action.spec is None:
            _keep_snapshot(pool, action, source, _group_of(pool, action.volume))
            return
        record = Record(action.spec.size, btrfs.subvolume(place).id, action.spec.io)
        with opened(VOLUMES, pool) as volumes, _staged(pool) as (_, name):
            _refuse_existing(volumes, action.volume)
            group = btrfs.group_id(1, record.group)
            btrfs.create_snapshot(incoming, name, source, read_only=False, groups=[group])
            with opened(name, incoming) as made:
                write_record(made, record)
            _keep_snapshot(pool, action, source, group)
            os.rename(name, action.volume, src_dir_fd=incoming, dst_dir_fd=volumes)


def _group_of(pool: int, volume: str) -> int:
    with opened(VOLUMES, pool) as volumes, opened(volume, volumes) as one:
        return btrfs.group_id(1, _record_of(volume, one).group)


def _keep_snapshot(pool: int, action: AdoptImport, source: int, group: int) -> None:
    """A read-only subvolume cannot be moved to another folder; a snapshot of it keeps where it came from."""
    with opened(SNAPSHOTS, pool) as all_:
        with contextlib.suppress(FileExistsError):
            os.mkdir(action.volume, 0o700, dir_fd=all_)
        with opened(action.volume, all_) as folder:
            btrfs.create_snapshot(folder, action.snapshot, source, read_only=True, groups=[group])


@contextlib.contextmanager
def _staged(pool: int) -> Iterator[tuple[int, str]]:
    """The folder `incoming` and a fresh name in it; a subvolume that is left there after a failure is deleted."""
    name = secrets.token_hex(8)
    with opened(INCOMING, pool) as incoming:
        try:
            yield incoming, name
        except BaseException:
            with contextlib.suppress(OSError):  # what cannot be deleted now is swept away later
                btrfs.delete_subvolume(incoming, name)
            raise


@contextlib.contextmanager
def _origin(pool: int, origin: Origin) -> Iterator[int]:
    """The root folder of a volume, or of its snapshot."""
    with contextlib.ExitStack() as stack:
        if origin.snapshot is None:
            folder, name = stack.enter_context(opened(VOLUMES, pool)), origin.volume
        else:
            all_ = stack.enter_context(opened(SNAPSHOTS, pool))
            folder, name = stack.enter_context(opened(origin.volume, all_)), origin.snapshot
        yield stack.enter_context(opened(name, folder))


def _refuse_existing(folder: int, name: str) -> None:
    """Rename would take the place of an empty folder."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise FileExistsError(errno.EEXIST, f"cannot create {name}: there is one")


def _make_group(pool: int, record: Record) -> None:
    group = btrfs.group_id(1, record.group)
    with contextlib.suppress(FileExistsError):
        btrfs.create_group(pool, group)
    btrfs.limit_group(pool, group, record.limit)


def write_record(volume: int, record: Record) -> None:
    """Note something of a volume, given by its root folder."""
    os.setxattr(volume, ATTRIBUTE, msgspec.json.encode(record))


def _record_of(name: str, volume: int) -> Record:
    record = read_record(volume)
    if record is None:
        raise OSError(
            errno.EINVAL, f"cannot change volume {name}: nothing that is noted of it can be understood"
        )
    return record


def _set_record(pool: int, name: str, record: Record) -> None:
    """Without a limit for a moment: a full volume could not take the record."""
    group = btrfs.group_id(1, record.group)
    with opened(VOLUMES, pool) as volumes, opened(name, volumes) as volume:
        with contextlib.suppress(FileExistsError):
            btrfs.create_group(pool, group)
        btrfs.limit_group(pool, group, None)
        try:
            write_record(volume, record)
        finally:
            btrfs.limit_group(pool, group, record.limit)


def _regroup(pool: int, name: str, record: Record) -> None:
    """Quota was off for a while, or another system turned it on: groups are gone, or know nobody."""
    _make_group(pool, record)
    group = btrfs.group_id(1, record.group)
    for number in _numbers(pool, name):
        with contextlib.suppress(FileExistsError):
            btrfs.assign_group(pool, number, group)


def _numbers(pool: int, name: str) -> Iterator[int]:
    """The subvolumes of a volume: its own, those of its snapshots."""
    with opened(VOLUMES, pool) as volumes, opened(name, volumes) as volume:
        yield btrfs.subvolume(volume).id
    with (
        contextlib.suppress(FileNotFoundError),
        opened(SNAPSHOTS, pool) as all_,
        opened(name, all_) as folder,
    ):
        for snapshot in os.listdir(folder):
            with opened(snapshot, folder) as one:
                yield btrfs.subvolume(one).id


def _take_snapshot(pool: int, volume: str, name: str) -> None:
    with (
        opened(VOLUMES, pool) as volumes,
        opened(volume, volumes) as source,
        opened(SNAPSHOTS, pool) as all_,
    ):
        record = _record_of(volume, source)
        with contextlib.suppress(FileExistsError):
            os.mkdir(volume, 0o700, dir_fd=all_)
        with opened(volume, all_) as folder:
            group = btrfs.group_id(1, record.group)
            btrfs.create_snapshot(folder, name, source, read_only=True, groups=[group])


def _delete_snapshot(pool: int, volume: str, name: str) -> None:
    with opened(SNAPSHOTS, pool) as all_, opened(volume, all_) as folder:
        btrfs.delete_subvolume(folder, name)


def _delete_volume(pool: int, name: str) -> None:
    """Out of sight at once; what is in `incoming`, and snapshots of no volume, are swept away then."""
    try:
        _put_out_of_sight(pool, name)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _delete_in_place(pool, name)


def _put_out_of_sight(pool: int, name: str) -> None:
    gone = secrets.token_hex(8)
    with opened(INCOMING, pool) as incoming:
        with opened(VOLUMES, pool) as volumes:
            os.rename(name, gone, src_dir_fd=volumes, dst_dir_fd=incoming)
        with contextlib.suppress(FileNotFoundError), opened(SNAPSHOTS, pool) as all_:
            os.rename(name, f"{gone}.snapshots", src_dir_fd=all_, dst_dir_fd=incoming)


def _delete_in_place(pool: int, name: str) -> None:
    """On a full pool: the kernel gives its reserve to what deletes (btrfs_delete_subvolume), not to a rename."""
    for folder in (VOLUMES, SNAPSHOTS):
        with contextlib.suppress(FileNotFoundError), opened(folder, pool) as all_:
            _delete_tree(pool, all_, name)


def _sweep(pool: int, folder: str, entry: str) -> None:
    with opened(folder, pool) as place:
        _delete_tree(pool, place, entry)


def _delete_tree(pool: int, folder: int, name: str) -> None:
    """Delete a subvolume with those inside it, or a folder with what is in it, or a file."""
    try:
        with opened(name, folder) as one:
            if is_subvolume(one):
                number = btrfs.subvolume(one).id
            else:
                for entry in os.listdir(one):
                    _delete_tree(pool, one, entry)
                number = 0
    except NotADirectoryError:
        os.unlink(name, dir_fd=folder)
        return
    if not number:
        os.rmdir(name, dir_fd=folder)
        return
    inner = tuple(_inside(btrfs.subvolumes(pool), number))
    if inner:
        _free_of_limits(pool, number)
    for inside in inner:
        btrfs.delete_subvolume_by_number(pool, inside)
    btrfs.delete_subvolume(folder, name)


def _free_of_limits(pool: int, number: int) -> None:
    """Taking an entry out of a subvolume needs a little of its quota, which may be used up."""
    for group in btrfs.groups(pool, {number}).get(number, btrfs.Group()).parents:
        btrfs.unassign_group(pool, number, group)


def _inside(subvolumes: dict[int, tuple[int, str]], number: int) -> Iterator[int]:
    """The subvolumes whose entries are in one, the innermost first."""
    for one, (parent, _) in subvolumes.items():
        if parent == number:
            yield from _inside(subvolumes, one)
            yield one


def _drop_group(pool: int, group: int) -> None:
    """One that its kernel still counts in, or dropped itself, is left."""
    try:
        btrfs.delete_group(pool, group)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOENT):
            raise
