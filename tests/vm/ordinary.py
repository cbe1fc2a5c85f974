"""Images as everybody has them: packed from Debian's packages, busybox with its applets, one static program."""

import asyncio
import io
import struct
import subprocess
import tarfile
from pathlib import Path

from cli.image import cache_folder
from image import oci
from image.report import Report
from image.sources import Places
from tests.vm.layouts import BUSYBOX, file_entry, folder_entry, write_layout

ROOT = Path(__file__).resolve().parents[2]
SAID = b"one program, and nothing else\n"
_LOADED = 0x400000


async def write_packed(folder: Path, name: str) -> None:
    """The layout of one of `initramfs/`, as `zn image pack` has it."""
    request = oci.Request(ROOT / "initramfs" / f"{name}.toml", "amd64", folder, Places(ROOT, cache_folder()))
    await asyncio.to_thread(oci.pack, request, Report())


def write_busybox(folder: Path) -> None:
    """As the official image: a program with a hard link for each applet, a few users, a shell as its command."""
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("bin", "etc", "root", "tmp", "var"):
            tar.addfile(folder_entry(name))
        program = BUSYBOX.read_bytes()
        tar.addfile(file_entry("bin/busybox", program, 0o755), io.BytesIO(program))
        for applet in applets:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname, link.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            if applet != "busybox":
                tar.addfile(link)
        users = b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"
        tar.addfile(file_entry("etc/passwd", users, 0o644), io.BytesIO(users))
        groups = b"root:x:0:\nwww-data:x:33:\n"
        tar.addfile(file_entry("etc/group", groups, 0o644), io.BytesIO(groups))
    write_layout(folder, archive.getvalue(), run={"Cmd": ["sh"]})


def write_scratch(folder: Path) -> None:
    """One static program and no folder; it is of user 7, and nothing there knows that one's name."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        program = static_program()
        tar.addfile(file_entry("program", program, 0o755), io.BytesIO(program))
    write_layout(folder, archive.getvalue(), run={"Entrypoint": ["/program"], "User": "7"})


def static_program() -> bytes:
    """An ELF file for amd64 without a library: it writes SAID and exits with its user's number.

    Format: elf(5): the header, one loaded segment, and its code.
    """
    code = (
        b"\xb8\x01\0\0\0\xbf\x01\0\0\0"  # write to the standard output
        b"\x48\x8d\x35\x17\0\0\0"  # what stands 23 bytes further on, behind the code
        + struct.pack("<BI", 0xBA, len(SAID))
        + b"\x0f\x05"
        + b"\xb8\x66\0\0\0\x0f\x05"  # getuid
        + b"\x89\xc7\xb8\xe7\0\0\0\x0f\x05"  # exit_group with it
    )
    size = 64 + 56 + len(code) + len(SAID)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _LOADED + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOADED, _LOADED, size, size, 0x1000)
    return identity + header + segment + code + SAID
