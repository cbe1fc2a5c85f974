"""How the console's files are served, and what they weigh."""

import base64
import gzip
import hashlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from corex.console import assets
from corex.console.assets import Site, look
from corex.http.connection import Response
from corex.wire.process import ProcessSpec
from tests.console.conftest import Start

PAGE = b'<!doctype html><script type="importmap">{"imports": {}}</script><script src="app.js"></script>'
# What the whole console may weigh, as it is sent.
MOST_BYTES = 200_000


def request(path: str, method: str = "GET", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(method=method, path=path, headers=named)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "index.html.gz").write_bytes(gzip.compress(PAGE, mtime=0))
    (tmp_path / "vendor/preact.js.gz").write_bytes(gzip.compress(b"export {}", mtime=0))
    (tmp_path / "style.css").write_text("not packed")
    (tmp_path / "notes.txt.gz").write_bytes(gzip.compress(b"not of the console", mtime=0))
    return look(str(tmp_path))


def ask(site: Site, path: str, method: str = "GET", **headers: str) -> Response:
    answer = site(request(path, method, accept_encoding="gzip, br", **headers))
    assert answer is not None
    return answer


def test_the_page_is_sent_packed_and_says_what_it_may_load(site: Site) -> None:
    answer = ask(site, "/")
    assert (answer.status, answer.headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(answer.body) == PAGE
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    digest = base64.b64encode(hashlib.sha256(b'{"imports": {}}').digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_client_that_unpacks_nothing_gets_it_unpacked_under_another_etag(site: Site) -> None:
    plain = site(request("/vendor/preact.js"))
    assert plain is not None
    assert plain.body == b"export {}"
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert plain.headers["ETag"] != ask(site, "/vendor/preact.js").headers["ETag"]


def test_who_has_it_already_gets_it_no_more(site: Site) -> None:
    etag = ask(site, "/").headers["ETag"]
    again = ask(site, "/", if_none_match=f'"other", {etag}')
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag)
    assert ask(site, "/", if_none_match='"other"').status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("GET", "/style.css"),
        ("GET", "/notes.txt"),
        ("GET", "/index.html.gz"),
        ("GET", "/vendor/../index.html"),
        ("GET", "//etc/passwd"),
        ("GET", "/v1/system"),
    ],
)
def test_all_else_is_not_the_consoles(site: Site, method: str, path: str) -> None:
    assert site(request(path, method)) is None


def test_an_image_without_a_console_says_so(tmp_path: Path) -> None:
    without = look(str(tmp_path))
    answer = ask(without, "/")
    assert answer.status == 404
    assert b"this image has none" in answer.body
    assert without(request("/app.js")) is None


def test_a_page_without_an_import_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.html.gz").write_bytes(gzip.compress(b"<!doctype html>", mtime=0))
    with pytest.raises(ValueError, match="no import map"):
        look(str(tmp_path))


def test_all_of_the_console_weighs_little(console_folder: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in console_folder.rglob("*.gz")}
    assert sizes["xterm.js.gz"] > 50_000
    assert sum(sizes.values()) < MOST_BYTES, sizes


def test_every_file_of_the_console_is_of_a_type_that_is_served() -> None:
    files = [path for path in Path(assets.FOLDER).rglob("*") if path.is_file()]
    assert files
    assert {path.suffix for path in files} <= set(assets.TYPES)


def test_each_module_is_imported_from_where_it_is(console_folder: Path) -> None:
    site = look(str(console_folder))
    own = list(Path(assets.FOLDER).glob("*.js"))
    wanted = {
        name for path in own for name in re.findall(r'(?:from|import\()\s*"(\./[^"]+)"', path.read_text())
    }
    assert "./ui.js" in wanted
    assert {name.removeprefix(".") for name in wanted} <= set(site.files)


@pytest.mark.root
@pytest.mark.asyncio(loop_scope="session")
async def test_core_x_sends_them_to_anybody_and_imports_nothing_for_it(start: Start) -> None:
    core = await start(web=ProcessSpec(("sleep", "1000"), {"PATH": "/bin"}))
    pin = aiohttp.Fingerprint(bytes.fromhex(core.endpoint.fingerprint))
    origin = f"https://{core.endpoint.address}"
    async with aiohttp.ClientSession(origin, connector=aiohttp.TCPConnector(ssl=pin)) as http:
        async with http.get("/") as answer:
            page, etag = await answer.text(), answer.headers["ETag"]
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")
        async with http.get("/", headers={"If-None-Match": etag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
            assert "Content-Length" not in answer.headers
        async with http.head("/app.js", headers={"Accept-Encoding": "identity"}) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            assert "Content-Encoding" not in answer.headers
        for linked in re.findall(r'(?:href|src)="([^"]+)"', page):
            async with http.get(f"/{linked}") as answer:
                assert answer.status == 200, linked
        for path in ("/nothing.js", "/vendor", "/v1/system"):
            async with http.get(path) as answer:
                assert answer.status == 401, path
    assert core.imported_late() == []
