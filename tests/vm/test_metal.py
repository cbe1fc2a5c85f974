"""The image for machines, whose hardware is not made for virtual ones: every driver of it comes late."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ci.pytest_machines import Machines
from ci.qemu.machine import Machine
from ci.qemu.spec import CardModel, DirectBoot, MachineSpec, UserNic
from cli.image import cache_folder
from core0.client.client import NodeClient
from image import build as builder
from image.report import Report
from image.sources import Places
from tests.disk_images import blank
from tests.vm import shelf

Connect = Callable[[Machine], Awaitable[NodeClient]]
ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 10.0


@pytest.fixture(scope="module")
def metal_boot(direct_boot: DirectBoot, tmp_path_factory: pytest.TempPathFactory) -> DirectBoot:
    """The image for machines, loaded by QEMU itself."""
    image = tmp_path_factory.mktemp("metal")
    manifest = ROOT / "initramfs" / "metal.toml"
    builder.build(builder.Request(manifest, "amd64", image, Places(ROOT, cache_folder())), Report())
    return DirectBoot(image / "vmlinuz", image / "initramfs", direct_boot.arguments)


@pytest.mark.parametrize(("model", "driver"), [("e1000e", "e1000e"), ("rtl8139", "8139cp")])
async def test_a_node_serves_by_the_cards_and_disks_of_ordinary_machines(
    machines: Machines,
    metal_boot: DirectBoot,
    connect: Connect,
    tmp_path: Path,
    model: CardModel,
    driver: str,
) -> None:
    disks = (blank(tmp_path, "flash", bus="nvme"), blank(tmp_path, "spun", bus="ahci"))
    spec = MachineSpec(f"metal-{model}", metal_boot, nics=(UserNic(model=model),), disks=disks)
    machine = await machines.start(spec)
    await machine.wait_for_phase("network", READY_SECONDS)
    async with await connect(machine) as node:
        await shelf.settled(node, 2)
        assert {link.driver: link.state for link in await node.links()} == {driver: "up"}
        assert {disk.serial for disk in await node.disks()} == {"flash", "spun"}
