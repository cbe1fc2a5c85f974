"""Shells in tabs: typing, sizes, and coming back to where one was."""

import re

import pytest
from playwright.async_api import Locator, Page, WebSocketRoute, expect

from corex.wire.identities import IdentitySpec
from corex.wire.process import ProcessSpec
from corex.wire.sessions import SessionSpec, Window
from tests.console.browser import Look
from tests.console.conftest import Start, digest

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

SLEEP = ProcessSpec(("sleep", "1000"), {"PATH": "/bin"})


async def open_shell(page: Page) -> None:
    await page.get_by_role("button", name="New shell").click()
    await expect(screen(page)).to_contain_text("/ #")
    await expect(page.get_by_label("Terminal input")).to_be_focused()


def screen(page: Page) -> Locator:
    return page.locator(".xterm-rows")


async def test_a_terminal_takes_keys_has_the_windows_size_and_survives_a_reload(
    start: Start, look: Look
) -> None:
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place="#/shell")
    assert not [url for url in at.asked if "xterm" in url], "it is loaded when it is needed first"
    await open_shell(page)
    await page.keyboard.type("x=mine; stty size\n")
    await expect(screen(page)).to_contain_text(re.compile(r"\d+ \d+/ #|\d+ \d+"))
    sizes = r"(\d\d) (\d\d\d?)(?!\d)"
    before = re.search(sizes, await screen(page).inner_text())
    assert before
    await page.set_viewport_size({"width": 900, "height": 500})
    await page.keyboard.type("stty size; printf '\\033[38;2;255;120;0morange\\033[0m\\n'\n")
    await expect(screen(page).get_by_text("orange", exact=True)).to_have_css("color", re.compile(r"^rgb"))
    after = re.findall(sizes, await screen(page).inner_text())[-1]
    assert int(after[0]) < int(before[1])
    assert int(after[1]) < int(before[2])
    url = page.url
    await page.reload()
    await expect(screen(page)).to_contain_text("orange")
    assert page.url == url
    await expect(page.get_by_label("Terminal input")).to_be_focused()
    await page.keyboard.type("echo it is $x\n")
    await expect(screen(page)).to_contain_text("it is mine")
    await at.picture("shell")


async def test_a_shell_goes_on_while_another_page_is_shown_and_ends_with_its_code(
    start: Start, look: Look
) -> None:
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place="#/shell")
    await open_shell(page)
    await page.keyboard.type("(sleep 0.3; echo meanwhile) &\n")
    await page.keyboard.press("Control+F6")
    await expect(page.get_by_role("tab")).to_be_focused()
    await page.get_by_role("link", name="Processes").click()
    await expect(page.get_by_role("heading", name="Processes")).to_be_visible()
    await page.go_back()
    await expect(screen(page)).to_contain_text("meanwhile")
    await page.get_by_label("Terminal input").focus()
    await page.keyboard.type("exit 7\n")
    await expect(page.get_by_role("status").filter(has_text="It ended with code 7.")).to_be_visible()


async def test_who_may_only_watch_sees_what_others_type_and_types_nothing(start: Start, look: Look) -> None:
    core = await start(web=SLEEP)
    token = "v" * 43
    await core.client.put_identity("guest", IdentitySpec("viewer", digest(token)))
    spec = SessionSpec(("/bin/sh",), {"PATH": "/bin"}, window=Window(24, 80), keep=600)
    made = await core.client.create_session(spec)
    at = await look(core)
    page = at.page
    await at.log_in(token, place="#/shell")
    await expect(page.get_by_role("button", name=re.compile("^New shell|Attach"))).to_have_count(2)
    await page.get_by_role("button", name=re.compile("^Attach")).click(force=True)
    await expect(page.get_by_role("status").filter(has_text="This needs the role operator.")).to_be_visible()
    await page.get_by_role("button", name="Watch /bin/sh").click()
    await expect(screen(page)).to_contain_text("/ #")
    await page.keyboard.type("echo from the guest\n")
    async with core.client.attach(made.id) as attachment:
        await attachment.write(b"echo from the owner\n")
        await expect(screen(page)).to_contain_text("from the owner")
    await expect(screen(page)).not_to_contain_text("guest")


async def test_a_connection_that_breaks_is_made_anew_and_nothing_is_shown_or_typed_twice(
    start: Start, look: Look
) -> None:
    at = await look(await start(web=SLEEP))
    page = at.page
    sockets: list[WebSocketRoute] = []

    def pass_on(route: WebSocketRoute) -> None:
        sockets.append(route)
        route.connect_to_server()

    await page.route_web_socket(re.compile("/attach"), pass_on)
    await at.log_in(place="#/shell")
    await open_shell(page)
    await page.keyboard.type("echo be''fore\n")
    await expect(screen(page)).to_contain_text("before")
    await sockets[0].close(code=1012)
    await page.keyboard.type("echo af''ter\n")
    await expect(screen(page)).to_contain_text("after")
    assert len(sockets) == 2
    assert "after=" in sockets[1].url
    assert "after=0" not in sockets[1].url
    text = await screen(page).inner_text()
    assert (text.count("before"), text.count("after")) == (1, 1)


async def test_a_long_paste_arrives_whole(start: Start, look: Look) -> None:
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place="#/shell")
    await open_shell(page)
    # a terminal that is read raw takes any number of bytes; 'R' says that it is raw by now
    await page.keyboard.type("stty raw -echo; echo R; head -c 1000000 | wc -c; stty sane\n")
    await expect(screen(page)).to_contain_text(re.compile("R\\s"))
    await page.get_by_label("Terminal input").evaluate(
        """(input) => {
          const data = new DataTransfer();
          data.setData("text/plain", "x".repeat(1000000));
          input.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
        }"""
    )
    await expect(screen(page)).to_contain_text("1000000")
