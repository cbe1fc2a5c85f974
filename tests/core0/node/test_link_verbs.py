"""What the node says of its links by itself."""

import pytest

from core0.links import inventory
from core0.links.hardware import Controller
from core0.node.link_verbs import tell_unused
from tests.host_node import HostNode


async def test_each_controller_without_a_driver_gets_one_line_on_the_console(
    host_node: HostNode, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = (Controller("0000:00:05.0", "8086:10d3"), Controller("0000:00:06.0", "10ec:8139"))
    monkeypatch.setattr(inventory, "read_controllers", lambda _: found)
    async with host_node.daemon() as state:
        await tell_unused(state)
    lines = [line for line in capfd.readouterr().out.splitlines() if "Not used" in line]
    assert lines == [
        f"zn: network {one.pci}: Not used: network controller {one.pci_id} has no driver in this image; "
        "plug another card, or boot an image that has one"
        for one in found
    ]
