"""The container's files, as a person looks at them and changes them."""

import asyncio
import io
import os
import re
import tarfile
from pathlib import Path

import pytest
from playwright.async_api import FilePayload, Locator, Page, Route, expect

from corex.wire.identities import IdentitySpec
from corex.wire.process import ProcessSpec
from tests.console.browser import Look
from tests.console.conftest import Start, digest

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

SLEEP = ProcessSpec(("sleep", "1000"), {"PATH": "/bin"})
HOSTILE = {
    b"<img src=x onerror=alert(1)>": "<img src=x onerror=alert(1)>",
    b"bell\x07and\nline": r"bell\x07and\nline",
    b"caf\xe9 \xff%41+&?#": r"caf\xe9 \xff%41+&?#",
    "gnp.\u202egpj".encode(): r"gnp.\u202egpj",
    "größe 漢字".encode(): "größe 漢字",
}


@pytest.fixture
def folder(busybox_root: Path, request: pytest.FixtureRequest) -> Path:
    """A folder of the container's for one test."""
    made = busybox_root / "srv" / request.node.name.replace("test_", "")[:30]
    made.mkdir(parents=True)
    return made


def fill(folder: Path) -> None:
    """Files with those names, each with its name's bytes in it."""
    for name in HOSTILE:
        (folder / os.fsdecode(name)).write_text(f"I am {name.hex()}")


def names(folder: Path) -> set[bytes]:
    return {os.fsencode(path.name) for path in folder.iterdir()}


def read(path: Path) -> bytes:
    return path.read_bytes()


def place(folder: Path, *names: str) -> str:
    """The address of its page."""
    return "/".join(("#/files/srv", folder.name, *names))


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name))


def payload(name: str, content: bytes) -> FilePayload:
    return FilePayload(name=name, mimeType="application/octet-stream", buffer=content)


async def send(page: Page, *files: FilePayload) -> None:
    await page.get_by_role("button", name="Upload…").click()
    await page.get_by_label("Files", exact=True).set_input_files(list(files))
    await page.get_by_role("dialog").get_by_role("button", name="Upload", exact=True).click()


async def downloaded(page: Page, button: str) -> tuple[str, Path]:
    """What a button fetches: the name that the browser gives it, and the file."""
    async with page.expect_download() as coming:
        await page.get_by_role("button", name=button).click()
    got = await coming.value
    return got.suggested_filename, await got.path()


def said(page: Page, text: str) -> Locator:
    return page.get_by_role("status").filter(has_text=text)


async def test_folders_are_gone_through_and_a_text_is_shown(start: Start, look: Look, folder: Path) -> None:
    (folder / "app").mkdir()
    (folder / "app/config.toml").write_text('name = "shop"\r\nport = 8080\r\n')
    (folder / "app/evil.txt").write_bytes("left \u202egnp\x1b[31m <b>bold</b>\n".encode())
    (folder / "app/data.bin").write_bytes(bytes(range(256)))
    (folder / "here").symlink_to("app")
    (folder / "dead").symlink_to("nowhere")
    os.chown(folder / "app/config.toml", 1000, 1001)
    (folder / "app/config.toml").chmod(0o640)
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in()
    await page.get_by_role("link", name="Files").click()
    await page.get_by_role("link", name="srv", exact=True).click()
    await page.get_by_role("link", name=folder.name).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(folder.name)
    await page.get_by_role("link", name="here", exact=True).click()
    crumbs = page.get_by_role("navigation", name="Folders above")
    await expect(crumbs).to_contain_text("app")
    config = row(page, "config.toml")
    await expect(config).to_contain_text("1000:1001")
    await expect(config).to_contain_text("0640")
    await expect(config).to_contain_text("28 B")
    await page.get_by_role("link", name="config.toml").click()
    content = page.get_by_label("Beginning of the file")
    await expect(content).to_have_text('name = "shop"\nport = 8080\n', use_inner_text=False)
    await at.picture("file")
    await crumbs.get_by_role("link", name="app").click()
    await page.get_by_role("link", name="evil.txt").click()
    await expect(content).to_have_text(r"left \u202egnp\x1b[31m <b>bold</b>")
    await page.go_back()
    await page.get_by_role("link", name="data.bin").click()
    await expect(page.get_by_text("It is no text (UTF-8).")).to_be_visible()
    await at.open(place(folder, "dead"))
    await expect(page.get_by_text("No such file or directory")).to_be_visible()
    at.forgive(404)


async def test_hostile_names_are_text_and_their_links_work(start: Start, look: Look, folder: Path) -> None:
    fill(folder)
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place=place(folder))
    for name, shown in HOSTILE.items():
        await page.get_by_role("link", name=shown, exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(shown)
        await expect(page.get_by_label("Beginning of the file")).to_have_text(f"I am {name.hex()}")
        await page.reload()
        await expect(page.get_by_label("Beginning of the file")).to_have_text(f"I am {name.hex()}")
        await page.get_by_role("link", name="Back").click()
    assert await page.locator("main img").count() == 0
    await at.picture("files-hostile")
    await row(page, r"caf\xe9").get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(row(page, r"caf\xe9")).to_have_count(0)
    assert names(folder) == set(HOSTILE) - {b"caf\xe9 \xff%41+&?#"}


async def test_a_folder_is_read_by_pages(start: Start, look: Look, folder: Path) -> None:
    for number in range(450):
        (folder / f"n{number:03}").touch()
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place=place(folder))
    await expect(page.get_by_role("row")).to_have_count(201)
    await page.get_by_role("button", name="Show more").click()
    await expect(page.get_by_role("row")).to_have_count(401)
    await row(page, "n399").get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(row(page, "n400")).to_be_visible()
    await expect(page.get_by_role("row")).to_have_count(401)
    await page.get_by_role("button", name="Show more").click()
    await expect(page.get_by_role("row")).to_have_count(450)
    await expect(page.get_by_role("button", name="Show more")).to_have_count(0)


async def test_files_are_fetched_and_sent_and_replaced_only_on_request(
    start: Start, look: Look, folder: Path
) -> None:
    content = bytes(range(256)) * 8000
    (folder / "given").write_bytes(content)
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place=place(folder))
    name, got = await downloaded(page, "Download given")
    assert name == "given"
    assert read(got) == content
    await send(page, payload("new file", b"first"), payload("given", b"mine" * 500_000))
    dialog = page.get_by_role("dialog", name="Replace given?")
    await expect(dialog).to_contain_text("It is there already: 1.95 MiB")
    await at.picture("file-replace")
    await dialog.get_by_role("button", name="Leave it").click()
    await expect(row(page, "new file")).to_contain_text("5 B")
    assert (folder / "given").read_bytes() == content
    await send(page, payload("given", b"mine"))
    await dialog.get_by_role("button", name="Replace").click()
    await expect(said(page, "Uploaded given: 4 B")).to_be_visible()
    assert (folder / "given").read_bytes() == b"mine"
    at.forgive(412)


async def test_an_upload_is_cancelled_and_leaves_nothing(start: Start, look: Look, folder: Path) -> None:
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place=place(folder))
    network = await page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    await network.send("Network.emulateNetworkConditions", slow)
    await send(page, payload("small", b"x" * 1000), payload("big", b"x" * 10_000_000), payload("late", b"x"))
    await expect(page.get_by_role("progressbar", name="Uploading big")).to_be_visible()
    await page.get_by_role("link", name="Plan").click()
    await at.picture("transfer")
    await page.get_by_role("button", name="Uploading big: cancel").click()
    await expect(said(page, "Cancelled; 1 of 3 files came whole")).to_be_visible()
    await expect(page.get_by_role("progressbar")).to_have_count(0)
    await network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    await at.open(place(folder))
    await expect(row(page, "small")).to_be_visible()
    async with asyncio.timeout(20):
        while names(folder) != {b"small"}:
            await page.reload()


async def test_a_refusal_that_breaks_the_connection_is_told_as_one(
    start: Start, look: Look, folder: Path
) -> None:
    (folder / "there").write_text("theirs")
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place=place(folder))
    await page.route(re.compile("/v1/fs/file"), lambda route: route.abort())
    await send(page, payload("there", b"mine"))
    dialog = page.get_by_role("dialog", name="Replace there?")
    await expect(dialog).to_contain_text("It is there already: 6 B")
    await page.unroute(re.compile("/v1/fs/file"))
    await dialog.get_by_role("button", name="Replace").click()
    await expect(said(page, "Uploaded there: 4 B")).to_be_visible()
    assert (folder / "there").read_text() == "mine"
    at.said[:] = [one for one in at.said if "net::ERR_" not in one]


async def test_nobody_else_is_asked_what_one_was_asked(start: Start, look: Look, folder: Path) -> None:
    (folder / "there").write_text("theirs")
    core = await start(web=SLEEP)
    await core.client.put_identity("guest", IdentitySpec("operator", digest("g" * 43)))
    at = await look(core)
    page = at.page
    await at.log_in("g" * 43, place=place(folder))
    await send(page, payload("there", b"mine"))
    await expect(page.get_by_role("dialog", name="Replace there?")).to_be_visible()
    await core.client.delete_identity("guest")
    await expect(page.get_by_text("The token is not accepted any more.")).to_be_visible()
    await at.log_in(place=place(folder))
    await expect(row(page, "there")).to_be_visible()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert (folder / "there").read_text() == "theirs"
    at.forgive(412)
    at.forgive(401)


async def test_folders_go_out_and_in_as_tars(start: Start, look: Look, folder: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site/index.html").write_text("<h1>shop</h1>")
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place=place(folder))
    name, got = await downloaded(page, "Download site as tar")
    assert name == "site.tar"
    with tarfile.open(got) as archive:
        assert archive.getnames() == [".", "./index.html"]
    await page.get_by_role("button", name="Upload…").click()
    await page.get_by_label("Files", exact=True).set_input_files(payload("bad.tgz", b"no gzip at all"))
    await page.get_by_label("Unpack it here instead").check()
    await page.get_by_role("button", name="Unpack", exact=True).click()
    await expect(said(page, "It is not packed by gzip.")).to_be_visible()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("deep/er/hello")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"hello"))
    await page.get_by_role("button", name="Upload…").click()
    await page.get_by_label("Files", exact=True).set_input_files(payload("more.tar.gz", packed.getvalue()))
    await page.get_by_label("Unpack it here instead").check()
    await page.get_by_label("Owner", exact=True).fill("web")
    await page.get_by_role("button", name="Unpack", exact=True).click()
    await expect(said(page, "Unpacked 1 entry, 5 B")).to_be_visible()
    assert (folder / "deep/er/hello").read_text() == "hello"
    assert (folder / "deep/er/hello").stat().st_uid == 1000
    await expect(row(page, "deep")).to_be_visible()


async def test_a_text_is_edited_unless_somebody_else_changed_it(
    start: Start, look: Look, folder: Path
) -> None:
    config = folder / "config"
    config.write_bytes(b"one\r\ntwo\r\n")
    config.chmod(0o600)
    (folder / "mixed").write_bytes(b"one\r\ntwo\n")
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place=place(folder, "config"))
    await page.get_by_role("button", name="Edit").click()
    text = page.get_by_role("textbox", name="Text")
    await expect(text).to_have_value("one\ntwo\n")
    await text.fill("one\nthree\n")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_label("Beginning of the file")).to_contain_text("three")
    assert config.read_bytes() == b"one\r\nthree\r\n"
    assert config.stat().st_mode & 0o777 == 0o600
    await page.get_by_role("button", name="Edit").click()
    config.write_text("theirs")
    await text.fill("mine")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Somebody has changed it since you opened it.")).to_be_visible()
    at.forgive(412)
    assert config.read_text() == "theirs"
    await page.get_by_role("button", name="Read it again").click()
    await expect(text).to_have_value("theirs")
    await at.open(place(folder, "mixed"))
    await expect(page.get_by_label("Beginning of the file")).to_contain_text("two")
    edit = page.get_by_role("button", name="Edit")
    await expect(edit).to_have_attribute("aria-disabled", "true")
    await expect(edit).to_have_attribute(
        "title", "It ends its lines in several ways, which a browser would change."
    )


async def test_of_a_long_text_its_beginning_and_its_end_are_shown(
    start: Start, look: Look, folder: Path
) -> None:
    (folder / "log").write_text("first\n" + "ü" * 200_000 + "\nlast\n")
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place=place(folder, "log"))
    await expect(page.get_by_label("Beginning of the file")).to_contain_text("first")
    await expect(page.get_by_label("Beginning of the file")).not_to_contain_text("last")
    await expect(page.get_by_role("button", name="Edit")).to_have_attribute("aria-disabled", "true")
    await page.get_by_role("button", name="End").click()
    await expect(page.get_by_label("End of the file")).to_contain_text("last")
    assert "�" not in await page.get_by_label("End of the file").inner_text()


async def test_something_new_is_made(start: Start, look: Look, folder: Path) -> None:
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place=place(folder))
    await expect(page.get_by_text("The folder is empty.")).to_be_visible()
    new = page.get_by_role("button", name="New…")
    make = page.get_by_role("button", name="Make it")
    await new.click()
    await page.get_by_label("Name").fill("a/b")
    await make.click()
    await expect(page.get_by_text("A name has no slash")).to_be_visible()
    await page.get_by_label("Name").fill("with space")
    await make.click()
    await page.get_by_role("link", name="with space").click()
    await new.click()
    await page.get_by_label("Name").fill("note?.txt")
    await page.get_by_role("radio", name="Text file").check()
    await make.click()
    await page.get_by_role("textbox", name="Text").fill("remember\n")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_label("Beginning of the file")).to_contain_text("remember")
    assert (folder / "with space/note?.txt").read_text() == "remember\n"


async def test_a_folder_with_content_goes_only_by_its_name(start: Start, look: Look, folder: Path) -> None:
    (folder / "full").mkdir()
    (folder / "full/a").touch()
    (folder / "empty").mkdir()
    at = await look(await start(web=SLEEP))
    page = at.page
    await at.log_in(place=place(folder))
    sure = page.get_by_role("dialog").get_by_role("button", name="Delete")
    await page.get_by_role("button", name="Delete empty").click()
    await expect(page.get_by_text("The folder is empty.")).to_be_visible()
    await sure.click()
    await expect(row(page, "empty")).to_have_count(0)
    await page.get_by_role("button", name="Delete full").click()
    await expect(sure).to_have_attribute("aria-disabled", "true")
    await page.keyboard.press("Enter")
    await expect(said(page, "Type its name first.")).to_be_visible()
    await page.get_by_label("Type its name").fill("ful")
    await page.keyboard.press("Enter")
    await at.picture("folder-delete")
    assert (folder / "full/a").exists()
    await page.get_by_label("Type its name").fill("full")
    await sure.click()
    await expect(said(page, "Deleted full with all that was in it: 2 files and folders")).to_be_visible()
    assert not (folder / "full").exists()


async def test_a_long_deletion_is_followed_and_cancelled(start: Start, look: Look, folder: Path) -> None:
    (folder / "big").mkdir()
    (folder / "big/a").touch()
    at = await look(await start(web=SLEEP))
    page = at.page
    where = "/v1/operations/00112233aabbccdd"
    cancelled = asyncio.Event()

    async def answer(route: Route) -> None:
        if route.request.method == "DELETE" and "/fs/folder" in route.request.url:
            await route.fulfill(status=202, headers={"Location": where}, json={"entries": 500})
        elif route.request.method == "DELETE":
            cancelled.set()
            await route.fulfill(status=204)
        else:
            told = (
                ("cancelled", "it was cancelled on request")
                if cancelled.is_set()
                else ("running", "1500 files and folders were deleted so far")
            )
            await asyncio.sleep(0.1)
            await route.fulfill(json={"id": where[-16:], "kind": "delete-folder", "subject": "/big", "by": "owner",
                                      "state": told[0], "why": told[1], "since": 1})  # fmt: skip

    await page.route("**/v1/operations/*", answer)
    await page.route(re.compile(r"/v1/fs/folder\?.*recursive=true"), answer)
    await at.log_in(place=place(folder))
    await page.get_by_role("button", name="Delete big").click()
    await page.get_by_label("Type its name").fill("big")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("1500 files and folders were deleted so far.")).to_be_visible()
    await at.picture("folder-deleting")
    await page.get_by_role("button", name="Cancel the deletion").click()
    await expect(said(page, "big: it was cancelled on request")).to_be_visible()
    await expect(row(page, "big")).to_be_visible()


async def test_a_viewer_is_told_why_it_sees_no_file(start: Start, look: Look) -> None:
    core = await start(web=SLEEP)
    await core.client.put_identity("guest", IdentitySpec("viewer", digest("v" * 43)))
    at = await look(core)
    await at.log_in("v" * 43, place="#/files/etc/passwd")
    await expect(at.page.get_by_text("Reading files needs the role operator.")).to_be_visible()
    await expect(at.page.get_by_text("Your token has the role viewer.")).to_be_visible()
    assert not [url for url in at.asked if "/v1/fs/" in url]
