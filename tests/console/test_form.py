"""Adding and editing processes and layers: what is wrong is said at the field that it is of."""

import json
import re

import pytest
from playwright.async_api import Page, expect

from corex.wire.process import ProcessSpec, Readiness, Schedule
from tests.console.browser import Look
from tests.console.conftest import Start

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

ENV = {"PATH": "/bin"}
SLEEP = ProcessSpec(("sleep", "1000"), ENV)


async def save(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()


async def test_a_process_is_added_after_what_was_wrong_was_shown_at_its_field(
    start: Start, look: Look
) -> None:
    core = await start(web=SLEEP)
    at = await look(core)
    page = at.page
    await at.log_in(place="#/new")
    command, name = page.get_by_label("Command", exact=True), page.get_by_label("Name", exact=True)
    await command.fill("sleep 'ten")
    await save(page, "Add process")
    await expect(name).to_be_focused()
    await expect(page.get_by_text("A name has up to 63 small letters")).to_be_visible()
    await name.fill("job")
    await save(page, "Add process")
    await expect(command).to_be_focused()
    await expect(command).to_have_accessible_description(re.compile("A quote ' is not closed."))
    await command.fill("sh -c 'echo \"a  b\" $WORD; sleep 1000'")
    await page.get_by_role("button", name="Add a variable").click()
    await page.get_by_label("Variable 1", exact=True).fill("PATH")
    await page.get_by_label("Value 1", exact=True).fill("/bin")
    await page.get_by_text("Advanced").click()
    await page.get_by_label("Stop signal").fill("SIGNOTHING")
    await page.get_by_text("Advanced").click()
    await save(page, "Add process")
    await expect(page.get_by_label("Stop signal")).to_be_focused()
    await expect(page.get_by_label("Stop signal")).to_have_attribute("aria-invalid", "true")
    at.forgive(422)
    await at.picture("form-wrong")
    await page.get_by_label("Stop signal").fill("")
    await page.get_by_label("Stop time-out").fill("soon")
    await save(page, "Add process")
    await expect(page.get_by_label("Stop time-out")).to_be_focused()
    at.forgive(422)
    await page.get_by_label("Stop time-out").fill("3")
    await save(page, "Add process")
    await expect(page.get_by_role("heading", name="job")).to_be_visible()
    assert (await core.until("job", "running")).spec == ProcessSpec(
        ("sh", "-c", 'echo "a  b" $WORD; sleep 1000'), ENV, stop_timeout=3
    )


async def test_a_name_that_is_taken_and_a_specification_that_has_changed_are_kept(
    start: Start, look: Look
) -> None:
    core = await start(web=SLEEP)
    at = await look(core)
    page = at.page
    await at.log_in(place="#/new")
    await page.get_by_label("Name", exact=True).fill("web")
    await page.get_by_label("Command", exact=True).fill("true")
    await save(page, "Add process")
    await expect(page.get_by_text("There is a process web already.")).to_be_visible()
    at.forgive(412)
    await at.open("#/processes/web/edit")
    await page.get_by_label("User").fill("1000")
    await core.client.put("web", ProcessSpec(("sleep", "2000"), ENV))
    await save(page, "Save")
    await expect(page.get_by_role("alert").filter(has_text="Somebody has changed it")).to_be_visible()
    at.forgive(412)
    await page.get_by_role("button", name="Read it again").click()
    await expect(page.get_by_label("Command", exact=True)).to_have_value("sleep 2000")
    await page.get_by_label("User").fill("1000")
    await save(page, "Save")
    await expect(page.get_by_text("Restart it to use its new specification").first).to_be_visible()
    assert (await core.client.process("web")).spec == ProcessSpec(("sleep", "2000"), ENV, user="1000")


async def test_each_field_of_a_specification_comes_back_from_the_form_as_it_was(
    start: Start, look: Look
) -> None:
    # what a container has none of, such as another zone, is left out
    full = {
        "argv": ["sh", "-c", "echo one\nsleep 1000", ""],
        "env": {"PATH": "/bin", "WORDS": "two words = three"},
        "cwd": "/tmp",
        "user": "web",
        "restart": "on-failure",
        "stop_signal": "SIGINT",
        "stop_timeout": 2.5,
        "groups": ["audio", "4"],
        "umask": "0077",
        "limits": {"nofile": [512, 1024], "core": [0, -1]},
        "nice": 5,
        "scope": "process",
        "after": {"web": "started"},
        "ready": {"port": 80, "path": "/health", "interval": 1, "timeout": 9},
        "backoff": {"first": 1, "factor": 3, "cap": 60, "jitter": 0.1, "stable": 20, "limit": 5},
        "on_success": "stop-container",
        "on_failure": "stop-container",
        "enabled": False,
    }
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place="#/new")
    for spec in (
        full,
        {
            "argv": ["report"],
            "kind": "scheduled",
            "schedule": {"cron": "0 6 * * MON-FRI", "zone": "Europe/Berlin"},
        },
        {"argv": ["report"], "kind": "scheduled", "schedule": {"every": 90}, "ready": {"line": "a b"}},
        {"argv": ["a"], "ready": {"notify": True, "watchdog": 3}},
        {"argv": ["a"], "kind": "one-shot", "ready": {"argv": ["test", "-f", "/a b"]}},
    ):
        await page.get_by_role("button", name="JSON").click()
        await page.get_by_label("Specification").fill(json.dumps(spec))
        await page.get_by_role("button", name="Form").click()
        await expect(page.get_by_label("Command", exact=True)).to_be_visible()
        await page.get_by_role("button", name="JSON").click()
        assert json.loads(await page.get_by_label("Specification").input_value()) == spec
    assert set(ProcessSpec.__struct_fields__) == {*full, "kind", "schedule"}
    assert set(Readiness.__struct_fields__) == {*full["ready"], "line", "argv", "notify", "watchdog"}  # type: ignore[misc]
    assert set(Schedule.__struct_fields__) == {"cron", "zone", "every"}


async def test_a_layer_is_tried_saved_and_applied(start: Start, look: Look) -> None:
    core = await start(web=SLEEP)
    at = await look(core)
    page = at.page
    await at.log_in(place="#/plan")
    await page.get_by_role("button", name="Add layer").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("more")
    says = dialog.get_by_label("What it says")
    await says.fill('{"processes": {"db": {"argv": []}}}')
    await dialog.get_by_role("button", name="Try").click()
    await expect(dialog.get_by_text("(at /processes)")).to_be_visible()
    at.forgive(422)
    await says.fill(
        '{"processes": {"db": {"argv": ["sleep", "9"], "env": {"PATH": "/bin"}}, "web": {"nice": 3}}}'
    )
    await dialog.get_by_role("button", name="Try").click()
    await expect(dialog.get_by_role("listitem")).to_have_text(["restart web: nice differs", "start db"])
    assert [layer.name for layer in await core.client.layers()] == ["container"]
    await at.picture("layer")
    await dialog.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_role("listitem").filter(has_text="start db")).to_be_visible()
    await page.get_by_role("button", name="Apply the plan").click()
    await expect(page.get_by_text("Nothing: all is as the plan says.")).to_be_visible()
    await core.until("db", "running")
    assert (await core.client.process("web")).spec.nice == 3
