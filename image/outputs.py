"""The files beside kernel and initramfs: boot script, listing, checksums."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

SUMS = "SHA256SUMS"


def ipxe_script(cmdline: str) -> bytes:
    """The iPXE script that boots the image: addresses are relative, the server sets `zn-args`.

    EFI needs `initrd=` on the command line, BIOS ignores it.
    """
    return (
        "#!ipxe\n"
        f"kernel vmlinuz initrd=initramfs {cmdline} ${{zn-args}}\n"
        "initrd --name initramfs initramfs\n"
        "boot\n"
    ).encode()


def checksums(files: Mapping[str, bytes]) -> bytes:
    """The checksums of some files in the form of sha256sum(1)."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items())]
    return "".join(lines).encode()


def mismatches(folder: Path) -> list[str]:
    """What a folder has otherwise than its SHA256SUMS says, as messages."""
    if not (folder / SUMS).is_file():
        return [f"{SUMS}: missing"]
    sums = [line.split("  ", 1) for line in (folder / SUMS).read_text().splitlines()]
    return [problem for expected, name in sums if (problem := _mismatch(folder / name, expected))]


def _mismatch(path: Path, expected: str) -> str:
    if not path.is_file():
        return f"{path.name}: missing"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    return "" if found == expected else f"{path.name}: its sha256 is not the one in {SUMS}"
