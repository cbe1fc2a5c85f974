"""Fetching against a real server on the loopback interface that can misbehave in chosen ways."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from image import fetch
from image.fetch import Cache, FetchError, GoneError, Wanted, fetch_all

CONTENT = bytes(range(256)) * 4096


@dataclass
class Server:
    """What the server has, how it fails, and which requests it saw (path, Range header)."""

    files: dict[str, bytes] = field(default_factory=dict)
    truncate: int = 0
    ranges: bool = True
    errors: int = 0
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def wanted(self, name: str, content: bytes = CONTENT, *, size: int | None = None) -> Wanted:
        digest = hashlib.sha256(content).hexdigest()
        return Wanted(name, digest, size or len(content), (f"{self.url}/{name}",))


class Handler(BaseHTTPRequestHandler):
    server: "ServerWithState"

    def do_GET(self) -> None:
        state = self.server.state
        asked = self.headers.get("Range")
        state.seen.append((self.path, asked))
        content = state.files.get(self.path.lstrip("/"))
        if state.errors:
            state.errors -= 1
            self.send_error(503)
        elif content is None:
            self.send_error(404)
        else:
            self._answer(state, content, asked)

    def _answer(self, state: Server, content: bytes, asked: str | None) -> None:
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if state.truncate:
            body, state.truncate = body[: state.truncate], 0
            self.close_connection = True
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        content = self.server.state.files.get(self.path.lstrip("/"))
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Tests read `seen` instead."""


class ServerWithState(ThreadingHTTPServer):
    state: Server


@pytest.fixture
def server() -> Iterator[Server]:
    http = ServerWithState(("127.0.0.1", 0), Handler)
    http.state = Server({"a.deb": CONTENT, "b.deb": CONTENT[::-1]})
    http.state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield http.state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "FIRST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def parts(cache: Cache) -> list[Path]:
    return [path for path in cache.folder.rglob("*") if path.suffix == ".part"]


def test_files_arrive_and_are_counted(server: Server, cache: Cache) -> None:
    arrived = SimpleNamespace(bytes=0)
    wanted = [server.wanted("a.deb"), server.wanted("b.deb", CONTENT[::-1])]
    fetch_all(wanted, cache, lambda count: setattr(arrived, "bytes", arrived.bytes + count))
    assert [cache.read(file) for file in wanted] == [CONTENT, CONTENT[::-1]]
    assert arrived.bytes == 2 * len(CONTENT)
    assert not parts(cache)


def test_what_the_cache_has_is_not_asked_for(server: Server, cache: Cache) -> None:
    fetch_all([server.wanted("a.deb")], cache)
    fetch_all([server.wanted("a.deb")], cache)
    assert len(server.seen) == 1


def test_a_transfer_that_breaks_goes_on_where_it_stopped(server: Server, cache: Cache) -> None:
    server.truncate = 300_000
    fetch_all([server.wanted("a.deb")], cache)
    assert cache.read(server.wanted("a.deb")) == CONTENT
    (_, first), (_, second) = server.seen
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 300_000


def test_a_server_without_ranges_is_asked_from_the_start(server: Server, cache: Cache) -> None:
    server.truncate, server.ranges = 300_000, False
    fetch_all([server.wanted("a.deb")], cache)
    assert cache.read(server.wanted("a.deb")) == CONTENT


def test_a_server_in_trouble_is_asked_again(server: Server, cache: Cache) -> None:
    server.errors = fetch.ATTEMPTS - 1
    fetch_all([server.wanted("a.deb")], cache)
    assert cache.has(server.wanted("a.deb"))


def test_a_server_in_lasting_trouble_is_named_with_its_answer(server: Server, cache: Cache) -> None:
    server.errors = 100
    with pytest.raises(FetchError, match=r"cannot fetch a\.deb from http://127.*503"):
        fetch_all([server.wanted("a.deb")], cache)


def test_a_file_that_stays_too_short_is_refused(server: Server, cache: Cache) -> None:
    with pytest.raises(FetchError, match=r"a\.deb.*ended after 1048576 of 1048580 bytes"):
        fetch_all([server.wanted("a.deb", size=len(CONTENT) + 4)], cache)
    assert not cache.has(server.wanted("a.deb"))


def test_a_file_that_is_too_long_is_refused_and_leaves_nothing(server: Server, cache: Cache) -> None:
    with pytest.raises(FetchError, match="more than the locked 1000 bytes"):
        fetch_all([server.wanted("a.deb", size=1000)], cache)
    assert not parts(cache)


def test_wrong_bytes_are_refused_with_both_checksums_and_leave_nothing(server: Server, cache: Cache) -> None:
    wrong = bytes(len(CONTENT))
    server.files["a.deb"] = wrong
    with pytest.raises(FetchError, match=hashlib.sha256(wrong).hexdigest()):
        fetch_all([server.wanted("a.deb")], cache)
    assert not parts(cache)
    assert not cache.has(server.wanted("a.deb"))


def test_all_files_that_are_gone_are_named_and_the_others_arrive(server: Server, cache: Cache) -> None:
    gone = [server.wanted("old.deb", b"old"), server.wanted("older.deb", b"older")]
    with pytest.raises(GoneError, match=r"old\.deb, older\.deb"):
        fetch_all([*gone, server.wanted("a.deb")], cache)
    assert cache.has(server.wanted("a.deb"))


def test_the_second_source_has_what_the_first_dropped(server: Server, cache: Cache) -> None:
    here = server.wanted("a.deb")
    fetch_all([Wanted(here.name, here.sha256, here.size, (f"{server.url}/old.deb", *here.urls))], cache)
    assert cache.has(here)


def test_a_server_that_is_not_there_is_named(cache: Cache) -> None:
    with pytest.raises(FetchError, match=r"cannot fetch a\.deb from http://127\.0\.0\.1:1/"):
        fetch_all([Wanted("a.deb", "0" * 64, 1, ("http://127.0.0.1:1/a.deb",))], cache)
    with pytest.raises(FetchError, match="cannot reach"):
        fetch.serves("http://127.0.0.1:1/")


def test_a_tampered_cache_file_is_named_removed_and_refused(server: Server, cache: Cache) -> None:
    wanted = server.wanted("a.deb")
    fetch_all([wanted], cache)
    cache.path(wanted.sha256).write_bytes(bytes(len(CONTENT)))
    with pytest.raises(FetchError, match=f"cannot use a.deb: the cache file {cache.path(wanted.sha256)}"):
        cache.read(wanted)
    assert not cache.has(wanted)


def test_tampered_files_are_found_before_a_build_and_fetched_again(server: Server, cache: Cache) -> None:
    wanted = server.wanted("a.deb")
    fetch_all([wanted], cache)
    cache.path(wanted.sha256).write_bytes(b"x")
    assert cache.drop_damaged([wanted]) == [cache.path(wanted.sha256)]
    fetch_all([wanted], cache)
    assert cache.read(wanted) == CONTENT


def test_sizes_and_presence_are_asked_without_a_transfer(server: Server) -> None:
    assert fetch.sizes([f"{server.url}/a.deb"]) == [len(CONTENT)]
    assert fetch.serves(f"{server.url}/a.deb")
    assert not fetch.serves(f"{server.url}/none")
    with pytest.raises(FetchError, match="status 404"):
        fetch.sizes([f"{server.url}/none"])


@pytest.mark.root
def test_a_full_disk_is_one_message(server: Server, small_disk: Path) -> None:
    with pytest.raises(FetchError, match=r"cannot store a\.deb in .*No space left on device; make room"):
        fetch_all([server.wanted("a.deb")], Cache(small_disk))


def test_two_builds_that_want_the_same_file_fetch_it_once(server: Server, cache: Cache) -> None:
    threads = [threading.Thread(target=fetch_all, args=([server.wanted("a.deb")], cache)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.seen) == 1
    assert cache.read(server.wanted("a.deb")) == CONTENT
