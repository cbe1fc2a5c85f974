"""A real Chromium, and what it says of the pages that it is shown."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from tests.corex.conftest import REPOSITORY, TOKEN, Container

CHROMIUM = "/usr/bin/chromium"
ARTIFACTS = REPOSITORY / "tests/artifacts/console"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}
# What a browser says of an answer that the page expects, whatever the page does with it.
REFUSAL = "Failed to load resource: the server responded with a status of "
# Milliseconds; another test may have both cores.
EXPECTED = 15_000
expect.set_options(timeout=EXPECTED)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests; each has a context of its own in it."""
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip("chromium is not installed: apt install chromium")
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"] if os.geteuid() == 0 else ["--disable-gpu"]
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        await found.close()


@dataclass
class Watched:
    """A page, and what the browser said of it.

    Attributes:
        page: the page.
        origin: of the Core-X that it is of.
        said: errors and warnings on the browser's console, and uncaught exceptions.
        asked: all URLs that it asked for.
    """

    page: Page
    origin: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def open(self, place: str = "") -> None:
        """Go to a page of the console."""
        await self.page.goto(f"{self.origin}/{place}")

    async def log_in(self, token: str = TOKEN, place: str = "") -> None:
        """Be logged in at a page."""
        await self.open(place)
        await self.page.get_by_label("Token", exact=True).fill(token)
        await self.page.get_by_role("button", name="Log in").click()
        await expect(self.page.get_by_role("navigation", name="Pages")).to_be_visible()

    async def picture(self, name: str) -> None:
        """Keep what it looks like."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=ARTIFACTS / f"{name}.png")

    def forgive(self, status: int) -> None:
        """Take answers of this status, which a test provoked, for no errors; there must be one."""
        kept = [one for one in self.said if not one.startswith(f"error: {REFUSAL}{status}")]
        assert kept != self.said
        self.said[:] = kept


Look = Callable[..., Awaitable[Watched]]


@pytest_asyncio.fixture(loop_scope="session")
async def look(browser: Browser) -> AsyncIterator[Look]:
    """Opens browsers with nothing in them; each must have nothing to complain of in the end."""
    contexts: list[BrowserContext] = []
    watched: list[Watched] = []

    async def page(core: Container, **options: object) -> Watched:
        chosen = {"viewport": DESK, "ignore_https_errors": True, **options}
        context = await browser.new_context(**chosen)  # type: ignore[arg-type]
        context.set_default_timeout(EXPECTED)
        contexts.append(context)
        opened = Watched(await context.new_page(), f"https://{core.endpoint.address}")
        watch(opened)
        watched.append(opened)
        return opened

    yield page
    for context in contexts:
        await context.close()
    assert not [said for one in watched for said in one.said]
    assert not [url for one in watched for url in one.asked if not url.startswith((one.origin, "data:"))]


def watch(watched: Watched) -> None:
    """Note what a browser says of a page."""

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            watched.said.append(f"{message.type}: {message.text}")

    watched.page.on("console", note)
    watched.page.on("pageerror", lambda error: watched.said.append(f"exception: {error}"))
    watched.page.on("request", lambda request: watched.asked.append(request.url))
