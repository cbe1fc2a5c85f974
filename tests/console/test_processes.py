"""Logging in, and processes as a person starts and stops them."""

import pytest
from playwright.async_api import expect

from corex.wire.process import ProcessSpec
from tests.console.conftest import Look, Start

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

SLEEP = ProcessSpec(("sleep", "1000"), {"PATH": "/bin"})


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
