"""One plain sentence for each disk and each pool: what it is used for, or why not and what to do. Pure."""

from collections.abc import Collection, Mapping, Sequence

from core0.disks.model import NEEDED, SPARE, Content, Figures, Known, KnownPool, Seen, SeenDisk, Wanted
from core0.disks.plan import candidates, claimable, fits, is_strange, lacking, missing, own_disks
from core0.wire.state import NEWER_IMAGE
from core0.wire.storage import DiskState, PoolSpec, PoolState

# What blkid calls a GPT of which only the record is readable that protects it from old programs.
_TABLES = {"PMBR": "a broken GPT partition table"}

_READ_ONLY = "its files can only be read: the kernel stopped writing to it after an error"

# So many other disks a sentence mentions.
_TOLD = 3
# A disk's state, its sentence, its pool.
Verdict = tuple[DiskState, str, str | None]


def explain_disk(disk: SeenDisk, known: Known, seen: Seen) -> Verdict:
    """What a disk is to this node, and why."""
    if disk.hung:
        return "hung", f"it is left alone: {disk.trouble}; look at its cable and power, or take it out", None
    if disk.trouble:
        return "unusable", f"it cannot be used: {disk.trouble}; replace it if that stays", None
    if disk.content is None:
        return "probing", seen.busy.get(disk.facts.device, "it is being looked at"), None
    state, why, pool = _explain_content(disk, disk.content, known, seen)
    if disk.waiting:
        said = f"it does not answer, and {disk.waiting} requests wait for it; look at its cable and power"
        return "hung", f"{said}; {why}", pool
    if disk.health and not disk.health.ok:
        return "failing", f"it predicts its failure ({disk.health.why}); replace it; {why}", pool
    return state, why, pool


def _explain_content(disk: SeenDisk, content: Content, known: Known, seen: Seen) -> Verdict:
    if content.state in seen.strange:
        said = f"what it remembers of its node is not understood: {seen.strange[content.state]}"
        return "foreign", f"it is not touched: {said}; {NEWER_IMAGE}", None
    if content.claim in known.disks:
        return _explain_own(content, known, seen)
    refused = claimable(disk, known)
    if refused:
        return "unusable", f"it is not used: {refused}", None
    if content.claim:
        said = "it was claimed by another node, or by this one before it lost its state"
        remedy = (
            f"'zn node adopt {disk.id}' makes this machine that node, 'zn disk adopt {disk.id}' takes the disk over "
            f"as it is, 'zn disk claim {disk.id} --wipe' destroys it"
        )
        return "foreign", f"it is not touched: {said}; {remedy}", None
    if content.blank:
        return "unclaimed", f"it is blank; 'zn disk claim {disk.id}' gives it to the node", None
    remedy = f"'zn disk claim {disk.id} --wipe' destroys that and gives it to the node"
    return "unclaimed", f"it is not touched: it holds {describe(content)}; {remedy}", None


def _explain_own(content: Content, known: Known, seen: Seen) -> Verdict:
    if content.claim not in own_disks(known, seen):
        said = "another disk carries the same claim: one is a copy, or both are ways to one disk"
        return "unusable", f"it is not used: {said}; take one of them out", None
    pool = known.disks[content.claim].pool
    if pool is None:
        return "free", "the node has it, and no pool uses it yet", None
    late = pool in seen.mounted and content.claim not in seen.mounted[pool].claims
    if late or content.claim in known.pools[pool].stale:
        said = f"it came back after pool {pool} had gone on without it, and what it holds is old"
        return "in-use", f"{said}; 'zn pool replace {pool}' with it as old and new rebuilds it", pool
    return "in-use", f"it is in use by pool {pool}", pool


def describe(content: Content) -> str:
    """What a disk holds, in words."""
    found = [_in_words(one.type, one.label, one.device) for one in content.signatures]
    if content.table:
        inner = f" with {' and '.join(found)}" if found else ""
        return f"{_TABLES.get(content.table, f'a {content.table.upper()} partition table')}{inner}"
    return " and ".join(found) or "data without a known signature"


def _in_words(kind: str, label: str, device: str) -> str:
    article = "an" if kind[:1].lower() in "aeiou" else "a"
    name = f" labelled {label!a}" if label else ""
    return f"{article} {kind} signature{name} on {device}"


def explain_pool(
    name: str,
    wanted: Wanted,
    known: Known,
    seen: Seen,
    failures: Mapping[str, str],
    figures: Figures = Figures(),  # noqa: B008 — frozen
    erred: Collection[str] = (),
) -> tuple[PoolState, str]:
    """Whether a pool serves, and why.

    Args:
        name: the pool's.
        wanted: what config and API want.
        known: what the node remembers.
        seen: disks and pools as they are.
        failures: by pool, what went wrong the last time that something was tried for it.
        figures: of the pool, if it serves.
        erred: its members that made errors which no scrub has seen to, by claim.
    """
    pool = known.pools.get(name)
    if pool is None:
        return _explain_unmade(name, wanted, known, seen, failures)
    gone = missing(name, pool, known, seen)
    if len(gone) > SPARE[pool.profile]:
        return _explain_lack(name, pool, known, seen, gone)
    if name not in seen.mounted:
        return _explain_unmounted(name, pool, wanted, known, seen, failures, gone)
    if gone and not figures.read_only:
        return "degraded", _explain_degraded(name, known, seen, gone)
    return _explain_whole(name, pool, known, figures, erred)


def _explain_lack(
    name: str, pool: KnownPool, known: Known, seen: Seen, gone: Sequence[str]
) -> tuple[PoolState, str]:
    spare = SPARE[pool.profile]
    if name not in seen.served and set(gone) - set(pool.stale) and (seen.patient or not seen.settled):
        return "waiting", f"{_lacks(gone, known, seen)}; they may still come"
    few = f"serves without {spare} of its disks at most" if spare else "needs all its disks"
    return "offline", f"{_lacks(gone, known, seen)}, and {pool.profile} {few}; plug what is missing"


def _explain_unmounted(
    name: str,
    pool: KnownPool,
    wanted: Wanted,
    known: Known,
    seen: Seen,
    failures: Mapping[str, str],
    gone: Sequence[str],
) -> tuple[PoolState, str]:
    """Why a pool is not mounted that could be."""
    own = own_disks(known, seen)
    newer = [claim for claim in pool.members if claim in own and is_strange(own[claim], seen)]
    if newer:
        said = f"{_names(newer, known)} may know more of it than this image understands"
        return "offline", f"it is not touched: {said}; {NEWER_IMAGE}"
    if name in failures:
        return "failed", failures[name]
    if pool.encryption and name not in wanted.keys:
        if pool.encryption.key == "tpm2":
            return "waiting", "the machine's TPM is asked for its key"
        return "waiting", f"it is encrypted; 'zn pool unlock {name}' takes its passphrase"
    if set(gone) - set(pool.stale):
        return "waiting", f"{_lacks(gone, known, seen)}; it serves without them once they had time to come"
    return "waiting", "it is being mounted"


def _explain_degraded(name: str, known: Known, seen: Seen, gone: tuple[str, ...]) -> str:
    if own_disks(known, seen).keys() >= set(gone):
        return f"it serves without {_names(gone, known)}, which came back; 'zn pool replace {name}'"
    remedy = f"plug what is missing, or 'zn pool replace {name}'"
    return f"it serves, but {_lacks(gone, known, seen)}; {remedy}"


def _explain_whole(
    name: str, pool: KnownPool, known: Known, figures: Figures, erred: Collection[str]
) -> tuple[PoolState, str]:
    if figures.read_only:
        return "failed", f"{_READ_ONLY}; look at its disks and their errors, then 'zn node reboot'"
    if figures.full:
        what = "it is full" if figures.full == "data" else "its metadata is full, so it takes nothing more"
        return "online", f"it serves, but {what}; delete files, snapshots or volumes"
    if erred:
        lost = (
            "corrects what it can" if SPARE[pool.profile] else "counts what is lost, for no other disk has it"
        )
        made = f"{_names(tuple(sorted(erred)), known)} made errors"
        return "online", f"it serves, but {made}; 'zn pool scrub {name}' {lost}"
    several = len(pool.members) > 1
    return "online", f"it serves, with all {len(pool.members)} disks" if several else "it serves"


def _explain_unmade(
    name: str, wanted: Wanted, known: Known, seen: Seen, failures: Mapping[str, str]
) -> tuple[PoolState, str]:
    if name in failures:
        return "failed", failures[name]
    spec = wanted.pools[name].spec
    found = candidates(spec, known, seen)
    few = lacking(spec, found)
    if few > 0:
        have = f"{len(found)} of {len(found) + few} disks that fit are free"
        free = (
            ""
            if spec.format_blank
            else "; blank disks are taken only with format_blank, or by a claim of each"
        )
        need = f", and {spec.profile} needs {NEEDED[spec.profile]}" if spec.profile != "single" else ""
        return "waiting", f"{have}{need}{free}{_others(spec, found, known, seen)}"
    if not seen.settled:
        return "waiting", "the disks are being looked at"
    if spec.encryption and name not in wanted.keys:
        return "waiting", f"its disks will be encrypted; 'zn pool unlock {name}' takes the passphrase"
    return "waiting", "it is being made"


def _others(spec: PoolSpec, found: Sequence[SeenDisk], known: Known, seen: Seen) -> str:
    """Why the disks that fit, and are not free, are not: the first few."""
    others = [disk for disk in seen.disks if fits(spec.select, disk) and disk not in found]
    told = [f"{disk.id}: {explain_disk(disk, known, seen)[1]}" for disk in others[:_TOLD]]
    left = [f"and {len(others) - _TOLD} more; 'zn disk ls' shows them"] if len(others) > _TOLD else []
    return "".join(f"; {one}" for one in (*told, *left))


def _lacks(gone: Sequence[str], known: Known, seen: Seen) -> str:
    """Which disks are missing, and which are there with an old state."""
    own = own_disks(known, seen)
    away = tuple(claim for claim in gone if claim not in own)
    late = tuple(claim for claim in gone if claim in own)
    return " and ".join(
        [
            *([f"{_disks(away, known)} missing"] if away else []),
            *([f"{_names(late, known)} came back with an old state"] if late else []),
        ]
    )


def _disks(claims: tuple[str, ...], known: Known) -> str:
    return f"{'disk' if len(claims) == 1 else 'disks'} {_names(claims, known)} {'is' if len(claims) == 1 else 'are'}"


def _names(claims: Sequence[str], known: Known) -> str:
    return ", ".join(known.disks[claim].id if claim in known.disks else claim[:8] for claim in claims)
