"""Which wishes can be granted; the others are refused by their field before anything is changed."""

from core0.linux import files
from core0.volumes.explain import in_words, no_snapshot, shown
from core0.volumes.model import SeenVolume
from core0.volumes.places import Place, Places
from core0.wire.control import RefusedError, conflict, invalid
from core0.wire.volumes import IoLimits, Origin, VolumeSpec

TAKEN = "choose another name"


def check_new(places: Places, place: Place, name: str, spec: VolumeSpec) -> None:
    """Whether a volume can be made on a pool."""
    others = places.holders(name)
    if others:
        raise conflict(f"cannot create volume {name} on pool {place.name}: pool {others[0]} has one", TAKEN)
    check_room(place, name, spec.size)
    if spec.origin:
        source = _source(places, place, name, spec.origin)
        if source.record and spec.size < source.record.size and spec.size < source.used:
            detail = f"cannot create volume {name}: {source.name} takes {in_words(source.used)}, a copy may as well"
            raise invalid(detail, f"give it {source.used} bytes at least", "/size")


def _source(places: Places, place: Place, name: str, origin: Origin) -> SeenVolume:
    source = place.find(origin.volume)
    if source is None:
        others = places.holders(origin.volume)
        if others:
            detail = f"cannot create volume {name}: volume {origin.volume} lies on pool {others[0]}"
            raise invalid(detail, "copy it there, or export and import it", "/pool")
        detail = f"cannot create volume {name}: there is no volume {origin.volume!a}"
        raise invalid(detail, "see 'zn volume ls'", "/from/volume")
    names = [one.name for one in source.snapshots]
    if origin.snapshot is not None and origin.snapshot not in names:
        detail = f"cannot create volume {name}: {source.name} has no snapshot {origin.snapshot!a}"
        raise invalid(detail, f"it has: {', '.join(names) or 'none'}", "/from/snapshot")
    return source


def check_room(place: Place, name: str, size: int) -> None:
    """Whether a pool could hold a volume at all."""
    most = place.seen.size if place.seen else 0
    if size > most:
        detail = f"cannot have volume {name} of {in_words(size)}: pool {place.name} has {in_words(most)}"
        raise invalid(detail, "choose a smaller size, or a larger pool", "/size")


def check_change(place: Place, seen: SeenVolume, spec: VolumeSpec) -> None:
    """Whether a volume can become as the spec says; a smaller size is another question (`too_small`)."""
    record = seen.record
    if record is None:
        why = shown(seen, "", "", None, ()).why
        raise conflict(f"cannot change volume {seen.name}: {why}", "see 'zn volume show'")
    if spec.origin is not None and spec.origin != record.origin:
        detail = f"cannot make volume {seen.name} a copy: it is there already"
        raise conflict(detail, "choose another name, or delete it first", "/from")
    check_room(place, seen.name, spec.size)


def too_small(name: str, size: int, used: int) -> RefusedError:
    """A volume cannot become smaller than what it takes."""
    detail = f"cannot shrink volume {name} to {in_words(size)}: it takes {in_words(used)}"
    return conflict(detail, f"delete files or snapshots first, or give it {used} bytes at least", "/size")


def check_memory(places: Places, name: str, spec: VolumeSpec, others: int) -> None:
    """Whether a volume can be in the node's memory, where others may take `others` bytes."""
    pools = places.holders(name)
    if pools:
        raise conflict(f"cannot create volume {name} in memory: pool {pools[0]} has one", TAKEN, "/pool")
    if spec.origin:
        detail = f"cannot create volume {name}: a volume in memory cannot be a copy"
        raise invalid(detail, "name the pool of what it is copied from", "/from")
    if spec.io != IoLimits():
        detail = f"cannot limit volume {name}: there is nothing to limit in memory"
        raise invalid(detail, "leave the limits out", "/io")
    total = memory_of_node()
    if spec.size + others > total:
        taken = f", other volumes may take {in_words(others)} of it" if others else ""
        has = f"the node has {in_words(total)} of memory{taken}"
        detail = f"cannot have volume {name} of {in_words(spec.size)}: {has}"
        raise invalid(detail, "choose a smaller size", "/size")


def memory_of_node() -> int:
    """Bytes (proc_meminfo(5))."""
    for line in files.read_text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    return 0


def check_snapshot(seen: SeenVolume, name: str) -> None:
    """Whether a volume has a snapshot."""
    if all(one.name != name for one in seen.snapshots):
        raise no_snapshot(seen.name, name)
