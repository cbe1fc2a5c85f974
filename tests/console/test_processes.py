"""Logging in, and processes as a person starts and stops them."""

import re

import pytest
from playwright.async_api import expect

from corex.wire.process import ProcessSpec
from tests.console.browser import Look
from tests.console.conftest import Start
from tests.console.shop import PROCESSES

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

SLEEP = ProcessSpec(("sleep", "1000"), {"PATH": "/bin"})

# Has all that is written on canvases.
NOTE_LABELS = """
  globalThis.labels = [];
  const draw = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {
    labels.push(text);
    return draw.call(this, text, ...where);
  };
"""
# What an axis of bytes may say: steps are powers of two.
EVEN = {"256.0 KiB", "512.0 KiB", "768.0 KiB"} | {f"{quarter / 4:.2f} MiB" for quarter in range(40)}


async def test_a_wrong_token_is_said_to_be_wrong_and_a_right_one_gets_in(start: Start, look: Look) -> None:
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.open()
    await page.get_by_label("Token", exact=True).fill("guess")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("That token is not right.").first).to_be_visible()
    at.forgive(401)
    await at.picture("login-wrong")
    await at.log_in()
    await expect(page.get_by_role("row", name="web")).to_contain_text("running")
    assert not [url for url in at.asked if "t" * 43 in url]
    await page.reload()
    await expect(page.get_by_role("row", name="web")).to_be_visible()
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_label("Token", exact=True)).to_be_visible()
    assert await page.evaluate("sessionStorage.length") == 0


async def test_a_process_is_stopped_started_restarted_and_signalled(start: Start, look: Look) -> None:
    script = "trap 'echo got it' HUP; echo up; while :; do sleep 0.05; done"
    core = await start(web=ProcessSpec(("sh", "-c", script), {"PATH": "/bin"}, scope="process"))
    at = await look(core)
    page = at.page
    await at.log_in()
    row = page.get_by_role("row", name="web")
    await core.output("web", 1)
    await row.get_by_role("button", name="Stop web").click()
    await expect(row).to_contain_text("stopped")
    await row.get_by_role("button", name="Start web", exact=True).click()
    await expect(row).to_contain_text("running")
    await row.get_by_role("link", name="web").click()
    assert await core.output("web", 2) == ["up", "up"]
    await page.get_by_role("button", name="Signal…").click()
    await page.get_by_role("button", name="Send").click()
    assert (await core.output("web", 3))[-1] == "got it"
    first = (await core.client.process("web")).pid
    await page.get_by_role("button", name="Restart").click()
    await expect(page.get_by_role("row").filter(has_text="restart").first).to_be_visible()
    assert (await core.until("web", "running")).pid != first
    # somebody else's change comes by itself
    await core.client.stop("web", wait=10)
    await expect(page.get_by_label("State")).to_contain_text("It was stopped on request")


async def test_only_what_was_added_by_itself_can_be_deleted(start: Start, look: Look) -> None:
    core = await start(web=ProcessSpec(("true",), {"PATH": "/bin"}, enabled=False))
    await core.client.put("more", SLEEP)
    at = await look(core)
    page = at.page
    delete = page.get_by_role("button", name="Delete…")
    await at.log_in(place="#/processes/web")
    await expect(page.get_by_text("Layer container declares it. See Plan.")).to_be_visible()
    await expect(delete).to_have_attribute("aria-disabled", "true")
    await delete.click(force=True)
    told = page.get_by_role("status").filter(has_text="Layer container declares it: change that under Plan.")
    await expect(told).to_be_visible()
    await page.get_by_role("link", name="Processes").click()
    await page.get_by_role("link", name="more", exact=True).click()
    await expect(page.get_by_text("It was added by itself, in layer edits.")).to_be_visible()
    await delete.click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("heading", name="Processes")).to_be_visible()
    assert [info.name for info in await core.client.processes()] == ["web"]


async def test_edits_lie_over_a_layer_until_they_are_taken_back(start: Start, look: Look) -> None:
    core = await start(web=ProcessSpec(("sleep", "1000"), {"PATH": "/bin"}))
    await core.client.put("more", SLEEP)
    at = await look(core)
    page = at.page
    await at.log_in(place="#/processes/web/edit")
    await expect(
        page.get_by_text("Layer container declares web. What you save lies over that")
    ).to_be_visible()
    await page.get_by_label("Command", exact=True).fill("sleep 2000")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Layer container declares it; edits of it lie over that.")).to_be_visible()
    await expect(page.get_by_role("button", name="Delete…")).to_have_count(0)
    await page.get_by_role("button", name="Copy as curl or zn").click()
    await expect(page.get_by_label("Take edits back; then apply the plan as curl")).to_contain_text("del(")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Take edits back…").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("listitem")).to_have_text(
        ["change web as it runs: argv differs", "start more"]
    )
    await at.picture("edits-back")
    await dialog.get_by_role("button", name="Take back and apply").click()
    await expect(page.get_by_text("Layer container declares it. See Plan.")).to_be_visible()
    info = await core.client.process("web")
    assert (info.spec.argv, info.layers) == (("sleep", "1000"), ("container",))
    assert (await core.client.process("more")).layers == ("edits",)


async def test_why_it_waits_and_what_it_uses_is_told(start: Start, look: Look) -> None:
    at = await look(await start(**PROCESSES))
    page = at.page
    await page.add_init_script(NOTE_LABELS)
    await at.log_in()
    mailer = page.get_by_role("row", name="mailer")
    await expect(mailer).to_contain_text("backoff")
    await expect(mailer).to_contain_text(re.compile("It exited with code 75.*next start in"))
    await expect(page.get_by_role("row", name="newsletter")).to_contain_text(
        "It starts once import has succeeded"
    )
    await page.get_by_role("link", name="orders").click()
    await expect(page.get_by_role("img", name=re.compile(r"^CPU: now [\d.]+ %"))).to_be_visible()
    await expect(page.get_by_role("img", name=re.compile(r"^Memory: now [\d.]+ MiB"))).to_be_visible()
    await expect(page.locator(".u-wrap canvas")).to_have_count(2)
    await page.wait_for_function("labels.some((text) => text.endsWith('iB'))")
    labels = await page.evaluate("labels")
    assert {label for label in labels if "iB" in label} <= EVEN
    assert "00:00:00" not in labels
    await at.picture("process")
