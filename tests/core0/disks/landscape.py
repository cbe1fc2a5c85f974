"""Disk landscapes for tests of the pure parts, and the world in which a plan's actions have their effect at once."""

import uuid
from dataclasses import dataclass, replace

import msgspec
from hypothesis import strategies as st

from core0.disks.model import (
    Action,
    ClaimDisk,
    Content,
    Facts,
    Known,
    KnownDisk,
    KnownPool,
    MakePool,
    Mount,
    Release,
    RemakePool,
    Remount,
    Seen,
    SeenDisk,
    SeenPool,
    Signature,
    Unlock,
    Wanted,
    WantedPool,
)
from core0.wire.storage import Encryption, MountOptions, PoolSpec, Selector

GIB = 1 << 30


def facts(device: str, size: int = 10 * GIB, **other: object) -> Facts:
    """A disk that is all right."""
    said = {
        "place": f"pci-{device}",
        "serial": f"S{device}",
        "wwn": "",
        "model": "model",
        "firmware": "1",
        "bus": "ata",
        "rotational": False,
        "size": size,
        "logical_sector": 512,
        "physical_sector": 4096,
        "read_only": False,
        "removable": False,
    }
    return msgspec.convert({"device": device, **said, **other}, Facts)


def blank(name: str, **other: object) -> SeenDisk:
    """A blank disk."""
    return SeenDisk(f"ata-{name}", facts(name, **other), "ssd", Content(f"blank{name}", blank=True))


def foreign(name: str, kind: str = "ext4", label: str = "Y") -> SeenDisk:
    """A disk that holds a stranger's file system."""
    content = Content(f"held{name}", signatures=(Signature(name, kind, label),))
    return SeenDisk(f"ata-{name}", facts(name), "ssd", content)


def claimed(name: str, claim: str) -> SeenDisk:
    """A disk with a claim on it; whose, the node knows."""
    content = Content(f"claim{claim}", table="gpt", claim=claim, state=f"/dev/{name}1", data=f"/dev/{name}2")
    return SeenDisk(f"ata-{name}", facts(name), "ssd", content)


@dataclass(frozen=True)
class World:
    """What a plan is made for."""

    wanted: Wanted
    known: Known
    seen: Seen

    def after(self, action: Action) -> "World":
        """The world once an action was carried out."""
        match action:
            case ClaimDisk(disk, content):
                return self._claim(disk, content)
            case MakePool(name, spec, disks):
                claims = tuple(self._disk(one).content.claim for one in disks)  # type: ignore[union-attr]
                pool = KnownPool(str(uuid.uuid4()), spec.profile, claims, spec.encryption)
                members = {
                    claim: msgspec.structs.replace(self.known.disks[claim], pool=name) for claim in claims
                }
                known = Known({**self.known.disks, **members}, {**self.known.pools, name: pool})
                unlocked = self.seen.unlocked | (set(claims) if spec.encryption else set())
                return replace(self, known=known, seen=msgspec.structs.replace(self.seen, unlocked=unlocked))
            case RemakePool(name):
                pool = msgspec.structs.replace(self.known.pools[name], made=True)
                unlocked = self.seen.unlocked | (set(pool.members) if pool.encryption else set())
                known = msgspec.structs.replace(self.known, pools={**self.known.pools, name: pool})
                return replace(self, known=known, seen=msgspec.structs.replace(self.seen, unlocked=unlocked))
            case Unlock(_, claim):
                return replace(
                    self,
                    seen=msgspec.structs.replace(self.seen, unlocked=self.seen.unlocked | {claim}),
                )
            case Mount(name, options) | Remount(name, options):
                there = {disk.content.claim for disk in self.seen.disks if disk.content}
                claims = frozenset(there & set(self.known.pools[name].members))
                return self._mounts({**self.seen.mounted, name: SeenPool(claims, options)})
            case Release(name):
                return self._mounts(
                    {other: pool for other, pool in self.seen.mounted.items() if other != name}
                )

    def _mounts(self, mounted: dict[str, SeenPool]) -> "World":
        return replace(self, seen=msgspec.structs.replace(self.seen, mounted=mounted))

    def _disk(self, name: str) -> SeenDisk:
        return next(disk for disk in self.seen.disks if disk.id == name)

    def _claim(self, name: str, content: str) -> "World":
        before = self._disk(name)
        assert before.content
        assert before.content.id == content
        claim = str(uuid.uuid4())
        after = msgspec.structs.replace(before, content=claimed(before.facts.device, claim).content)
        disks = tuple(after if disk is before else disk for disk in self.seen.disks)
        known = {**self.known.disks, claim: KnownDisk(name, before.facts.size)}
        return replace(
            self,
            known=msgspec.structs.replace(self.known, disks=known),
            seen=msgspec.structs.replace(self.seen, disks=disks),
        )


_NAMES = ("sda", "sdb", "sdc", "sdd", "sde", "sdf")
_CLAIMS = tuple(f"{number:08x}-0000-4000-8000-000000000000" for number in range(6))
_POOLS = ("fast", "slow", "other")
_PROFILES = ("single", "raid1", "raid1c3", "raid10")


def _contents(name: str) -> st.SearchStrategy[Content | None]:
    return st.one_of(
        st.none(),
        st.just(Content(f"blank{name}", blank=True)),
        st.just(Content(f"unknown{name}")),
        st.builds(
            lambda kind, label: Content(
                f"held{kind}{label}{name}", signatures=(Signature(name, kind, label),)
            ),
            st.sampled_from(["ext4", "ntfs", "crypto_LUKS", "btrfs", "LVM2_member"]),
            st.sampled_from(["", "Y"]),
        ),
        st.builds(
            lambda claim: Content(
                f"claim{claim}", table="gpt", claim=claim, state=f"/dev/{name}1", data=f"/dev/{name}2"
            ),
            st.sampled_from(_CLAIMS),
        ),
    )


@st.composite
def _disks(draw: st.DrawFn) -> tuple[SeenDisk, ...]:
    found = []
    for name in draw(st.lists(st.sampled_from(_NAMES), unique=True)):
        content = draw(_contents(name))
        shared = draw(st.booleans()) and draw(st.booleans())
        found.append(
            SeenDisk(
                f"ata-{name}",
                facts(
                    name,
                    size=draw(st.sampled_from([1 << 20, GIB, 10 * GIB])),
                    serial="same" if shared else f"S{name}",
                    read_only=draw(st.sampled_from([False, False, False, True])),
                ),
                draw(st.sampled_from(["hdd", "ssd", "nvme"])),
                content,
                trouble="" if content else draw(st.sampled_from(["", "no answer within 15 s"])),
            )
        )
    return tuple(found)


_SELECTORS = st.builds(
    Selector,
    serials=st.sampled_from([(), ("Ssda",), ("same",), ("ata-sdb", "Ssdc")]),
    media=st.sampled_from([(), ("ssd",), ("hdd", "nvme")]),
    min_size=st.sampled_from([0, 2 * GIB]),
    count=st.sampled_from([None, 1, 2, 3]),
)
_ENCRYPTIONS = st.sampled_from([None, Encryption("config", "a passphrase"), Encryption("operator")])
_SPECS = st.builds(
    PoolSpec,
    select=_SELECTORS,
    profile=st.sampled_from(_PROFILES),
    format_blank=st.booleans(),
    encryption=_ENCRYPTIONS,
    mount=st.sampled_from([MountOptions(), MountOptions(compress="zstd:1")]),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any landscape: disks of all kinds, what the node knows of some, and what is wanted."""
    disks = draw(_disks())
    known_claims = draw(st.lists(st.sampled_from(_CLAIMS), unique=True))
    pools: dict[str, KnownPool] = {}
    membership: dict[str, str] = {}
    free = list(known_claims)
    for name in draw(st.lists(st.sampled_from(_POOLS), unique=True)):
        count = draw(st.integers(0, len(free)))
        members, free = tuple(free[:count]), free[count:]
        if members:
            membership |= dict.fromkeys(members, name)
            pools[name] = KnownPool(
                f"fs-{name}",
                draw(st.sampled_from(_PROFILES)),
                members,
                draw(_ENCRYPTIONS),
                made=draw(st.booleans()),
            )
    known = Known(
        {claim: KnownDisk(f"ata-{claim[:8]}", 10 * GIB, membership.get(claim)) for claim in known_claims},
        pools,
    )
    claims = draw(
        st.dictionaries(
            st.sampled_from([disk.id for disk in disks] + ["same", "nowhere"]),
            st.sampled_from([disk.content.id for disk in disks if disk.content] + ["stale"]),
            max_size=3,
        )
    )
    wanted = Wanted(
        {
            name: WantedPool(spec)
            for name, spec in draw(st.dictionaries(st.sampled_from(_POOLS), _SPECS)).items()
        },
        claims,
        frozenset(draw(st.sets(st.sampled_from(_POOLS)))),
    )
    mounted = {
        name: SeenPool(frozenset(pool.members))
        for name, pool in pools.items()
        if pool.made and draw(st.booleans())
    }
    seen = Seen(disks, frozenset(), mounted, draw(st.booleans()), draw(st.booleans()))
    return World(wanted, known, seen)
