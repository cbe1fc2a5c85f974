"""Core-X's web console on a booted node: in a browser, by two tenants."""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import Error, expect

from ci.pytest_machines import restored
from ci.qemu.machine import Machine
from core0.client.client import NodeClient
from core0.wire.types import Container, ContainerSpec
from corex.client.client import Client, Endpoint
from tests.console.browser import EXPECTED, Look, browser, look  # noqa: F401  # fixtures, by name
from tests.vm.inside import running

SERVICE = ("/bin/sh", "-c", "echo 'up and well'; while :; do sleep 1; done")
TENANTS = {"red": "the token of the tenant called red", "blue": "the token of the tenant called blue"}


@dataclass(frozen=True)
class Tenant:
    """A container, as a browser on this machine reaches its console."""

    endpoint: Endpoint
    token: str


@pytest_asyncio.fixture(loop_scope="session")
async def machine(stocked: Machine, request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    async with restored(stocked, "stocked", request.node) as machine:
        yield machine


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """An emulated machine takes its time."""
    expect.set_options(timeout=60_000)
    yield
    expect.set_options(timeout=EXPECTED)


async def tenant(machine: Machine, container: Container, token: str) -> Tenant:
    assert container.corex
    port = await machine.forward(container.corex.port)
    return Tenant(Endpoint(f"127.0.0.1:{port}", container.corex.fingerprint, token), token)


async def test_two_tenants_use_their_consoles_and_cannot_read_each_other(
    machine: Machine,
    node: NodeClient,
    spec: Callable[..., ContainerSpec],
    look: Look,  # noqa: F811  # pytest gives it by this name
) -> None:
    there = {}
    for name, token in TENANTS.items():
        wanted = replace(spec(argv=SERVICE), token_sha256=hashlib.sha256(token.encode()).hexdigest())
        there[name] = await tenant(machine, await running(node, name, wanted), token)
    red, blue = there["red"], there["blue"]

    at = await look(red)
    page = at.page
    page.set_default_timeout(60_000)
    await at.open()
    await page.get_by_label("Token", exact=True).fill(blue.token)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_text("That token is not right.").first).to_be_visible()
    at.forgive(401)
    await at.log_in(red.token)
    await expect(page.get_by_role("row", name="main")).to_contain_text("running")
    await at.picture("node-processes")
    with pytest.raises(Error, match="Failed to fetch"):
        await page.evaluate(
            "(url) => fetch(url).then((answer) => answer.text())",
            f"https://{blue.endpoint.address}/v1/health",
        )
    assert any("Content Security Policy" in said for said in at.said)
    at.said.clear()

    await at.open("#/logs")
    await expect(page.get_by_role("log")).to_contain_text("up and well")
    await at.open("#/shell")
    await page.get_by_role("button", name="New shell").click()
    rows = page.locator(".xterm-rows")
    await expect(rows).to_contain_text("#")
    await page.keyboard.type("hostname; echo $((6 * 7)) > /tmp/made; cat /tmp/made\n")
    await expect(rows).to_contain_text("red")
    await expect(rows).to_contain_text("42")
    await at.picture("node-shell")
    await page.reload()
    await expect(rows).to_contain_text("42")

    async with Client(red.endpoint) as corex:
        await corex.stop("main")
    await at.open("#/")
    await expect(page.get_by_role("row", name="main")).to_contain_text("stopped")

    other = await look(blue)
    await other.log_in(blue.token, "#/shell")
    await expect(other.page.get_by_role("button", name="New shell")).to_be_visible()
    await expect(other.page.locator(".xterm-rows")).to_have_count(0)
    await other.open("#/")
    await expect(other.page.get_by_role("row", name="main")).to_contain_text("running")
