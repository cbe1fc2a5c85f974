"""Fetching files: the builder's only use of the network, and the cache that saves it.

A file is wanted by its SHA-256 and size; where it comes from does not matter. What arrives goes to
`<cache>/sha256/<two digits>/<checksum>`, by way of a `.part` file beside it, which a later run resumes with
an HTTP range (RFC 9110, section 14). Nothing leaves the cache unverified.
"""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from image.errors import ImageError

CONNECTIONS = 6
ATTEMPTS = 4
CONNECT_SECONDS = 15.0
STALL_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.5
_CHUNK = 1 << 18

# Called with the bytes that just arrived.
Progress = Callable[[int], None]


class FetchError(ImageError):
    """A file could not be had; the message names it, the cause and the remedy."""


class GoneError(FetchError):
    """No source has some files any more (404 or 410 from all of them)."""

    def __init__(self, wanted: Sequence["Wanted"]) -> None:
        self.wanted = tuple(wanted)
        names = ", ".join(sorted(file.name for file in wanted))
        super().__init__(f"cannot fetch {names}: no source has it any more; run 'zn image lock --update'")


@dataclass(frozen=True)
class Wanted:
    """A file by checksum (hexadecimal) and size (bytes), with the places to try in order."""

    name: str
    sha256: str
    size: int
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Cache:
    """Files by checksum below one folder."""

    folder: Path

    def path(self, sha256: str) -> Path:
        """Where a file of this checksum stands or would stand."""
        return self.folder / "sha256" / sha256[:2] / sha256

    def has(self, wanted: Wanted) -> bool:
        """Whether a file of the right size is there; its bytes are only checked when read."""
        path = self.path(wanted.sha256)
        return path.is_file() and path.stat().st_size == wanted.size

    def read(self, wanted: Wanted) -> bytes:
        """The verified bytes of a file. A damaged file is removed and raises FetchError with its name."""
        path = self.path(wanted.sha256)
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise FetchError(f"cannot read {wanted.name}: not in the cache {self.folder}") from error
        if hashlib.sha256(content).hexdigest() != wanted.sha256:
            path.unlink()
            raise FetchError(
                f"cannot use {wanted.name}: the cache file {path} was damaged; removed it, build again"
            )
        return content

    def drop_damaged(self, wanted: Iterable[Wanted]) -> list[Path]:
        """Remove files whose bytes do not match their name; gives their paths."""
        damaged = []
        for file in wanted:
            path = self.path(file.sha256)
            if path.is_file() and _checksum(path) != file.sha256:
                path.unlink()
                damaged.append(path)
        return damaged


def fetch_all(wanted: Iterable[Wanted], cache: Cache, progress: Progress = lambda _count: None) -> None:
    """Bring all files that the cache lacks, several at a time. Raises GoneError or FetchError."""
    files = list(dict.fromkeys(wanted))
    if all(map(cache.has, files)):
        return
    with _one_at_a_time(cache.folder):
        missing = [file for file in files if not cache.has(file)]
        asyncio.run(_fetch_missing(missing, cache, progress))


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep two builds from writing the same partial file; the lock goes with the process that holds it."""
    with _stored("a lock", folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "fetch.lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _stored(name: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FetchError(f"cannot store {name} in {folder}: {error.strerror}; make room there") from error


async def _fetch_missing(missing: list[Wanted], cache: Cache, progress: Progress) -> None:
    slots = asyncio.Semaphore(CONNECTIONS)
    async with _session() as session:

        async def fetch(file: Wanted) -> Wanted | None:
            async with slots:
                return await _fetch_one(session, file, cache, progress)

        gone = await _gather(fetch(file) for file in missing)
    if gone:
        raise GoneError(gone)


async def _gather(fetches: Iterable[Coroutine[None, None, Wanted | None]]) -> list[Wanted]:
    """Run all; the first FetchError ends the others, whose partial files stay for the next run."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fetch) for fetch in fetches]
    except ExceptionGroup as errors:  # Python 3.11.2 would wrap what an except* raises into a group again
        refused, other = errors.split(FetchError)
        if other or not refused:
            raise
        raise refused.exceptions[0] from None
    return [file for file in (task.result() for task in tasks) if file]


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
    return aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False)


async def _fetch_one(
    session: aiohttp.ClientSession, file: Wanted, cache: Cache, progress: Progress
) -> Wanted | None:
    """Fetch one file from the first source that has it; gives the file back if none has."""
    for url in file.urls:
        if await _fetch_from(session, url, file, cache, progress):
            return None
    return file


async def _fetch_from(
    session: aiohttp.ClientSession, url: str, file: Wanted, cache: Cache, progress: Progress
) -> bool:
    """Fetch with retries; False if the source does not have the file."""
    part = cache.path(file.sha256).with_suffix(".part")
    cause = ""
    for attempt in range(ATTEMPTS):
        await asyncio.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) if attempt else 0)
        try:
            found = await _transfer(session, url, file, part, progress)
        except (aiohttp.ClientError, TimeoutError) as error:
            cause = str(error) or type(error).__name__
        else:
            return found and _accept(part, file, cache, url)
    raise FetchError(
        f"cannot fetch {file.name} from {url}: {cause} ({ATTEMPTS} attempts); the next run resumes"
    )


async def _transfer(
    session: aiohttp.ClientSession, url: str, file: Wanted, part: Path, progress: Progress
) -> bool:
    """One attempt; continues a partial file. Raises aiohttp.ClientError if the server stops early."""
    have = _size(part)
    if have >= file.size:
        return True
    headers = {"Range": f"bytes={have}-"} if have else {}
    async with session.get(url, headers=headers) as response:
        if response.status in (404, 410):
            return False
        response.raise_for_status()
        start = have if response.status == 206 else 0
        async for chunk in response.content.iter_chunked(_CHUNK):
            start = _store(part, chunk, start, file)
            progress(len(chunk))
    if start < file.size:
        raise aiohttp.ClientPayloadError(f"the server ended after {start} of {file.size} bytes")
    return True


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _store(part: Path, chunk: bytes, start: int, file: Wanted) -> int:
    if start + len(chunk) > file.size:
        part.unlink(missing_ok=True)
        raise FetchError(
            f"cannot fetch {file.name}: more than the locked {file.size} bytes arrive; check the mirror"
        )
    with _stored(file.name, part.parent):
        part.parent.mkdir(parents=True, exist_ok=True)
        _append(part, chunk, start)
    return start + len(chunk)


def _append(part: Path, chunk: bytes, start: int) -> None:
    with part.open("r+b" if start else "wb") as out:
        out.seek(start)
        out.write(chunk)
        out.truncate()


def _accept(part: Path, file: Wanted, cache: Cache, url: str) -> bool:
    found = _checksum(part)
    if found != file.sha256:
        part.unlink()
        raise FetchError(
            f"cannot use {file.name} from {url}: its sha256 is {found}, the lock says {file.sha256}; "
            "check the mirror, or run 'zn image lock --update' if the change is wanted"
        )
    with _stored(file.name, part.parent), part.open("rb") as written:
        os.fsync(written.fileno())
        part.replace(cache.path(file.sha256))
    return True


def _checksum(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def serves(url: str) -> bool:
    """Whether a URL answers a HEAD request with success. FetchError if the server cannot be reached."""
    return _heads([url])[0].ok


def sizes(urls: Sequence[str]) -> list[int]:
    """The sizes in bytes that servers tell for some files."""
    answers = _heads(urls)
    for url, answer in zip(urls, answers, strict=True):
        if not answer.ok or answer.content_length is None:
            raise FetchError(f"cannot ask for the size of {url}: HTTP status {answer.status}")
    return [answer.content_length or 0 for answer in answers]


def _heads(urls: Sequence[str]) -> list[aiohttp.ClientResponse]:
    async def head(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
        async with session.head(url, allow_redirects=True) as response:
            return response

    async def ask() -> list[aiohttp.ClientResponse]:
        async with _session() as session:
            return await asyncio.gather(*(head(session, url) for url in urls))

    try:
        return asyncio.run(ask())
    except (aiohttp.ClientError, TimeoutError) as error:
        cause = str(error) or type(error).__name__
        raise FetchError(f"cannot reach {urls[0]}: {cause}; check the network") from error
