"""npm packages: the real npm against a registry on the loopback interface, archives, and the console made of them."""

import gzip
import hashlib
import io
import json
import tarfile
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from image import console, lock, manifest, npm
from image.console import ConsoleError
from image.lock import NpmPackage
from image.manifest import NodeManifest
from image.npm import NpmError
from image.resolve import npm_packages
from image.tree import Entry, file

ROOT = Path(__file__).parents[2]
VIRT = manifest.load_kind(ROOT / "initramfs/virt.toml", NodeManifest)
LOCK = lock.load(ROOT / "initramfs/virt.amd64.lock.json")


def archive(
    name: str = "package/package.json", content: bytes = b"{}", kind: bytes = tarfile.REGTYPE
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as members:
        member = tarfile.TarInfo(name)
        member.size, member.type, member.linkname = len(content), kind, "/etc/passwd"
        members.addfile(member, io.BytesIO(content))
    return out.getvalue()


STATED = json.dumps({"name": "@a/b", "version": "1.2.0", "license": "MIT"}).encode()
PACKAGE = archive(content=STATED)


class Handler(BaseHTTPRequestHandler):
    """A registry with versions 1.2.0 and 2.0.0 of @a/b, whose archives are the same."""

    def do_GET(self) -> None:
        home = f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
        integrity = "sha512-" + b64encode(hashlib.sha512(PACKAGE).digest()).decode()
        versions = {
            version: {
                "name": "@a/b",
                "version": version,
                "dist": {"tarball": f"{home}/@a/b/-/b-{version}.tgz", "integrity": wanted},
            }
            for version, wanted in (("1.2.0", integrity), ("2.0.0", "sha512-" + "A" * 86 + "=="))
        }
        about = {"name": "@a/b", "dist-tags": {"latest": "2.0.0"}, "versions": versions}
        body = PACKAGE if self.path.endswith(".tgz") else json.dumps(about).encode()
        known = self.path.startswith(("/@a%2fb", "/@a/b"))
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("npm_config_registry", f"{url}/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    yield url
    server.shutdown()
    server.server_close()


def test_npm_resolves_a_range_and_says_where_the_registry_is(registry: str) -> None:
    found = npm.resolve(["@a/b@^1"])
    assert [(one.name, one.version, one.content) for one in found] == [("@a/b", "1.2.0", PACKAGE)]
    assert npm.registry() == registry
    assert npm.path("@a/b", "1.2.0") == "@a/b/-/b-1.2.0.tgz"
    assert npm.resolve([]) == ()


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        pytest.param("@a/b", "EINTEGRITY", id="an archive that is not the registry's"),
        pytest.param("@a/b@^3", "ETARGET", id="no such version"),
        pytest.param("nobody-has-this", "E404", id="no such package"),
    ],
)
@pytest.mark.usefixtures("registry")
def test_what_npm_cannot_have_is_told(wanted: str, told: str) -> None:
    with pytest.raises(NpmError, match=rf"(?s)cannot ask npm: npm pack: .*{told}"):
        npm.resolve([wanted])


def test_a_machine_without_npm_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NpmError, match="it is not installed; apt-get install npm"):
        npm.registry()


@pytest.mark.usefixtures("registry")
def test_a_lock_has_the_archive_by_name_version_place_and_checksum() -> None:
    console_part = msgspec.structs.replace(VIRT.console, packages=("@a/b@1",))
    found = npm_packages(msgspec.structs.replace(VIRT, console=console_part))
    sha256 = hashlib.sha256(PACKAGE).hexdigest()
    assert found == (NpmPackage("@a/b", "1.2.0", "@a/b/-/b-1.2.0.tgz", len(PACKAGE), sha256),)


def test_the_files_and_the_licence_of_a_package() -> None:
    files = npm.read(PACKAGE, "@a/b")
    assert files == {"package.json": STATED}
    assert npm.licence(files) == "MIT"
    assert npm.licence({}) == npm.licence({"package.json": b'{"license": {"type": "MIT"}}'}) == ""
    assert npm.licence({"package.json": b"[]"}) == npm.licence({"package.json": b"{"}) == ""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(archive("etc/passwd"), "etc/passwd' is no file of its own", id="elsewhere"),
        pytest.param(archive("package/../x"), "x' is no file of its own", id="above"),
        pytest.param(archive("package/x", b"", tarfile.SYMTYPE), "x' is no file of its own", id="link"),
        pytest.param(archive()[:20], "cannot read npm package a", id="cut"),
        pytest.param(b"<html>", "cannot read npm package a", id="no archive"),
    ],
)
def test_an_archive_that_npm_would_not_make_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(NpmError, match=told):
        npm.read(content, "a")


def made_console(root: Path, **files: str) -> list[Entry]:
    """The console of a repository with one own file, and one package, of which it has `files`."""
    (root / "own").mkdir()
    (root / "own/app.js").write_text("own")
    (root / "own/.hidden").write_text("an editor's")
    part = manifest.Console("own", ("a",), {name.replace("_", "."): source for name, source in files.items()})
    locked = msgspec.structs.replace(LOCK, npm=(NpmPackage("a", "1", "a/-/a-1.tgz", len(PACKAGE), "0" * 64),))
    return console.files(msgspec.structs.replace(VIRT, console=part), locked, {"0" * 64: PACKAGE}, root)


def test_the_console_is_its_own_files_and_those_of_packages(tmp_path: Path) -> None:
    made = made_console(tmp_path, a_json="a:package.json")
    assert [(one.path, one.content, one.origin) for one in made] == [
        ("app.js", b"own", "zeronode"),
        ("a.json", STATED, "a"),
    ]
    console.write(made, tmp_path / "as on a node")
    assert gzip.decompress((tmp_path / "as on a node/a.json.gz").read_bytes()) == STATED


@pytest.mark.parametrize(
    ("name", "source", "told"),
    [
        pytest.param("a_js", "a:dist/a.js", "cannot find a:dist/a.js: no package of", id="no such file"),
        pytest.param("a_js", "b:package.json", "cannot find b:package.json", id="no such package"),
        pytest.param("app_js", "a:package.json", "cannot place app.js of the console", id="one name twice"),
    ],
)
def test_a_console_that_cannot_be_is_refused(tmp_path: Path, name: str, source: str, told: str) -> None:
    with pytest.raises(ConsoleError, match=told):
        made_console(tmp_path, **{name: source})


def test_a_console_is_packed_by_another_python_into_gzip_without_time_or_name() -> None:
    made = [file("app.js", b"own" * 1000, "zeronode"), file("empty.css", b"", "zeronode")]
    packed = console.packed(made, "usr/lib", ["python3"])
    assert [one.path for one in packed] == ["usr/lib/app.js.gz", "usr/lib/empty.css.gz"]
    assert [gzip.decompress(one.content) for one in packed] == [one.content for one in made]
    assert all(one.content[3:8] == bytes(5) for one in packed), "flags and time (RFC 1952)"
    with pytest.raises(ConsoleError, match="cannot compress the console"):
        console.packed(made, "usr/lib", ["false"])
