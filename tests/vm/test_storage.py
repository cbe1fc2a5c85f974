"""The image's storage part on its own kernel: every program runs, its file systems and ciphers work."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from tests.disk_images import blank
from tests.vm.bench import Workbench, workbench_boot


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def workbench(
    direct_boot: DirectBoot, acceleration: Acceleration, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Workbench]:
    """A machine with two empty disks and the storage part mounted."""
    folder = tmp_path_factory.mktemp("workbench")
    disks = tuple(blank(folder, name) for name in ("first", "second"))
    spec = MachineSpec("workbench", workbench_boot(direct_boot, folder), disks=disks)
    async with Machine(spec, acceleration, folder) as machine:
        bench = await Workbench(machine).listens()
        assert (await bench.do("mount_tools")).count("\n") == 1
        assert await bench.do("load_drivers") == ""
        yield bench


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("btrfs", "--version"), "btrfs-progs v"),
        (("mkfs.btrfs", "--version"), "mkfs.btrfs"),
        (("wipefs", "--version"), "wipefs from util-linux"),
        (("partx", "--version"), "partx from util-linux"),
        (("cryptsetup", "--version"), "cryptsetup 2."),
        (("smartctl", "--version"), "smartctl 7."),
        (("hdparm", "-V"), "hdparm v"),
        (("mkfs.erofs", "--version"), "mkfs.erofs (erofs-utils) 1."),
        (("chronyd", "--version"), "chronyd (chrony) version 4."),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
async def test_each_program_finds_its_libraries(
    workbench: Workbench, words: tuple[str, ...], said: str
) -> None:
    assert said in await workbench.do(*words)


async def test_a_partition_becomes_a_btrfs_that_keeps_a_file(workbench: Workbench) -> None:
    assert await workbench.do("load", "btrfs") == ""
    await workbench.do("partition", "/dev/vda", "label: gpt", "type=L")
    await workbench.do("partx", "--update", "/dev/vda")
    await workbench.do("mkfs.btrfs", "-L", "pool", "--csum", "xxhash", "/dev/vda1")
    assert "btrfs" in await workbench.do("wipefs", "--output", "TYPE", "/dev/vda1")
    await workbench.do("mount", "/dev/vda1", "/run/pool", "btrfs")
    await workbench.do("btrfs", "subvolume", "create", "/run/pool/volume")
    await workbench.do("write", "/run/pool/volume/file", "kept")
    assert await workbench.do("read", "/run/pool/volume/file") == "kept"


async def test_a_disk_is_encrypted_opened_and_closed(workbench: Workbench) -> None:
    assert await workbench.do("load", "dm_crypt") == ""
    await workbench.do("write", "/run/key", "secret")
    fast = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--batch-mode", "--key-file", "/run/key")
    await workbench.do("cryptsetup", "luksFormat", "--type", "luks2", *fast, "/dev/vdb")
    await workbench.do("cryptsetup", "open", "--key-file", "/run/key", "/dev/vdb", "secret")
    assert "secret" in await workbench.do("listing", "/dev/mapper")
    await workbench.do("cryptsetup", "close", "secret")
    assert "crypto_LUKS" in await workbench.do("wipefs", "--output", "TYPE", "/dev/vdb")
