"""Disks and pools as the API shows them. Pure."""

from collections.abc import Collection, Iterable, Mapping

from core0.disks.explain import explain_disk, explain_pool
from core0.disks.model import Figures, Known, KnownPool, Seen, SeenDisk, Wanted
from core0.disks.plan import own_disks
from core0.wire.storage import Disk, Pool, PoolMember, Signature, public
from core0.wire.types import Check


def show_disk(disk: SeenDisk, known: Known, seen: Seen) -> Disk:
    """A disk for the API."""
    state, why, pool = explain_disk(disk, known, seen)
    facts, content = disk.facts, disk.content
    signatures = content.signatures if content else ()
    return Disk(
        id=disk.id,
        device=facts.device,
        serial=facts.serial,
        wwn=facts.wwn,
        model=facts.model,
        firmware=facts.firmware,
        bus=facts.bus,
        media=disk.media,
        size=facts.size,
        logical_sector=facts.logical_sector,
        physical_sector=facts.physical_sector,
        read_only=facts.read_only,
        removable=facts.removable,
        state=state,
        why=why,
        pool=pool,
        holds=tuple(Signature(one.device, one.type, one.label, one.uuid) for one in signatures),
        content=content.id if content else "",
        health=disk.health,
    )


def show_pool(
    name: str,
    wanted: Wanted,
    known: Known,
    seen: Seen,
    failures: Mapping[str, str],
    figures: Figures | None,
    erred: Collection[str],
) -> Pool:
    """A pool for the API; its passphrase is nobody's to see."""
    pool, wish = known.pools.get(name), wanted.pools.get(name)
    made = pool or (wish.spec if wish else None)
    numbers = figures or Figures()
    state, why = explain_pool(name, wanted, known, seen, failures, numbers, erred)
    return Pool(
        name=name,
        id=pool.uuid if pool else "",
        state=state,
        why=why,
        spec=public(wish.spec) if wish else None,
        source=wish.source if wish else "none",
        profile=made.profile if made else "single",
        encryption=made.encryption.key if made and made.encryption else None,
        members=_members(pool, known, seen, numbers) if pool else (),
        size=numbers.size,
        used=numbers.used,
        free=numbers.free,
        scrub=pool.scrub if pool else None,
    )


def _members(pool: KnownPool, known: Known, seen: Seen, figures: Figures) -> tuple[PoolMember, ...]:
    own = own_disks(known, seen)
    return tuple(_member(claim, own, known, figures) for claim in pool.members)


def _member(claim: str, own: Mapping[str, SeenDisk], known: Known, figures: Figures) -> PoolMember:
    disk, numbers = known.disks.get(claim), figures.members.get(claim, (0, 0, 0))
    failing = claim in own and (health := own[claim].health) is not None and not health.ok
    state = "missing" if claim not in own else "failing" if failing else "online"
    size, used, errors = numbers
    return PoolMember(
        disk.id if disk else claim,
        state,  # type: ignore[arg-type]  # one of its three words
        size or (disk.size if disk else 0),
        used,
        errors,
    )


def check_disks(disks: Iterable[Disk]) -> Check:
    """Whether the disks are well."""
    bad = [f"{disk.id} ({disk.state})" for disk in disks if disk.state in ("failing", "hung")]
    return Check("disks", not bad, f"disks that fail or hang: {', '.join(bad) or 'none'}")


def check_pools(pools: Iterable[Pool]) -> Check:
    """Whether the pools are well; one that waits for its passphrase or its disks is."""
    bad = [f"{pool.name} ({pool.state})" for pool in pools if pool.state in ("degraded", "offline", "failed")]
    return Check("pools", not bad, f"pools in trouble: {', '.join(bad) or 'none'}")
