"""Which actions bring the disks from what is seen to what is wanted. Pure.

The rule above all others: what a disk holds is destroyed only where the operator named that very content. Nothing
else in this module may return a claim of a disk that is not blank, and nothing returns the end of a pool.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from core0.disks.model import (
    LEAST_SIZE,
    NEEDED,
    SPARE,
    Action,
    ClaimDisk,
    Known,
    KnownPool,
    MakePool,
    Mount,
    Release,
    RemakePool,
    Remount,
    Seen,
    SeenDisk,
    Unlock,
    Wanted,
)
from core0.disks.observe import find
from core0.wire.storage import MountOptions, PoolSpec, Selector


def plan(wanted: Wanted, known: Known, seen: Seen) -> tuple[Action, ...]:
    """The actions, in order; planning again after they were applied gives none.

    Args:
        wanted: what config and API want.
        known: what the node remembers to be its own.
        seen: the disks and pools as they are.
    """
    claims = _claims(wanted, known, seen)
    claimed = {claim.disk for claim in claims}
    kept = (_keep(name, wanted, known, seen) for name in sorted(known.pools))
    return (
        *claims,
        *_new_pools(wanted, known, seen, claimed),
        *(action for actions in kept for action in actions),
        *_remounts(wanted, known, seen),
    )


def own_disks(known: Known, seen: Seen) -> dict[str, SeenDisk]:
    """The node's own disks that are there, by claim. One that two disks carry is a copy: then neither is trusted."""
    carried = [disk for disk in seen.disks if disk.content and disk.content.claim in known.disks]
    often = Counter(disk.content.claim for disk in carried if disk.content)
    return {disk.content.claim: disk for disk in carried if disk.content and often[disk.content.claim] == 1}


def claimable(disk: SeenDisk, known: Known) -> str:
    """Why a disk cannot be claimed whatever it holds; "" if it can."""
    if disk.hung or disk.trouble:
        return disk.trouble
    if disk.waiting:
        return "it does not answer"
    if disk.content is None:
        return "it has not been looked at yet"
    if disk.facts.read_only:
        return "it is read-only"
    if disk.facts.size < LEAST_SIZE:
        return f"it has {disk.facts.size >> 20} MiB, and a pool needs {LEAST_SIZE >> 20} MiB of each disk"
    if disk.content.claim in known.disks:
        return "the node has it already"
    return ""


def is_strange(disk: SeenDisk, seen: Seen) -> bool:
    """Whether a disk remembers what only a newer image understands, perhaps more than is known of its pool."""
    return disk.content is not None and disk.content.state in seen.strange


def fits(selector: Selector, disk: SeenDisk) -> bool:
    """Whether a disk is one that a selector asks for, its count apart."""
    return (
        (not selector.serials or bool({disk.id, disk.facts.serial} & set(selector.serials)))
        and (not selector.media or disk.media in selector.media)
        and (not selector.bus or disk.facts.bus in selector.bus)
        and selector.min_size <= disk.facts.size
        and (selector.max_size is None or disk.facts.size <= selector.max_size)
    )


def candidates(
    spec: PoolSpec, known: Known, seen: Seen, claimed: Collection[str] = (), taken: Collection[str] = ()
) -> tuple[SeenDisk, ...]:
    """The disks that a new pool could be made of: the node's free ones first, then blank ones if it may have them.

    Args:
        spec: the pool's.
        known: what the node remembers.
        seen: the disks.
        claimed: disks (ids) that are about to be the node's.
        taken: disks (ids) that another pool is about to take.
    """
    own = own_disks(known, seen)
    free = [
        disk for claim, disk in own.items() if known.disks[claim].pool is None and not is_strange(disk, seen)
    ]
    free += [disk for disk in seen.disks if disk.id in claimed]
    blank = [disk for disk in seen.disks if spec.format_blank and disk not in free and _is_blank(disk, known)]
    found = [disk for disk in (*free, *blank) if disk.id not in taken and fits(spec.select, disk)]
    return tuple(found[: spec.select.count])


def _is_blank(disk: SeenDisk, known: Known) -> bool:
    return disk.content is not None and disk.content.blank and not claimable(disk, known)


def lacking(spec: PoolSpec, found: Sequence[SeenDisk]) -> int:
    """How many disks a new pool still wants."""
    return max(spec.select.count or 0, NEEDED[spec.profile]) - len(found)


def missing(name: str, pool: KnownPool, known: Known, seen: Seen) -> tuple[str, ...]:
    """The claims of a pool's disks that it has to do without.

    A copy of a disk that is plugged while the pool serves takes nothing from it; which is which must be clear before
    the next mount only. Nor does it lose one that was not looked at yet: a new node daemon has looked at none.
    """
    if name in seen.mounted:
        serving = seen.mounted[name]
        ahead = {disk.facts.device for disk in seen.disks if disk.content is None and not disk.trouble}
        found = {disk.content.claim for disk in seen.disks if disk.content}
        there = {claim for claim in serving.claims if claim in found or serving.devices.get(claim) in ahead}
    else:
        there = own_disks(known, seen).keys() - set(pool.stale)
    return tuple(claim for claim in pool.members if claim not in there)


def _claims(wanted: Wanted, known: Known, seen: Seen) -> list[ClaimDisk]:
    """The disks that hold what the operator gave up, word for word."""
    found: list[ClaimDisk] = []
    for name, content in sorted(wanted.claims.items()):
        disks = find(name, seen.disks)
        if len(disks) != 1 or claimable(disks[0], known) or not (holds := disks[0].content):
            continue
        if holds.id == content and disks[0].id not in {claim.disk for claim in found}:
            found.append(ClaimDisk(disks[0].id, content, holds.blank))
    return found


def _new_pools(wanted: Wanted, known: Known, seen: Seen, claimed: set[str]) -> Iterator[Action]:
    """Pools that are wanted and not known, once every disk has been looked at: none is made with half its disks."""
    taken: set[str] = set()
    for name, pool in sorted(wanted.pools.items()) if seen.settled else ():
        found = candidates(pool.spec, known, seen, claimed, taken)
        locked = pool.spec.encryption is not None and name not in wanted.keys
        if name in known.pools or lacking(pool.spec, found) > 0 or locked:
            continue
        for disk in found:
            if disk.content and disk.content.claim not in known.disks and disk.id not in claimed:
                yield ClaimDisk(disk.id, disk.content.id, blank=True, pool=name)
        yield MakePool(name, pool.spec, tuple(disk.id for disk in found))
        yield Mount(name, pool.spec.mount)
        taken |= {disk.id for disk in found}


def _keep(name: str, wanted: Wanted, known: Known, seen: Seen) -> Iterator[Action]:
    """What brings a known pool to serve: making it if that was interrupted, unlocking, mounting."""
    pool = known.pools[name]
    gone, own = missing(name, pool, known, seen), own_disks(known, seen)
    if name in seen.mounted:
        if len(gone) > SPARE[pool.profile]:
            yield Release(name)
        return
    if any(is_strange(disk, seen) for claim, disk in own.items() if claim in pool.members):
        return
    comes = [claim for claim in (pool.replacing or ())[1:] if claim in own]
    there = dict.fromkeys((*(claim for claim in pool.members if claim not in gone), *comes))
    locked = [claim for claim in there if pool.encryption and claim not in seen.unlocked]
    if locked and name not in wanted.keys:
        return
    options = wanted.pools[name].spec.mount if name in wanted.pools else MountOptions()
    if not pool.made:
        yield from () if gone else (RemakePool(name), Mount(name, options))
        return
    may_come = set(gone) - set(pool.stale)
    if len(gone) > SPARE[pool.profile] or (may_come and (seen.patient or not seen.settled)):
        return
    yield from (Unlock(name, claim) for claim in locked)
    yield Mount(name, options, degraded=bool(gone))


def _remounts(wanted: Wanted, known: Known, seen: Seen) -> Iterator[Action]:
    for name, pool in sorted(wanted.pools.items()):
        mounted = seen.mounted.get(name)
        if not mounted or name not in known.pools or mounted.options == pool.spec.mount:
            continue
        if len(missing(name, known.pools[name], known, seen)) <= SPARE[known.pools[name].profile]:
            yield Remount(name, pool.spec.mount)
