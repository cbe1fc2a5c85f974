"""What is said of volumes: what they are to people, and why a wish cannot be granted."""

import errno

from core0.linux.worker import HungError
from core0.volumes.memory import Kept
from core0.volumes.model import SeenPool, SeenVolume
from core0.wire.control import Refusal, RefusedError, absent, conflict
from core0.wire.volumes import IoLimits, Snapshot, Volume, VolumeState

_FULL = "delete files, snapshots or volumes, or give it more room"
_READ_ONLY = "the file system stopped writing after an error; see 'zn pool show' and the disks' errors"


def shown(
    seen: SeenVolume, pool: str, trouble: str, state: SeenPool | None, containers: tuple[str, ...]
) -> Volume:
    """A volume of a pool as the API shows it.

    Args:
        seen: the volume.
        pool: where it lies.
        trouble: why the pool cannot be used; empty if it can.
        state: the pool.
        containers: that have it in their spec.
    """
    record = seen.record
    how, why = _state(seen, pool, trouble, state)
    return Volume(
        name=seen.name,
        pool=pool,
        state=how,
        why=why,
        size=record.size if record else 0,
        used=seen.used,
        io=record.io if record else IoLimits(),
        created=seen.created,
        origin=record.origin if record else None,
        snapshots=tuple(Snapshot(one.name, one.created, one.uuid, one.received) for one in seen.snapshots),
        containers=containers,
    )


def _state(seen: SeenVolume, pool: str, trouble: str, state: SeenPool | None) -> tuple[VolumeState, str]:
    if trouble:
        return "offline", trouble
    if seen.record is None:
        return "failed", "nothing is noted of it that can be understood; copy its files to another volume"
    if state and not (state.quota and state.simple):
        return "failed", f"pool {pool} has quota of another kind, so its size would not hold"
    return "ready", "it can be used"


def shown_of_memory(name: str, kept: Kept, used: int, containers: tuple[str, ...]) -> Volume:
    """A volume in memory as the API shows it."""
    why = "it can be used; it lies in the node's memory and ends with this boot"
    return Volume(
        name, None, "ready", why, kept.spec.size, used, IoLimits(), kept.created, None, (), containers
    )


def in_words(count: int) -> str:
    """Bytes for people: no digit more than is needed to see the difference to a size that they wrote."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.2f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{count} bytes"


def refusal_of(error: OSError, doing: str, pool: str) -> RefusedError:
    """Why something could not be done on a pool, with what to do about it."""
    cause = str(error.strerror or error)
    if isinstance(error, HungError):
        detail = f"cannot {doing}: pool {pool} does not answer: {error}"
        return RefusedError(
            Refusal(
                503, "unavailable", detail, "see its disks with 'zn disk ls', then look whether it was done"
            )
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        room = f"pool {pool} is full" if error.errno == errno.ENOSPC else "it is full"
        return RefusedError(Refusal(507, "full", f"cannot {doing}: {room} ({cause})", _FULL))
    if error.errno == errno.EROFS:
        return conflict(f"cannot {doing}: pool {pool} is read-only ({cause})", _READ_ONLY)
    return conflict(f"cannot {doing}: {cause}", f"see 'zn pool show {pool}' and the node's events")


def no_volume(name: str) -> RefusedError:
    """There is no such volume."""
    detail = f"cannot find volume {name[:80]!a}: there is none"
    return absent(detail, "see 'zn volume ls'")


def no_snapshot(volume: str, name: str) -> RefusedError:
    """There is no such snapshot."""
    detail = f"cannot find snapshot {name[:80]!a} of volume {volume}: there is none"
    return absent(detail, f"see 'zn volume show {volume}'")
