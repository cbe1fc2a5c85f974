"""What pages show for a terminal is what a shell, zn and Core-X understand."""

import functools
import subprocess
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs, quote_from_bytes, urlsplit

import msgspec
import pytest
from playwright.async_api import Page, expect

from cli.frame import MOUNTS, load
from corex.http.routes import Match, match
from corex.rest.api import table
from corex.wire.process import ProcessSpec
from tests.console.browser import Look
from tests.console.conftest import Start
from tests.console.test_pages import PLACES, show

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

SLEEP = ProcessSpec(("sleep", "1000"), {"PATH": "/bin"})
HOSTILE = b"it's \xff\x07;$(id) .txt"
FILTERS = "process=web&process=db&stream=stderr&match=it's%20%24%7Bno%7D&span=given&since=2026-11-22T10:00"
# What the shell is given in the place of programs: each tells its words, and reads all of its input.
PROGRAMS = """
zn() { printf 'zn\\0' >&3; printf '%s\\0' "$@" >&3; printf '\\n' >&3; [ -t 0 ] || cat > input; }
curl() { printf 'curl\\0' >&3; printf '%s\\0' "$@" >&3; printf '\\n' >&3; cat > /dev/null; }
tar() { :; }
jq() { :; }
"""


def words_of(commands: Iterable[str], folder: Path) -> list[list[list[str]]]:
    """The programs that each of some lines of a shell starts, each with its words."""
    numbered = dict(enumerate(commands))
    lines = [f"exec 3>words-{number}\n{command}\n" for number, command in numbered.items()]
    (folder / "script").write_text(PROGRAMS + "".join(lines))
    done = subprocess.run(
        ["bash", "-c", ". ./script < /dev/null"], cwd=folder, capture_output=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, b"")
    told = [(folder / f"words-{number}").read_bytes() for number in numbered]
    return [[_words(program) for program in started.split(b"\0\n") if program] for started in told]


def _words(program: bytes) -> list[str]:
    return [word.decode(errors="surrogateescape") for word in program.split(b"\0")]


noun = functools.cache(load)


def understood_by_zn(words: list[str]) -> None:
    """Read them as zn does; what it does not know raises."""
    assert words[0] in MOUNTS
    name, *rest = words
    command = noun(name)
    context = command.make_context(name, rest)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def understood_by_core_x(words: list[str]) -> None:
    """Find the route that curl would ask for, with parameters that it has."""
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    url = urlsplit(next(one for one in words if one.startswith("https://")))
    found = match(table(), method, url.path)
    assert isinstance(found, Match), words
    known = {field.encode_name for field in msgspec.structs.fields(found.route.parameters)}
    assert set(parse_qs(url.query)) <= known, words
    assert "Authorization: Bearer $TOKEN" not in words
    assert any(one.startswith("Authorization: Bearer ") for one in words)
    assert not any("t" * 43 in one for one in words)


async def shown(page: Page) -> dict[str, str]:
    """All that a page shows for a terminal, by what it is."""
    await page.get_by_role("button", name="Copy as curl or zn").click()
    dialog = page.get_by_role("dialog", name="The same from a terminal")
    await expect(dialog.locator("pre").first).to_be_visible()
    found = await dialog.locator("pre").evaluate_all(
        "(all) => all.map((one) => [one.getAttribute('aria-label'), one.textContent])"
    )
    await page.keyboard.press("Escape")
    return dict(found)


def check(commands: dict[str, str], folder: Path) -> None:
    for title, started in zip(commands, words_of(commands.values(), folder), strict=True):
        assert started, title
        for program, *words in started:
            (understood_by_zn if program == "zn" else understood_by_core_x)(words)


async def test_every_command_of_every_page_is_understood(start: Start, look: Look, tmp_path: Path) -> None:
    core = await start("it-s", web=SLEEP)
    await core.client.put("web", ProcessSpec(("sleep", "2000"), {"PATH": "/bin"}))
    await core.client.put("own", SLEEP)
    at = await look(core)
    await at.log_in(place="#/processes/web")
    for place in PLACES:
        await show(at, place)
        commands = await shown(at.page)
        assert commands
        check(commands, tmp_path)
    await at.open("#/processes/own")
    commands = await shown(at.page)
    hint = at.page.get_by_role("dialog").locator("code", has_text="login")
    await at.page.get_by_role("button", name="Copy as curl or zn").click()
    understood_by_zn((await hint.inner_text()).split()[1:])
    assert commands["Delete as zn"] == "zn process rm it-s own"
    check(commands, tmp_path)


async def test_what_a_form_says_is_put_as_it_is(start: Start, look: Look, tmp_path: Path) -> None:
    at = await look(await start("it-s", web=SLEEP))
    page = at.page
    await at.log_in(place="#/new")
    await page.get_by_label("Name", exact=True).fill("greeter")
    await page.get_by_label("Command", exact=True).fill('echo "it\'s $HOME" END')
    commands = await shown(page)
    assert commands["Add it as zn"].startswith("zn process put it-s greeter - --if-absent --start <<'END'\n")
    words_of([commands["Add it as zn"]], tmp_path)
    assert msgspec.json.decode((tmp_path / "input").read_bytes()) == {"argv": ["echo", "it's $HOME", "END"]}
    check(commands, tmp_path)


async def test_filters_of_logs_and_names_of_files_reach_the_terminal(
    start: Start, look: Look, busybox_root: Path, tmp_path: Path
) -> None:
    core = await start("it-s", web=SLEEP, db=SLEEP)
    path = busybox_root / "tmp" / HOSTILE.decode(errors="surrogateescape")
    path.write_text("hello")
    at = await look(core, timezone_id="UTC")
    page = at.page
    await at.log_in(place=f"#/logs?{FILTERS}")
    commands = await shown(page)
    (((_, *words),),) = words_of([commands["These lines as zn"]], tmp_path)
    logs = ["process", "logs", "it-s", "web", "db", "--stream=stderr", "--match=it's ${no}"]
    assert words == [*logs, "--since=2026-11-22T10:00:00.000Z"]
    check(commands, tmp_path)
    await at.open(f"#/files/tmp/{quote_from_bytes(HOSTILE)}")
    await expect(page.get_by_label("Beginning of the file")).to_be_visible()
    commands = await shown(page)
    (((_, *words),),) = words_of([commands["What is in it as zn"]], tmp_path)
    assert words == ["file", "cat", "it-s", f"/tmp/{path.name}"]
    (((_, *words),),) = words_of([commands["Download it as zn"]], tmp_path)
    assert words == ["cp", f"it-s:/tmp/{path.name}", "."]
    check(commands, tmp_path)
    path.unlink()
