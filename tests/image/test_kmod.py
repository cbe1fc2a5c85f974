"""Kernel modules: ELF made by hand, selection with dependencies, the index that PID 1 reads."""

import lzma
import struct

import pytest

from image import elf, kmod
from image.elf import ElfError
from image.kmod import ModuleError
from image.tree import file


def module(*facts: str, kind: int = 1) -> bytes:
    """A minimal ELF file with a .modinfo section."""
    info = b"".join(fact.encode() + b"\0" for fact in facts)
    names = b"\0.modinfo\0.shstrtab\0"
    start = 64
    table = start + len(info) + len(names)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", kind, 62, 1, 0, 0, table, 0, 64, 56, 0, 64, 3, 2
    )
    sections = [
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, start, len(info), 0, 0, 1, 0),
        struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, start + len(info), len(names), 0, 0, 1, 0),
    ]
    return header + info + names + b"".join(sections)


FILES = {
    "kernel/net/virtio_net.ko.xz": lzma.compress(
        module("license=GPL", "alias=virtio:d00000001v*", "depends=net_failover,virtio")
    ),
    "kernel/net/net_failover.ko.xz": lzma.compress(module("depends=failover")),
    "kernel/net/failover.ko": module("depends="),
    "kernel/fs/erofs.ko.xz": lzma.compress(
        module("depends=libcrc32c", "softdep=pre: crypto-lz4 nosuch post: late")
    ),
    "kernel/lib/libcrc32c.ko.xz": lzma.compress(module("depends=")),
    "kernel/crypto/crypto-lz4.ko.xz": lzma.compress(module("depends=")),
    "kernel/net/nf_nat.ko.xz": lzma.compress(module("depends=missing")),
}
BUILTIN = ["kernel/drivers/virtio/virtio.ko"]


def test_dependencies_come_in_load_order_without_what_is_built_in() -> None:
    chosen = {found.name: found for found in kmod.select(FILES, BUILTIN, ["virtio-net"])}
    assert chosen["virtio_net"].depends == ("failover", "net_failover")
    assert sorted(chosen) == ["failover", "net_failover", "virtio_net"]
    assert chosen["virtio_net"].path == "kernel/net/virtio_net.ko"


def test_soft_dependencies_are_loaded_before_if_they_exist() -> None:
    chosen = {found.name: found for found in kmod.select(FILES, BUILTIN, ["erofs"])}
    assert chosen["erofs"].depends == ("crypto_lz4", "libcrc32c")


def test_the_manifest_may_name_modules_to_load_before_another() -> None:
    chosen = {
        found.name: found for found in kmod.select(FILES, BUILTIN, ["failover"], {"failover": ["erofs"]})
    }
    assert chosen["failover"].depends == ("crypto_lz4", "libcrc32c", "erofs")


def test_a_wanted_module_that_is_built_in_needs_nothing() -> None:
    assert kmod.select(FILES, BUILTIN, ["virtio"]) == []


@pytest.mark.parametrize(("wanted", "named"), [("nosuch", "nosuch"), ("nf_nat", "missing")])
def test_a_module_that_is_nowhere_is_named(wanted: str, named: str) -> None:
    with pytest.raises(ModuleError, match=f"cannot find kernel module {named}"):
        kmod.select(FILES, BUILTIN, [wanted])


def test_the_package_becomes_modules_index_and_builtin_list() -> None:
    base = "usr/lib/modules/6.12/"
    package = [file(base + path, content, "linux") for path, content in FILES.items()]
    package += [
        file(base + "modules.builtin", "\n".join(BUILTIN).encode(), "linux"),
        file("boot/vmlinuz-6.12", b"MZ", "linux"),
    ]
    taken = {entry.path: entry for entry in kmod.take(package, ["virtio_net"])}
    assert taken[base + "modules.dep"].content.decode().splitlines()[-1] == (
        "kernel/net/virtio_net.ko: kernel/net/net_failover.ko kernel/net/failover.ko"
    )
    assert taken[base + "modules.alias"].content == b"alias virtio:d00000001v* virtio_net\n"
    assert elf.is_elf(taken[base + "kernel/net/virtio_net.ko"].content)
    assert kmod.kernel(package) == b"MZ"


def test_what_the_base_has_is_needed_where_it_is() -> None:
    folder = "usr/lib/modules/6.12/"
    package = [file(folder + path, content, "linux") for path, content in FILES.items()]
    package.append(file(folder + "modules.builtin", b"", "linux"))
    base = {folder + "kernel/lib/libcrc32c.ko"}
    taken = {entry.path: entry for entry in kmod.take(package, ["erofs"], base=base)}
    assert sorted(taken) == [
        folder + "kernel/crypto/crypto-lz4.ko",
        folder + "kernel/fs/erofs.ko",
        folder + "modules.alias",
        folder + "modules.dep",
    ]
    assert taken[folder + "modules.dep"].content.decode().splitlines()[-1] == (
        f"kernel/fs/erofs.ko: /{folder}kernel/lib/libcrc32c.ko kernel/crypto/crypto-lz4.ko"
    )


def test_a_package_without_a_kernel_is_refused() -> None:
    with pytest.raises(ModuleError, match="cannot find kernel modules"):
        kmod.take([], ["virtio_net"])
    with pytest.raises(ModuleError, match="cannot find the kernel"):
        kmod.kernel([])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"MZ", "not a 64-bit"), (module().replace(b".modinfo", b".notinfo"), "no section")],
)
def test_what_is_not_a_module_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ElfError, match=message):
        kmod.modinfo(content)


def test_relocatable_files_keep_their_sections() -> None:
    assert elf.loadable(module("depends=")) == module("depends=")
