"""Carries out the disk plan's actions; each leaves what the node knows to be its own as it is afterwards.

What is about to become the node's is written down before it is made: power may be cut between any two steps, and what
was begun must be recognised, never taken for somebody's data.
"""

import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import get_args

import msgspec

from core0.disks import blocks, probe
from core0.disks.model import (
    DATA_NAME,
    DATA_TYPE,
    STATE_NAME,
    STATE_SIZE,
    STATE_TYPE,
    Content,
    Facts,
    Known,
    KnownDisk,
    KnownPool,
    SeenDisk,
)
from core0.disks.tools import ToolError, run_tool
from core0.linux import fdisk, tools
from core0.linux.mounts import MS_REMOUNT
from core0.linux.worker import Worker
from core0.wire.storage import Encryption, KeySource, MountOptions, PoolSpec, Profile, public

# Seconds: for a look and other small things, for a table or a key, for a file system on many slow disks.
LOOK, TABLE, FORMAT = 15.0, 60.0, 300.0
_LABEL = "zn:"
# What a key costs whoever guesses: this much memory, and a second or so, on the node as well.
_KEY_KIB = 64 << 10
_METADATA = {"single": "raid1", "raid1": "raid1", "raid1c3": "raid1c3", "raid10": "raid10"}


class World(msgspec.Struct, frozen=True):
    """What the actions work on.

    Attributes:
        worker: does what may hang.
        remember: writes down durably what the node knows.
        pools: the folder of the pools' mounts.
    """

    worker: Worker
    remember: Callable[[Known], Awaitable[None]]
    pools: str


class DiskError(OSError):
    """An action that failed; the message has cause and remedy."""


def mapped(claim: str) -> str:
    """The open device of an encrypted disk."""
    return f"/dev/mapper/zn-{claim}"


def is_open(claim: str) -> bool:
    """Whether an encrypted disk is open."""
    return os.path.exists(mapped(claim))


async def claim_disk(world: World, known: Known, disk: SeenDisk, content: str) -> tuple[Known, str]:
    """Give a disk to the node: a new partition table, its state partition empty.

    Returns:
        What the node knows now, and the claim.

    Raises:
        DiskError: if the disk does not hold `content` any more, or a step fails.
    """
    device = f"/dev/{disk.facts.device}"
    now = await world.worker.call(probe.look, disk.facts, deadline=LOOK)
    if now.id != content:
        raise DiskError(
            f"cannot claim {disk.id}: it holds something else than a moment ago; look at it again"
        )
    claim = str(uuid.uuid4())
    try:
        await world.worker.call(blocks.check_writable, device, deadline=TABLE)
        if not now.blank:
            for name in (*disk.facts.partitions.values(), disk.facts.device):
                await run_tool("wipefs", "--all", "--quiet", f"/dev/{name}", deadline=TABLE)
        script = (
            *("label: gpt", f"label-id: {claim}"),
            f"size={STATE_SIZE >> 20}MiB, type={STATE_TYPE}, name={STATE_NAME}",
            f"type={DATA_TYPE}, name={DATA_NAME}",
        )
        await world.worker.call(fdisk.write_table, device, script, deadline=TABLE)
        # a kernel that was busy with the disk, or reads no such tables, has not seen the partitions by itself
        await run_tool("partx", "--update", device, deadline=TABLE)
        for number in (1, 2):
            await world.worker.call(blocks.clear, partition(disk.facts.device, number), deadline=TABLE)
    except OSError as error:
        raise DiskError(f"cannot claim {disk.id}: {error.strerror or error}") from None
    return with_disk(known, claim, KnownDisk(disk.id, disk.facts.size)), claim


def partition(device: str, number: int) -> str:
    """The device of a partition: a `p` stands between, if the disk's name ends with a digit."""
    return f"/dev/{device}{'p' if device[-1].isdecimal() else ''}{number}"


def with_disk(known: Known, claim: str, disk: KnownDisk) -> Known:
    """What is known, with a disk more or another word on it."""
    return msgspec.structs.replace(known, disks={**known.disks, claim: disk})


def with_pool(known: Known, name: str, pool: KnownPool) -> Known:
    """What is known, with a pool more or another word on it; its members' disks know it."""
    members = {
        claim: msgspec.structs.replace(disk, pool=name)
        for claim, disk in known.disks.items()
        if claim in pool.members
    }
    return Known({**known.disks, **members}, {**known.pools, name: pool})


async def make_pool(
    world: World,
    known: Known,
    name: str,
    spec: PoolSpec,
    data: Mapping[str, str],
    key: bytes | None,
    sealed: bytes = b"",
) -> Known:
    """Make a pool of claimed disks that hold nothing.

    Args:
        world: what to work on.
        known: what the node knows.
        name: the pool's.
        spec: what it shall be.
        data: the data partitions by claim.
        key: the passphrase of an encrypted one.
        sealed: that passphrase as the TPM keeps it, if it does.
    """
    # the passphrase comes from the config or the operator at each boot: no copy of it is kept beside what it locks
    kept = public(spec).encryption
    pool = KnownPool(str(uuid.uuid4()), spec.profile, tuple(data), kept, False, time.time(), sealed=sealed)
    known = with_pool(known, name, pool)
    await world.remember(known)
    return await finish_pool(world, known, name, data, key, spec.mount)


async def finish_pool(
    world: World,
    known: Known,
    name: str,
    data: Mapping[str, str],
    key: bytes | None,
    options: MountOptions,
) -> Known:
    """Make a pool that is written down as begun. What a first attempt left on its disks is nobody's data."""
    pool = known.pools[name]
    try:
        devices = dict(data)
        if pool.encryption:
            for claim, device in data.items():
                devices[claim] = await _encrypt(world, name, claim, device, pool.encryption, key)
        await world.worker.call(tools.load_modules, ("btrfs",), deadline=TABLE)
        arguments = [
            *("--quiet", "--force", "--label", f"{_LABEL}{name}", "--uuid", pool.uuid),
            *("--data", pool.profile),
            *("--metadata", _METADATA[pool.profile] if len(devices) > 1 else "dup"),
            *([] if options.discard else ["--nodiscard"]),
        ]
        await run_tool("mkfs.btrfs", *arguments, *devices.values(), deadline=FORMAT)
    except OSError as error:
        raise DiskError(f"cannot make pool {name}: {error.strerror or error}") from None
    known = with_pool(known, name, msgspec.structs.replace(pool, made=True))
    await world.remember(known)
    return known


async def _encrypt(
    world: World, name: str, claim: str, device: str, encryption: Encryption, key: bytes | None
) -> str:
    if key is None:
        raise DiskError(f"the key of pool {name} is not at hand ({encryption.key})")
    if is_open(claim):
        await close_disk(claim)
    options = (
        *("--batch-mode", "--type", "luks2", "--label", f"{_LABEL}{name}", "--subsystem", "zeronode"),
        *key_derivation(encryption.key),
    )
    await world.worker.call(tools.load_modules, ("dm_crypt", "xts"), deadline=TABLE)
    await run_tool(
        "cryptsetup", "luksFormat", *options, "--key-file", "-", device, given=key, deadline=FORMAT
    )
    await unlock_disk(world, claim, device, key)
    return mapped(claim)


def key_derivation(source: KeySource) -> tuple[str, ...]:
    """How cryptsetup makes a disk's key slot of the pool's key.

    What a person chose is made dear to guess. A key that the node made has 160 bits of chance, which nobody guesses,
    and a boot would only wait for it; systemd-cryptenroll(1) does the same with the keys that it makes.
    """
    if source == "tpm2":
        return "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"
    return "--pbkdf", "argon2id", "--pbkdf-memory", str(_KEY_KIB), "--iter-time", "1000"


async def unlock_disk(world: World, claim: str, device: str, key: bytes) -> None:
    """Open an encrypted disk.

    Raises:
        DiskError: if the key is not its key.
    """
    await world.worker.call(tools.load_modules, ("dm_crypt", "xts"), deadline=TABLE)
    arguments = ("open", "--type", "luks2", "--key-file", "-", "--allow-discards", device, f"zn-{claim}")
    try:
        await run_tool("cryptsetup", *arguments, given=key, deadline=FORMAT)
    except ToolError as error:
        wrong = "No key available" in str(error)
        cause = "the key is not its key; give the one it was made with" if wrong else str(error)
        raise DiskError(f"cannot unlock {device}: {cause}") from None


async def close_disk(claim: str) -> None:
    """Close an open encrypted disk."""
    await run_tool("cryptsetup", "close", f"zn-{claim}", deadline=TABLE)


async def parts_of(world: World, devices: Mapping[str, str], uuid: str) -> dict[str, str]:
    """Those of some devices, by claim, that hold a part of the btrfs with that UUID."""
    return {
        claim: device
        for claim, device in devices.items()
        if await world.worker.call(blocks.holds_part, device, uuid, deadline=LOOK)
    }


async def mount_pool(
    world: World, name: str, devices: Mapping[str, str], options: MountOptions, degraded: bool
) -> None:
    """Mount a pool with just these devices.

    Raises:
        DiskError: with the kernel's reason.
    """
    words = [*_words(options), *(["degraded"] if degraded else [])]
    words += [f"device={device}" for device in devices.values()]
    try:
        await world.worker.call(tools.load_modules, ("btrfs",), deadline=TABLE)
        source = next(iter(devices.values()))
        target = f"{world.pools}/{name}"
        await world.worker.call(blocks.mount, source, target, ",".join(words), 0, deadline=FORMAT)
    except OSError as error:
        raise DiskError(
            f"cannot mount pool {name}: {error.strerror or error}; the node's console has the kernel's words"
        ) from None


async def read_profile(world: World, name: str) -> Profile | None:
    """How a mounted pool spreads its data; None if that is not one of ours."""
    said = await run_tool("btrfs", "filesystem", "df", f"{world.pools}/{name}", deadline=TABLE)
    found = re.search(r"^Data, (\w+):", said, re.MULTILINE)
    profile = found[1].lower() if found else ""
    return next((one for one in get_args(Profile) if one == profile), None)


async def remount_pool(world: World, name: str, options: MountOptions) -> None:
    """Change a mounted pool's options."""
    words, target = ",".join(_words(options)), f"{world.pools}/{name}"
    try:
        await world.worker.call(blocks.mount, target, target, words, MS_REMOUNT, deadline=TABLE)
    except OSError as error:
        raise DiskError(f"cannot change the options of pool {name}: {error.strerror or error}") from None


async def release_pool(world: World, name: str) -> None:
    """Take a pool's mount away from here; who still uses it keeps what is left of it."""
    await world.worker.call(blocks.release, f"{world.pools}/{name}", deadline=TABLE)


async def prepare_data(
    world: World, name: str, content: Content, encryption: Encryption | None, key: bytes | None
) -> str:
    """Make a claimed disk's data partition ready to become a pool's; returns the device to use.

    It holds nothing then: what it held may be an old part of that very pool.
    """
    if not encryption:
        await run_tool("wipefs", "--all", "--quiet", content.data, deadline=TABLE)
        return content.data
    return await _encrypt(world, name, content.claim, content.data, encryption, key)


async def clear_data(world: World, claim: str, device: str) -> None:
    """Destroy what a claimed disk's data partition holds."""
    try:
        if is_open(claim):
            await close_disk(claim)
        await run_tool("wipefs", "--all", "--quiet", device, deadline=TABLE)
        await world.worker.call(blocks.clear, device, deadline=TABLE)
    except OSError as error:
        raise DiskError(f"cannot clear {device}: {error.strerror or error}") from None


async def clear_table(world: World, facts: Facts) -> None:
    """Destroy a disk's partition table, the state beside it, and what can be destroyed quickly of the rest."""
    device = f"/dev/{facts.device}"
    try:
        if facts.partitions:
            await run_tool("partx", "--delete", device, deadline=TABLE)
        await world.worker.call(blocks.forget, device, STATE_SIZE + (2 << 20), deadline=FORMAT)
    except OSError as error:
        raise DiskError(f"cannot clear {facts.device}: {error.strerror or error}") from None


def without_pool(known: Known, name: str) -> Known:
    """What is known, with a pool less: its disks are free."""
    disks = {
        claim: msgspec.structs.replace(disk, pool=None) if disk.pool == name else disk
        for claim, disk in known.disks.items()
    }
    return Known(disks, {other: pool for other, pool in known.pools.items() if other != name})


def without_disk(known: Known, claim: str) -> Known:
    """What is known, with a disk less."""
    return msgspec.structs.replace(
        known, disks={other: disk for other, disk in known.disks.items() if other != claim}
    )


def adopted(known: Known, disk: SeenDisk) -> Known:
    """What the node knows once it has taken over a disk of another node, with the pool that it is a member of."""
    content = disk.content
    if content is None:
        return known
    kept = content.kept
    name = kept.label.removeprefix(_LABEL) if kept and kept.label.startswith(_LABEL) else ""
    known = with_disk(known, content.claim, KnownDisk(disk.id, disk.facts.size, name or None))
    if not kept or not name:
        return known
    pool = known.pools.get(name)
    if pool is None:
        encryption = Encryption("operator") if kept.type == "crypto_LUKS" else None
        # how it spreads its data is read once it is mounted; until then all its disks must be there
        pool = KnownPool(kept.uuid, "single", (), encryption, created=time.time())
    return with_pool(known, name, msgspec.structs.replace(pool, members=(*pool.members, content.claim)))


def _words(options: MountOptions) -> list[str]:
    """Mount options as btrfs(5) names them."""
    return [
        f"compress={options.compress}",
        "discard=async" if options.discard else "nodiscard",
        "autodefrag" if options.autodefrag else "noautodefrag",
    ]
