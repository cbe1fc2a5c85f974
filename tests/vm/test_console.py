"""The web console of a container on a booted node, in a real browser."""

import re

from playwright.async_api import expect

from ci.qemu.machine import Machine
from core0.client.client import NodeClient
from tests.console.browser import Look, browser, look  # noqa: F401  # fixtures, by name
from tests.vm.inside import TOKEN, running
from tests.vm.test_containers import Spec

SCRIPT = "echo up; while :; do sleep 1; done"
# Milliseconds: the emulated node makes a handshake for each of the browser's connections.
PATIENCE = 60_000


async def test_a_browser_shows_a_container_its_logs_and_a_shell_that_survives_a_reload(
    machine: Machine,
    node: NodeClient,
    spec: Spec,
    look: Look,  # noqa: F811
) -> None:
    container = await running(node, "shop", spec(argv=("/bin/sh", "-c", SCRIPT)))
    assert container.corex
    port = await machine.forward(container.corex.port)
    at = await look(f"127.0.0.1:{port}", patience=PATIENCE)
    page = at.page
    await at.log_in(TOKEN)
    row = page.get_by_role("row", name="main")
    await expect(row).to_contain_text("running", timeout=PATIENCE)
    await page.get_by_role("link", name="main").click()
    await expect(page.get_by_role("img", name=re.compile("^CPU"))).to_be_visible(timeout=PATIENCE)
    await page.get_by_role("link", name="Logs", exact=True).first.click()
    await expect(page.get_by_role("log")).to_contain_text("up", timeout=PATIENCE)
    await page.get_by_role("link", name="Shell").click()
    await page.get_by_role("button", name="New shell").click()
    screen = page.locator(".xterm-rows")
    await expect(screen).to_contain_text("#", timeout=PATIENCE)
    await page.keyboard.type("kept=yes; echo it is $((6 * 7))\n")
    await expect(screen).to_contain_text("it is 42", timeout=PATIENCE)
    await page.reload()
    await expect(screen).to_contain_text("it is 42", timeout=PATIENCE)
    await page.keyboard.type("echo kept: $kept\n")
    await expect(screen).to_contain_text("kept: yes", timeout=PATIENCE)
