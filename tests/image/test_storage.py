"""The storage part: what is taken of packages, which mistakes are named, and how it is listed."""

import shutil
from pathlib import Path

import msgspec
import pytest

from image import compare, contents, elf, manifest, node, storage, treemap
from image.manifest import NodeManifest, Storage
from image.storage import StorageError
from image.tree import Entry, compose, file
from tests.image.test_kmod import module
from tests.image.test_listing import FILES, MADE
from tests.image.test_manifest import VIRT

# A program of this host stands for one of a package: what it needs is known.
PROGRAM = Path(shutil.which("sh") or "/bin/sh").read_bytes()
LIBC = file("usr/lib/x86_64-linux-gnu/libc.so.6", b"libc", "libc6")
KERNEL = "usr/lib/modules/6.12/"
UNPACKED: list[Entry] = [
    LIBC,
    file("usr/sbin/tool", PROGRAM, "tools", 0o755),
    file("usr/sbin/other", PROGRAM, "tools", 0o755),
    file("usr/share/doc/tools/copyright", b"", "tools"),
    file(KERNEL + "modules.builtin", b"", "linux"),
    file(KERNEL + "kernel/fs/btrfs.ko", module("depends=libcrc32c"), "linux"),
    file(KERNEL + "kernel/lib/libcrc32c.ko", module("depends="), "linux"),
]
WANTED = Storage(packages=("tools",), files=("usr/sbin/tool",), modules=("btrfs",))


def test_only_named_files_and_modules_that_the_base_lacks_are_taken() -> None:
    base = [LIBC, file(KERNEL + "kernel/lib/libcrc32c.ko", b"", "linux")]
    made = storage.tree(UNPACKED, WANTED, base)
    assert [path for path, entry in made.items() if entry.kind != "folder"] == [
        KERNEL + "kernel/fs/btrfs.ko",
        KERNEL + "modules.alias",
        KERNEL + "modules.dep",
        "usr/sbin/tool",
    ]
    assert made["usr/sbin/tool"].content == elf.loadable(PROGRAM)
    assert [entry.path for entry in storage.mounted({"usr/sbin/tool": made["usr/sbin/tool"]})] == [
        "usr/lib/zeronode/storage/usr/sbin/tool"
    ]


def test_a_library_that_nobody_brings_is_named() -> None:
    with pytest.raises(StorageError, match=r"cannot use /usr/sbin/tool: it needs libc\.so\.6, which neither"):
        storage.tree(UNPACKED, WANTED, [])


def test_a_file_that_no_package_brings_is_named() -> None:
    renamed = msgspec.structs.replace(WANTED, files=("usr/sbin/tool", "usr/sbin/gone*"))
    with pytest.raises(
        StorageError, match=r"cannot find usr/sbin/gone\*: no package of \[storage\] brings it"
    ):
        storage.tree(UNPACKED, renamed, [LIBC])


def test_what_a_program_needs_is_read_from_what_the_loader_sees() -> None:
    assert "libc.so.6" in elf.needed(PROGRAM)
    assert elf.needed(elf.loadable(PROGRAM)) == elf.needed(PROGRAM)


def test_a_program_that_needs_nothing_needs_nothing() -> None:
    assert elf.needed(module("depends=")) == []


def test_mkfs_that_refuses_is_quoted(tmp_path: Path) -> None:
    loader = tmp_path / "usr/lib64/ld-linux-x86-64.so.2"
    loader.parent.mkdir(parents=True)
    loader.write_text("#!/bin/sh\necho first >&2; echo '<E> erofs: no room' >&2; exit 1\n")
    loader.chmod(0o755)
    tree = compose([file("usr/sbin/tool", b"", "tools")])
    with pytest.raises(
        StorageError, match=r"cannot make usr/lib/zeronode/storage\.erofs: mkfs\.erofs: <E> erofs: no"
    ):
        storage.pack(tree, tmp_path, "amd64", 0)


STORED = contents.listed(
    storage.mounted({"usr/sbin/tool": file("usr/sbin/tool", b"t" * 700, "tools", 0o755)})
)
WITH_STORAGE = msgspec.structs.replace(
    MADE, files=(*FILES, *contents.listed([file(storage.FILE, b"e" * 300, "storage")])), storage=STORED
)


def test_the_listing_shows_what_is_inside_in_place_of_the_file() -> None:
    paths = [entry.path for entry in WITH_STORAGE.unpacked]
    assert "usr/lib/zeronode/storage/usr/sbin/tool" in paths
    assert storage.FILE not in paths
    assert "/usr/lib/zeronode/storage/usr/sbin/tool: 0.7 kB" in treemap.svg(WITH_STORAGE)
    found = compare.difference(MADE, WITH_STORAGE)
    assert [change.name for change in found.files] == ["/usr/lib/zeronode/storage/usr/sbin/tool"]


def test_packages_of_the_storage_part_stay_out_of_the_base() -> None:
    virt = manifest.load_kind(VIRT, NodeManifest)
    system = msgspec.structs.replace(
        virt,
        storage=WANTED,
        kernel=msgspec.structs.replace(virt.kernel, modules=("libcrc32c",)),
    )
    origins = {entry.origin for entry in node.base_sources(system, UNPACKED)}
    assert origins == {"libc6", "linux"}
