"""Logs as they come: gaps, colours, hostile text, and a page that never grows without end."""

import re
from contextlib import aclosing

import pytest
from playwright.async_api import expect

from corex.wire.api import LogLine
from corex.wire.process import ProcessSpec
from tests.console.browser import PHONE, Look
from tests.console.conftest import Start

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

ENV = {"PATH": "/bin"}
HOSTILE = r"""
printf '<img src=x onerror="document.title=1"><script>document.title=2</script>\n'
printf '\033[31mred\033[0m \033[38;5;208morange\033[m \033[48;2;1;2;3mdark\033[0m plain\n'
printf '\033]0;owned\007title \033[2Jcleared \033[1;1Hhome\n'
printf 'turned \342\200\256 round\n'
printf 'raw \377 byte\n' >&2
echo last
sleep 1000
"""


async def test_hostile_text_stays_text_and_colours_are_kept(start: Start, look: Look) -> None:
    at = await look(await start(evil=ProcessSpec(("sh", "-c", HOSTILE), ENV)))
    await at.log_in(place="#/logs")
    log = at.page.get_by_role("log")
    await expect(log).to_contain_text("last")
    await expect(log).to_contain_text(
        '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    )
    assert await log.locator("img, script").count() == 0
    await expect(log).to_contain_text("title cleared home")
    await expect(log).to_contain_text("turned \\u202e round")
    await expect(log).to_contain_text("err raw \\xff byte")
    assert await at.page.title() == "Logs · shop"
    red, orange, dark = (log.get_by_text(word, exact=True) for word in ("red", "orange", "dark"))
    assert await red.get_attribute("class") == "sgr-color-1"
    assert await orange.evaluate("(one) => getComputedStyle(one).color") == "rgb(255, 135, 0)"
    assert await dark.evaluate("(one) => getComputedStyle(one).backgroundColor") == "rgb(1, 2, 3)"
    assert await log.get_by_text("plain").evaluate("(one) => one.className") == "text"


async def test_what_was_overwritten_is_a_gap_and_lines_and_gaps_are_all_that_was_written(
    start: Start, look: Look
) -> None:
    # 20,000 lines of 200 bytes: their ring keeps some 1,000, and the page asks for the newest 5,000
    flood = ProcessSpec(("sh", "-c", f"yes {'x' * 200} | head -n 19999; echo end; exec sleep 1000"), ENV)
    core = await start(flood=flood)
    async with aclosing(core.client.follow("flood")) as records:
        async for record in records:
            if isinstance(record, LogLine) and record.text == "end":
                break
    at = await look(core)
    await at.log_in(place="#/logs")
    log = at.page.get_by_role("log")
    await expect(log).to_contain_text("end")
    gap = log.locator(".gap")
    await expect(gap).to_have_text(re.compile("^[0-9,]+ lines were overwritten before they were read$"))
    lost = int((await gap.inner_text()).split()[0].replace(",", ""))
    assert lost + await log.locator(".line").count() == 5000
    await at.page.get_by_role("log").evaluate("(log) => log.scrollTo(0, 0)")
    await at.picture("logs-gap")


async def test_filters_are_in_the_address_and_a_wrong_pattern_is_said_at_its_field(
    start: Start, look: Look
) -> None:
    talk = ProcessSpec(("sh", "-c", "echo one; echo two >&2; exec sleep 1000"), ENV)
    at = await look(await start(first=talk, second=talk))
    await at.log_in(place="#/logs?process=first")
    page, log = at.page, at.page.get_by_role("log")
    await expect(log.locator(".line")).to_have_count(2)
    await page.get_by_label("Stream").select_option("stderr")
    await expect(log).to_have_text(re.compile(r"^[\d:.]+firsterr two$"))
    await page.get_by_label("Pattern").fill("t(wo")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert").filter(has_text="match")).to_be_visible()
    await expect(page.get_by_label("Pattern")).to_have_attribute("aria-invalid", "true")
    at.forgive(422)
    await page.get_by_label("Pattern").fill("t.o")
    await page.keyboard.press("Enter")
    await expect(log.locator(".line")).to_have_count(1)
    await page.reload()
    await expect(log.locator(".line")).to_have_count(1)
    assert "match=t.o" in page.url


async def test_scrolling_up_pauses_and_the_newest_line_is_one_press_away(start: Start, look: Look) -> None:
    script = "i=0; while [ $i -lt 200 ]; do i=$((i + 1)); echo line $i; done; exec sleep 1000"
    core = await start(
        talk=ProcessSpec(("sh", "-c", script), ENV),
        late=ProcessSpec(("sh", "-c", "echo fresh"), ENV, enabled=False),
    )
    at = await look(core, viewport=PHONE, color_scheme="dark")
    await at.log_in(place="#/logs")
    page, log = at.page, at.page.get_by_role("log")
    await expect(log).to_contain_text("line 200")
    await log.hover()
    await page.mouse.wheel(0, -600)
    await expect(page.get_by_role("status").filter(has_text="Paused")).to_be_visible()
    await core.client.start("late")
    await page.get_by_role("button", name="1 new line").click()
    await expect(log).to_contain_text("fresh")
    await expect(log.get_by_text("fresh")).to_be_in_viewport()
    await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
