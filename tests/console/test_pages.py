"""All pages: for every role, by keyboard alone, on a phone, light and dark, and while Core-X is away."""

import re

import pytest
from playwright.async_api import Page, expect

from corex.wire.identities import IdentitySpec
from corex.wire.plan import CheckLayer, Layer
from corex.wire.process import ProcessSpec
from tests.console.browser import PHONE, Look, Watched
from tests.console.conftest import Start, digest
from tests.console.shop import PROCESSES

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

SLEEP = ProcessSpec(("sleep", "1000"), {"PATH": "/bin"})
PLACES = {
    "#/processes": "Processes",
    "#/processes/web": "web",
    "#/processes/web/edit": "Edit web",
    "#/new": "Add a process",
    "#/logs": "Logs",
    "#/shell": "Shell",
    "#/files": "Files",
    "#/files/etc": "etc",
    "#/files/etc/passwd": "passwd",
    "#/checks": "Checks",
    "#/events": "Events",
    "#/operations": "Operations",
    "#/plan": "Plan",
    "#/access": "Access",
}
# Controls without a name, as a screen reader finds them (ARIA, accessible name computation by the browser).
UNNAMED = re.compile(
    r"^\s*- (button|textbox|combobox|checkbox|radio|searchbox|link|tab|option|listbox|dialog|img)(:| \[|$)",
    re.M,
)


async def show(at: Watched, place: str) -> None:
    await at.page.evaluate("(place) => { location.hash = place; }", place)
    await expect(at.page.get_by_role("heading", level=1)).to_have_text(PLACES[place])


async def sideways(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(await page.evaluate("document.documentElement.scrollWidth - innerWidth"))


async def hidden_sideways(page: Page) -> int:
    """Pixels of its tables that somebody would have to scroll to."""
    tables = "[...document.querySelectorAll('.scroll')].map((one) => one.scrollWidth - one.clientWidth)"
    return int(await page.evaluate(f"Math.max(0, ...{tables})"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_each_page_fits_a_phone_and_names_all_its_controls(
    start: Start, look: Look, scheme: str
) -> None:
    core = await start(**PROCESSES)
    checks = {"web": CheckLayer(process="web", argv=("sh", "-c", "exit 0"))}
    await core.client.put_layer("checks", Layer(checks=checks))
    await core.client.apply()
    at = await look(core, viewport=PHONE, color_scheme=scheme)
    await at.log_in()
    await core.until("mailer", "backoff")
    for place in PLACES:
        await show(at, place)
        assert await sideways(at.page) <= 0, place
        snapshot = await at.page.locator("body").aria_snapshot()
        assert '- button "' in snapshot
        assert not UNNAMED.findall(snapshot), place
        await at.picture(f"phone-{scheme}-{place.strip('#/').replace('/', '-')}")
    background = await at.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert background == {"light": "rgb(245, 246, 248)", "dark": "rgb(15, 18, 22)"}[scheme]


async def test_nothing_is_cut_off_at_any_width(start: Start, look: Look) -> None:
    core = await start(**PROCESSES)
    at = await look(core)
    await at.log_in()
    await core.until("mailer", "backoff")
    for place in ("#/processes", "#/files/etc", "#/events", "#/access"):
        await show(at, place)
        await expect(at.page.get_by_role("row").first).to_be_visible()
        for width in (320, 770, 1100, 1120, 1600):
            await at.page.set_viewport_size({"width": width, "height": 800})
            assert await sideways(at.page) <= 0, (place, width)
            assert await hidden_sideways(at.page) <= 0, (place, width)


async def test_all_sessions_can_be_reached_from_a_terminal_on_a_phone(start: Start, look: Look) -> None:
    at = await look(await start(web=SLEEP), viewport=PHONE)
    page = at.page
    await at.log_in(place="#/shell")
    await page.get_by_role("button", name="New shell").click()
    await expect(page.locator(".xterm-rows")).to_contain_text("#")
    assert await sideways(page) <= 0
    await page.get_by_role("link", name="All sessions").click()
    await expect(page.get_by_role("button", name="Attach to /bin/sh")).to_be_visible()
    assert await sideways(page) <= 0
    await at.picture("phone-sessions")


async def test_a_viewer_sees_all_and_is_told_why_it_may_do_nothing(start: Start, look: Look) -> None:
    core = await start(web=SLEEP)
    await core.client.put_identity("guest", IdentitySpec("viewer", digest("v" * 43)))
    at = await look(core)
    page = at.page
    await at.log_in("v" * 43)
    await expect(page.get_by_text("guestviewer")).to_be_visible()
    for place in (
        "#/processes",
        "#/processes/web",
        "#/logs",
        "#/shell",
        "#/checks",
        "#/events",
        "#/operations",
        "#/plan",
        "#/access",
    ):
        await show(at, place)
    await show(at, "#/processes/web")
    stop = page.get_by_role("button", name="Stop")
    await expect(stop).to_have_attribute("aria-disabled", "true")
    await stop.click(force=True)
    await expect(page.get_by_role("status").filter(has_text="This needs the role operator.")).to_be_visible()
    assert (await core.client.process("web")).state == "running"


async def test_who_may_read_figures_only_is_told_so(start: Start, look: Look) -> None:
    core = await start(web=SLEEP)
    await core.client.put_identity("prometheus", IdentitySpec("metrics", digest("m" * 43)))
    at = await look(core)
    await at.open()
    await at.page.get_by_label("Token", exact=True).fill("m" * 43)
    await at.page.keyboard.press("Enter")
    await expect(at.page.get_by_text("This token may read figures only").first).to_be_visible()
    at.forgive(403)


async def test_too_many_wrong_tokens_are_answered_with_how_long_to_wait(start: Start, look: Look) -> None:
    core = await start(web=SLEEP)
    at = await look(core)
    await at.open()
    await at.page.evaluate(
        "async () => { for (let at = 0; at < 20; at++)"
        " await fetch('/v1/system', { headers: { Authorization: 'Bearer no' } }); }"
    )
    await at.page.get_by_label("Token", exact=True).fill("guess")
    await at.page.keyboard.press("Enter")
    await expect(at.page.get_by_text(re.compile(r"Wait \d+ s")).first).to_be_visible()
    at.forgive(401)
    at.forgive(429)
    await at.log_in()


async def test_one_tenants_console_and_token_say_nothing_to_another(start: Start, look: Look) -> None:
    ours, theirs = await start("ours", web=SLEEP), await start("theirs", secret=SLEEP)
    token = "x" * 43
    await theirs.client.put_identity("tenant", IdentitySpec("admin", digest(token)))
    at = await look(ours)
    await at.log_in()
    page = at.page
    await expect(page.get_by_role("row", name="web")).to_be_visible()
    tried = await page.evaluate(
        """async (other) => {
          const sent = sessionStorage.getItem("token");
          const all = [fetch(`${other}/v1/system`, { headers: { Authorization: `Bearer ${sent}` } }),
                       fetch(`${other}/`), fetch(`${other}/app.js`, { mode: "no-cors" })];
          return Promise.all(all.map((one) => one.then(() => "answered", () => "refused")));
        }""",
        f"https://{theirs.endpoint.address}",
    )
    assert tried == ["refused", "refused", "refused"]
    socket = await page.evaluate(
        "(other) => new Promise((done) => { try { const made = new WebSocket(other);"
        " made.onopen = () => done('open'); made.onerror = () => done('refused'); } catch { done('refused'); } })",
        f"wss://{theirs.endpoint.address}/v1/sessions",
    )
    assert socket == "refused"
    # the policy says so on the browser's console, once for each
    assert [said for said in at.said if "Content Security Policy" in said or "violates" in said]
    at.said.clear()
    at.asked[:] = [url for url in at.asked if url.startswith(at.origin)]
    # the same browser at the other's console: another origin, another storage
    await page.goto(f"https://{theirs.endpoint.address}/")
    await expect(page.get_by_label("Token", exact=True)).to_be_visible()
    assert await page.evaluate("sessionStorage.length") == 0
    await page.get_by_label("Token", exact=True).fill("t" * 42 + "u")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("That token is not right.").first).to_be_visible()
    at.forgive(401)
    at.asked.clear()


async def test_all_is_done_by_keys_and_by_the_palette(start: Start, look: Look) -> None:
    core = await start(web=SLEEP)
    at = await look(core)
    page = at.page
    await at.open()
    await page.keyboard.type("t" * 43)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("row", name="web")).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    for _ in range(12):
        await page.keyboard.press("Tab")
    outline = "(one) => getComputedStyle(one).outlineStyle"
    assert await page.locator(":focus").evaluate(outline) == "solid"
    await page.keyboard.press("Control+k")
    await page.keyboard.type("stop web")
    await expect(page.get_by_role("option", name="Stop web")).to_have_attribute("aria-selected", "true")
    await page.keyboard.press("Enter")
    await core.until("web", "stopped")
    await expect(page.get_by_role("row", name="web")).to_contain_text("stopped")
    await page.keyboard.press("Control+k")
    await page.keyboard.type("theme dark")
    await page.keyboard.press("Enter")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await expect(page.get_by_role("row", name="web")).to_be_visible()
    await page.keyboard.press("Control+k")
    await page.keyboard.type("events")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("row").filter(has_text="It was stopped").first).to_be_visible()
    await page.keyboard.press("Control+k")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_what_is_copied_is_what_is_shown(start: Start, look: Look) -> None:
    core = await start("it-s", web=SLEEP)
    at = await look(core, permissions=["clipboard-read", "clipboard-write"])
    page = at.page
    await at.log_in(place="#/processes/web")
    await page.get_by_role("button", name="Copy as curl or zn").click()
    await page.get_by_role("button", name="Copy as curl: Stop").click()
    copied = await page.evaluate("navigator.clipboard.readText()")
    command = f"curl -k -H \"Authorization: Bearer $TOKEN\" -X POST 'https://{core.endpoint.address}/v1/processes/web/stop?wait=60'"
    assert copied == command


async def test_a_connection_that_is_lost_is_said_and_found_again(start: Start, look: Look) -> None:
    core = await start(web=SLEEP)
    at = await look(core)
    page = at.page
    await at.log_in()
    await expect(page.get_by_role("row", name="web")).to_contain_text("running")
    await page.context.set_offline(True)
    await expect(page.get_by_role("alert").filter(has_text="The connection is lost.")).to_be_visible()
    await at.picture("lost")
    await core.client.stop("web", wait=10)
    await page.context.set_offline(False)
    await expect(page.get_by_role("row", name="web")).to_contain_text("stopped")
    await page.route("**/v1/identities", lambda route: route.abort())
    await page.reload()
    await expect(page.get_by_text("Core-X does not answer. Trying again…")).to_be_visible()
    await page.unroute("**/v1/identities")
    await expect(page.get_by_role("row", name="web")).to_contain_text("stopped")
    await expect(page.get_by_text("The connection is lost.")).to_have_count(0)
    at.said[:] = [one for one in at.said if "net::ERR_" not in one]


async def test_somebody_is_let_in_with_a_token_that_core_x_never_saw(start: Start, look: Look) -> None:
    core = await start(web=SLEEP)
    at = await look(core)
    page = at.page
    await at.log_in(place="#/access")
    await page.get_by_role("button", name="Let somebody in").click()
    await page.get_by_label("Name", exact=True).fill("guest")
    await page.get_by_role("radio", name="operator").check()
    await page.get_by_role("button", name="Make a token").click()
    token = await page.get_by_label("Token", exact=True).inner_text()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    await page.get_by_role("button", name="Done").click()
    await expect(page.get_by_role("row", name="guest").filter(has_text="operator")).to_be_visible()
    done = page.get_by_role("region", name="Who did what")
    await expect(done.get_by_role("row").filter(has_text="user_created").first).to_contain_text("owner")
    other = await look(core)
    await other.log_in(token)
    await page.get_by_role("button", name="Let guest in no more").click()
    await expect(other.page.get_by_text("The token is not accepted any more.")).to_be_visible()
    await other.page.close()  # others of its requests may be refused yet
    other.forgive(401)
