"""What is asked of disks and pools and cannot be: each refusal with its cause, the field and the remedy. Pure."""

from collections.abc import Sequence

from core0.disks.explain import describe
from core0.disks.model import NEEDED, Known, KnownPool, Seen, SeenDisk
from core0.disks.observe import find
from core0.disks.plan import claimable
from core0.wire.control import RefusedError, absent, conflict, invalid
from core0.wire.storage import Claim, Encryption, PoolSpec, StorageConfig


def _unacceptable(said: str, remedy: str, pointer: str) -> RefusedError:
    return invalid(f"cannot accept the request: {said}", remedy, pointer)


def find_disk(name: str, disks: Sequence[SeenDisk]) -> SeenDisk:
    """The one disk that is called so.

    Raises:
        RefusedError: 404 if there is none, 409 if there are several.
    """
    found = find(name, disks)
    if not found:
        raise absent(
            f"cannot find disk {name[:120]!a}: there is none of that id or serial number", "see 'zn disk ls'"
        )
    if len(found) > 1:
        detail = f"cannot tell which disk is meant: {len(found)} have the serial number {name[:120]!a}"
        raise conflict(detail, f"use an id: {', '.join(disk.id for disk in found)}")
    return found[0]


def check_claim(disk: SeenDisk, claim: Claim, known: Known) -> str:
    """The content that a claim may destroy.

    Raises:
        RefusedError: if it may not be claimed, or not with these words.
    """
    refused = claimable(disk, known)
    if refused or disk.content is None:
        raise conflict(f"cannot claim {disk.id}: {refused}", "see 'zn disk ls' for what it is")
    if claim.wipe is None and not disk.content.blank:
        held = "another node's claim" if disk.content.claim else describe(disk.content)
        remedy = f'to destroy that, claim it with "wipe": "{disk.content.id}"'
        raise conflict(f"cannot claim {disk.id}: it holds {held}", remedy, "/wipe")
    if claim.wipe not in (None, disk.content.id):
        detail = f"cannot claim {disk.id}: it does not hold what the claim names"
        raise conflict(detail, "look at it again: it has changed since, or another disk is meant", "/wipe")
    return disk.content.id


def check_pool(
    name: str, spec: PoolSpec, config: StorageConfig, known: Known, seen: Seen, *, tpm: bool
) -> None:
    """Refuse what can never be, and what would be another pool than the one there is.

    Raises:
        RefusedError: with the field.
    """
    if name in config.pools:
        raise conflict(f"cannot set pool {name}: the node's config has one of that name", "change the config")
    if spec.encryption:
        _check_encryption(spec.encryption, tpm=tpm)
    needed = NEEDED[spec.profile]
    if spec.select.count is not None and spec.select.count < needed:
        said = f"{spec.profile} needs {needed} disks, and the selector takes {spec.select.count}"
        raise _unacceptable(said, "raise the count, or use profile single", "/select/count")
    if name in known.pools:
        _check_same(name, spec, known.pools[name])
    else:
        _check_serials(spec, seen)


def _check_encryption(encryption: Encryption, *, tpm: bool) -> None:
    """Refuse a passphrase that the node would have to keep beside what it locks."""
    if encryption.key == "config" or encryption.passphrase:
        said = "only the node's config can have a pool's passphrase"
        field = "key" if encryption.key == "config" else "passphrase"
        raise _unacceptable(said, "use key operator, and unlock the pool", f"/encryption/{field}")
    if encryption.key == "tpm2" and not tpm:
        raise _unacceptable("this machine has no TPM 2.0", "use another key", "/encryption/key")


def _check_same(name: str, spec: PoolSpec, known: KnownPool) -> None:
    changed = "profile" if spec.profile != known.profile else ""
    if (spec.encryption is None) != (known.encryption is None):
        changed = "encryption"
    if changed:
        detail = f"cannot change the {changed} of pool {name}: it holds data"
        raise conflict(detail, "make another pool and move the volumes there", f"/{changed}")


def _check_serials(spec: PoolSpec, seen: Seen) -> None:
    """Disks that are called by name must be there, and be one each."""
    serials, needed = spec.select.serials, NEEDED[spec.profile]
    for number, serial in enumerate(serials):
        found = len(find(serial, seen.disks))
        if found != 1:
            few = f"{found} disks are called so" if found else "there is none"
            raise _unacceptable(f"disk {serial!a}: {few}", "see 'zn disk ls'", f"/select/serials/{number}")
    if serials and len(serials) < needed:
        said = f"{spec.profile} needs {needed} disks, and {len(serials)} are named"
        raise _unacceptable(said, "name more disks, or use profile single", "/select/serials")
