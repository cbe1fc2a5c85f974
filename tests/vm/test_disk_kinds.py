"""Odd disks of a booted node: each is told what it is and left alone, until its operator names it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, Disk, MachineSpec
from cli import context
from cli.context import Context, Contexts
from cli.frame import app
from core0.client.client import NodeClient, RefusedError
from core0.wire import storage
from core0.wire.ports import API
from core0.wire.storage import Claim, PoolSpec, Selector
from tests.disk_images import (
    MIB,
    blank,
    digest,
    with_broken_table,
    with_ext4,
    with_noise,
    with_partitions,
)
from tests.vm.shelf import READY_SECONDS, settled

WWN = 0x5000C500A1B2C3D4


def odd_disks(folder: Path) -> tuple[Disk, ...]:
    """One of each kind, over three buses."""
    return (
        blank(folder, "blank"),
        blank(folder, "tiny", 16 * MIB),
        blank(folder, "locked", read_only=True),
        blank(folder, "twin1", serial="same"),
        blank(folder, "twin2", serial="same"),
        with_noise(blank(folder, "noise")),
        with_ext4(blank(folder, "photos", bus="ahci", rotation=7200, physical=4096, wwn=WWN), "Y"),
        with_partitions(blank(folder, "parts", bus="ahci", rotation=1), "P"),
        blank(folder, "plain", bus="ahci", rotation=7200),
        with_broken_table(blank(folder, "torn", bus="nvme")),
        blank(folder, "native", bus="nvme", logical=4096),
        blank(folder, "sealed", bus="nvme", read_only=True),
    )


class Shelf(NamedTuple):
    """The node with the odd disks, and what their files held before it saw them."""

    client: NodeClient
    context: Context
    files: dict[str, Path]
    before: dict[str, str]

    def changed(self) -> set[str]:
        """The disks whose files hold something else than before."""
        return {name for name, file in self.files.items() if digest(file) != self.before[name]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shelf(
    direct_boot: DirectBoot,
    acceleration: Acceleration,
    tmp_path_factory: pytest.TempPathFactory,
    connect: Callable[[Machine], Awaitable[NodeClient]],
) -> AsyncIterator[Shelf]:
    """One boot for all tests here, which run in order."""
    folder = tmp_path_factory.mktemp("shelf")
    disks = odd_disks(folder)
    files = {disk.name: disk.path for disk in disks}
    before = {name: digest(file) for name, file in files.items()}
    async with Machine(MachineSpec("shelf", direct_boot, disks=disks), acceleration, folder) as machine:
        await machine.wait_for_phase("ready", READY_SECONDS)
        async with await connect(machine) as client:
            await settled(client, len(disks))
            yield Shelf(client, await context_of(machine), files, before)


async def context_of(machine: Machine) -> Context:
    """How a command line finds the node."""
    identity = await machine.wait_for_phase("identity", READY_SECONDS)
    address = f"127.0.0.1:{await machine.forward(API)}"
    return Context(address, identity.detail.removeprefix("sha256:"), "operator.pem")


IT_IS_BLANK = "it is blank; 'zn disk claim {}' gives it to the node"
IT_HOLDS = "it is not touched: it holds {}; 'zn disk claim {} --wipe' destroys that and gives it to the node"
# By serial number: id, bus, media (of virtual disks it is measured), sector sizes, state and sentence. The
# kernel finds the disks of a controller side by side, so which of them is sda is told by the node.
SAID = {
    "blank": ("virtio-blank", "virtio", "", 512, 512, "unclaimed", IT_IS_BLANK.format("virtio-blank")),
    "tiny": (
        *("virtio-tiny", "virtio", "", 512, 512, "unusable"),
        "it is not used: it has 16 MiB, and a pool needs 512 MiB of each disk",
    ),
    "locked": ("virtio-locked", "virtio", "", 512, 512, "unusable", "it is not used: it is read-only"),
    "noise": (
        *("virtio-noise", "virtio", "", 512, 512, "unclaimed"),
        IT_HOLDS.format("data without a known signature", "virtio-noise"),
    ),
    "photos": (
        *(f"naa.{WWN:x}", "ata", "hdd", 512, 4096, "unclaimed"),
        IT_HOLDS.format("an ext4 signature labelled 'Y' on {device}", f"naa.{WWN:x}"),
    ),
    "parts": (
        *("ata-parts", "ata", "ssd", 512, 512, "unclaimed"),
        IT_HOLDS.format(
            "a GPT partition table with an ext4 signature labelled 'P' on {device}1", "ata-parts"
        ),
    ),
    "plain": ("ata-plain", "ata", "hdd", 512, 512, "unclaimed", IT_IS_BLANK.format("ata-plain")),
    "torn": (
        *("nvme-torn", "nvme", "nvme", 512, 512, "unclaimed"),
        IT_HOLDS.format("a broken GPT partition table", "nvme-torn"),
    ),
    "native": ("nvme-native", "nvme", "nvme", 4096, 4096, "unclaimed", IT_IS_BLANK.format("nvme-native")),
    # an NVMe disk tells of its write protection only when it is written to
    "sealed": ("nvme-sealed", "nvme", "nvme", 512, 512, "unclaimed", IT_IS_BLANK.format("nvme-sealed")),
}


async def test_each_disk_says_what_it_is_and_is_left_as_it_is(shelf: Shelf) -> None:
    disks = {one.serial: one for one in await shelf.client.disks()}
    for serial, (name, bus, media, logical, physical, state, why) in SAID.items():
        disk = disks[serial]
        said = why.format(device=disk.device)
        assert (disk.id, disk.bus, disk.state, disk.why) == (name, bus, state, said)
        assert (disk.logical_sector, disk.physical_sector) == (logical, physical)
        assert disk.media == media or (bus == "virtio" and disk.media in ("hdd", "ssd"))
    assert shelf.changed() == set()


async def test_the_command_line_shows_the_same_sentences(
    shelf: Shelf, operator_key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    pem = operator_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "operator.pem").write_bytes(pem)
    (tmp_path / "operator.pem").chmod(0o600)
    context.save(tmp_path / "contexts.toml", Contexts("here", {"here": shelf.context}))
    words = ("--contexts", str(tmp_path / "contexts.toml"), "disk", "ls", "--json")
    done = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert done.exit_code == 0, done.output
    shown = msgspec.json.decode(done.stdout, type=tuple[storage.Disk, ...])
    assert shown == await shelf.client.disks()


async def test_twins_are_told_apart_by_their_places_only(shelf: Shelf) -> None:
    twins = [one for one in await shelf.client.disks() if one.serial == "same"]
    assert len({one.id for one in twins}) == 2
    assert all(one.id.startswith("virtio-same@pci-0000:") for one in twins)
    with pytest.raises(RefusedError, match="cannot tell which disk is meant: 2 have the serial") as caught:
        await shelf.client.claim_disk("same", Claim())
    assert caught.value.problem.remedy == f"use an id: {', '.join(one.id for one in twins)}"
    with pytest.raises(RefusedError, match="disk 'same': 2 disks are called so") as caught:
        await shelf.client.put_pool("twins", PoolSpec(Selector(("same",)), format_blank=True))
    assert shelf.changed() == set()


@pytest.mark.parametrize(
    ("disk", "claim", "why"),
    [
        ("photos", Claim(), "it holds an ext4 signature labelled 'Y'"),
        ("torn", Claim(), "it holds a broken GPT partition table"),
        ("noise", Claim("0" * 16), "it does not hold what the claim names"),
        ("tiny", Claim(), "it has 16 MiB, and a pool needs 512 MiB"),
        ("locked", Claim(), "it is read-only"),
        ("none", Claim(), "there is none of that id or serial number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_claimed_is_refused_and_left_as_it_is(
    shelf: Shelf, disk: str, claim: Claim, why: str
) -> None:
    with pytest.raises(RefusedError, match=why):
        await shelf.client.claim_disk(disk, claim)
    assert shelf.changed() == set()


async def test_a_disk_that_takes_no_writes_says_so_when_it_is_claimed(shelf: Shelf) -> None:
    with pytest.raises(RefusedError, match=r"cannot claim nvme-sealed: it takes no writes \(Input/output"):
        await shelf.client.claim_disk("sealed", Claim())
    assert shelf.changed() == set()


async def test_a_claim_that_names_what_it_wipes_changes_that_disk_only(shelf: Shelf) -> None:
    noise = await shelf.client.disk("noise")
    claimed = await shelf.client.claim_disk("noise", Claim(noise.content))
    assert (claimed.state, claimed.why) == ("free", "the node has it, and no pool uses it yet")
    assert shelf.changed() == {"noise"}


async def test_a_mirror_spans_buses_and_sector_sizes(shelf: Shelf) -> None:
    spec = PoolSpec(Selector(("native", "plain")), "raid1", format_blank=True)
    pool = await shelf.client.put_pool("mixed", spec, wait=60)
    assert (pool.state, pool.why) == ("online", "it serves, with all 2 disks")
    assert {one.disk for one in pool.members} == {"nvme-native", "ata-plain"}
    assert shelf.changed() == {"noise", "native", "plain"}
