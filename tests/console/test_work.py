"""What goes on beside processes: operations, and lines that are sent on."""

import asyncio
import re

import pytest
from playwright.async_api import Route, expect

from corex.wire.plan import Layer, TargetLayer
from corex.wire.process import ProcessSpec
from tests.console.browser import Look
from tests.console.conftest import Start

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

ENV = {"PATH": "/bin"}
SLEEP = ProcessSpec(("sleep", "1000"), ENV)
DEAF = ProcessSpec(("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"), ENV, stop_timeout=600)


async def test_operations_are_told_while_they_go_on_and_after(start: Start, look: Look) -> None:
    core = await start(web=SLEEP, deaf=DEAF)
    await core.output("deaf", 1)
    at = await look(core)
    page = at.page
    await at.log_in(place="#/events")
    await page.get_by_role("link", name="Operations").click()
    await expect(page.get_by_text("No work took longer than its request.")).to_be_visible()
    await core.client.stop("deaf")
    row = page.get_by_role("row").filter(has_text="stop deaf")
    await expect(row).to_contain_text("running")
    await expect(row).to_contain_text("owner")
    cancel = row.get_by_role("button", name="Cancel stop /v1/processes/deaf")
    await expect(cancel).to_have_attribute("aria-disabled", "true")
    await expect(cancel).to_have_attribute("title", re.compile("Others changed with it already"))
    await at.picture("operations")
    await core.client.signal("deaf", "SIGKILL")
    await expect(row).to_contain_text("succeeded")
    await expect(row).to_contain_text("SIGKILL")
    await expect(row.get_by_role("button")).to_have_count(0)
    await row.get_by_role("link", name="deaf").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("deaf")


async def test_a_deletion_that_goes_on_is_cancelled(start: Start, look: Look) -> None:
    at = await look(await start(web=SLEEP))
    page = at.page
    one = {
        "id": "00112233aabbccdd",
        "kind": "delete-folder",
        "subject": "/srv/%FFbig",
        "by": "anna",
        "since": 1,
    }
    told = {**one, "state": "running", "why": "1500 files and folders were deleted so far"}

    async def answer(route: Route) -> None:
        if route.request.method == "DELETE":
            assert route.request.url.endswith(one["id"])
            told.update(state="cancelled", why="it was cancelled on request", ended=5)
            await route.fulfill(status=204)
        else:
            await route.fulfill(json={"operations": [told]})

    await page.route(re.compile("/v1/operations"), answer)
    await at.log_in(place="#/operations")
    row = page.get_by_role("row").filter(has_text=r"delete folder /srv/\xffbig")
    await expect(row).to_contain_text("1500 files and folders were deleted so far.")
    await row.get_by_role("button", name=r"Cancel delete-folder /srv/\xffbig").click()
    await expect(row).to_contain_text("cancelled")
    await expect(row.get_by_role("button")).to_have_count(0)


async def test_targets_of_log_lines_tell_how_it_goes_and_keep_their_headers(start: Start, look: Look) -> None:
    arrived = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"hello")
        arrived.set()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    core = await start(web=ProcessSpec(("sh", "-c", "sleep 0.5; echo hello; sleep 1000"), ENV))
    targets = {
        "central": TargetLayer(type="syslog", location=f"tcp://127.0.0.1:{port}"),
        "loki": TargetLayer(
            type="loki",
            location="http://127.0.0.1:9/push?key=hidden",
            headers={"Authorization": "hidden"},
            processes=("web",),
        ),
    }
    await core.client.put_layer("logs", Layer(targets=targets))
    at = await look(core)
    page = at.page
    await at.log_in(place="#/plan")
    pending = page.get_by_role("region", name="What applying the plan would do")
    await expect(pending.get_by_role("listitem")).to_have_text(
        ["start log target central", "start log target loki"]
    )
    await core.client.apply()
    await core.client.restart("web", 5)
    await asyncio.wait_for(arrived.wait(), 10)
    await page.reload()
    shown = page.get_by_role("region", name="Log targets")
    loki = shown.get_by_role("row", name="loki")
    await expect(loki).to_contain_text("retrying")
    await expect(loki).to_contain_text("lines of web; 1 header, not shown")
    central = shown.get_by_role("row", name="central")
    await expect(central).to_contain_text(re.compile("lines of all processes.*sent[1-9]"))
    assert "hidden" not in await page.locator("main").inner_text()
    await at.picture("targets")
    server.close()
