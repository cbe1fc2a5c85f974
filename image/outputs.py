"""The files beside kernel and initramfs: boot script, listing, checksums."""

import hashlib
from collections.abc import Mapping


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
