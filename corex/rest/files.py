"""Routes of files: what is there, read, written, packed and unpacked.

A file's path is a parameter of the query. In the path of a URL it would not arrive as it was sent: clients and
proxies resolve '..', join slashes and decode, and OpenAPI has no parameter with slashes in it.
"""

import asyncio
import errno
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from corex.files.hands import HungError
from corex.files.look import Content, list_folder, look, quoted
from corex.files.pack import PIECE, Unpacking, pack
from corex.files.resolve import ChangedError, FileError, Root, shown
from corex.files.untar import TarError
from corex.files.write import Check, Ids, Removal, delete_file, draft, make_folder
from corex.http import problem
from corex.http.problem import ProblemError, ProblemType
from corex.http.routes import OCTETS, NoBody, Reply, Request, Route, Stream, Upload
from corex.process import accounts
from corex.rest.access import OPERATOR
from corex.rest.container import Container, check_preconditions
from corex.rest.operations import location
from corex.wire import files as wire
from corex.wire.files import ByPath, FileInfo, FolderPage, Removed, Unpacked

T = TypeVar("T")
TAR = "application/x-tar"
# Seconds that an upload may stand still.
STALL = 30.0
# The last second of the year 9999: a container gives its files any time.
_LATEST = 253_402_300_799
_FULL = (errno.ENOSPC, errno.EDQUOT)
_WRONG = (errno.EINVAL, errno.ENAMETOOLONG)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def routes() -> list[Route]:
    """Rows of the table."""
    refused = (problem.CONFLICT, problem.UNAVAILABLE)
    gone = (problem.NOT_FOUND, *refused)
    changed = (*gone, problem.PRECONDITION_FAILED)
    full = (*changed, problem.FULL)
    file, folder, archive = "/v1/fs/file", "/v1/fs/folder", "/v1/fs/archive"
    return [
        Route(
            "GET",
            "/v1/fs/stat",
            OPERATOR,
            "What is at a path",
            get_stat,
            ByPath,
            response=FileInfo,
            errors=gone,
        ),
        Route(
            "GET",
            file,
            OPERATOR,
            "The content of a file; 206 for a range of it, 304 if it is the one of If-None-Match",
            get_file,
            ByPath,
            other_statuses=(206, 304),
            errors=(*gone, problem.RANGE),
            streams=(OCTETS,),
        ),
        Route(
            "PUT",
            file,
            OPERATOR,
            "Write a file as a whole; 201 if it is new",
            put_file,
            wire.WriteQuery,
            request=Upload,
            response=FileInfo,
            other_statuses=(201,),
            errors=full,
        ),
        Route(
            "DELETE",
            file,
            OPERATOR,
            "Delete what is no folder",
            remove_file,
            ByPath,
            status=204,
            errors=changed,
        ),
        Route(
            "GET",
            folder,
            OPERATOR,
            "What is in a folder",
            get_folder,
            wire.FolderQuery,
            response=FolderPage,
            errors=gone,
        ),
        Route(
            "PUT",
            folder,
            OPERATOR,
            "Make a folder; 201 if it is new",
            put_folder,
            wire.MakeQuery,
            response=FileInfo,
            other_statuses=(201,),
            errors=(*gone, problem.FULL),
        ),
        Route(
            "DELETE",
            folder,
            OPERATOR,
            "Delete a folder; 202 if that is still under way",
            remove_folder,
            wire.RemoveQuery,
            response=Removed,
            errors=gone,
            other_statuses=(202,),
        ),
        Route(
            "GET", archive, OPERATOR, "A folder as a tar", get_archive, ByPath, errors=gone, streams=(TAR,)
        ),
        Route(
            "PUT",
            archive,
            OPERATOR,
            "Unpack a tar into a folder",
            put_archive,
            wire.UnpackQuery,
            request=Upload,
            response=Unpacked,
            errors=(*gone, problem.FULL),
        ),
    ]


async def get_stat(request: Request[Container, ByPath, NoBody]) -> FileInfo:
    """Of a link the link itself."""
    return await _do(request, look, request.context.root, _path(request))


async def get_folder(request: Request[Container, wire.FolderQuery, NoBody]) -> FolderPage:
    """A page, by name."""
    after = request.raw.octets("after")
    return await _do(
        request, list_folder, request.context.root, _path(request), after, request.parameters.limit
    )


async def get_file(request: Request[Container, ByPath, NoBody]) -> Stream | Reply[None]:
    """As it is while it is read; a writer that replaces it does not disturb."""
    container, headers = request.context, request.raw.headers
    content = await _do(request, Content, container.root, _path(request))
    try:
        known = headers.get("if-none-match", "")
        if content.etag in [one.strip() for one in known.split(",")]:
            return _unchanged(request, content)
        given = headers.get("range", "") if headers.get("if-range", content.etag) == content.etag else ""
        start, end = _range(given, content.size)
    except BaseException:
        container.hands.later(content.close)
        raise
    is_part = (start, end) != (0, content.size)
    told = {
        "Content-Length": str(end - start),
        "Accept-Ranges": "bytes",
        "Content-Disposition": "attachment",
        "ETag": content.etag,
        "Last-Modified": time.strftime(
            "%a, %d %b %Y %H:%M:%S GMT", time.gmtime(min(max(0, content.modified), _LATEST))
        ),
    } | ({"Content-Range": f"bytes {start}-{end - 1}/{content.size}"} if is_part else {})
    pieces = _read(request, content, start, end)
    release = _release(request, content.close)
    return Stream(OCTETS, pieces, status=206 if is_part else 200, headers=told, release=release)


def _unchanged(request: Request[Container, Any, Any], content: Content) -> Reply[None]:
    request.context.hands.later(content.close)
    return Reply(None, status=304, headers={"ETag": content.etag})


def _release(request: Request[Container, Any, Any], close: Callable[[], None]) -> Callable[[], None]:
    return lambda: request.context.hands.later(close)


def _range(header: str, size: int) -> tuple[int, int]:
    """First byte and end of what is asked for; the whole for what is no single range (RFC 9110, section 14.2)."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or not any(found.groups()):
        return 0, size
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return 0, size
    else:
        start, end = max(0, size - int(last)), size
    if start >= end:
        raise problem.RANGE(
            f"cannot send {header[:80]!a}: the file has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


async def _read(
    request: Request[Container, Any, Any], content: Content, start: int, end: int
) -> AsyncIterator[bytes]:
    while start < end:
        try:
            piece = await request.context.hands.do(content.read, start, min(PIECE, end - start))
        except (OSError, HungError) as error:
            raise _cut(error) from None
        if not piece:
            raise _cut("it became shorter while it was read")
        yield piece
        start += len(piece)


def _cut(reason: object) -> ConnectionAbortedError:
    """The answer has begun: that it ends early is all that can be said."""
    return ConnectionAbortedError(f"cannot go on: {reason}")


async def put_file(request: Request[Container, wire.WriteQuery, Upload]) -> Reply[FileInfo]:
    """Whoever reads it meanwhile sees the earlier one; without the whole body it stays."""
    container, query, path = request.context, request.parameters, _path(request)
    owner = await _owner(request, query.owner)
    mode = None if query.mode is None else int(query.mode, 8)
    made = await _do(request, draft, container.root, path, mode, owner, _check(request))
    try:
        if request.raw.content_length:
            await _do(request, made.reserve, request.raw.content_length)
        await _receive(request, made.write)
        is_new = await _do(request, made.commit, _check(request))
        info = await _do(request, made.info, path)
    finally:
        container.hands.later(made.close)
    return Reply(info, status=201 if is_new else 200, headers={"ETag": info.etag})


async def remove_file(request: Request[Container, ByPath, NoBody]) -> None:
    """Of a link the link itself."""
    await _do(request, delete_file, request.context.root, _path(request), _check(request))


async def put_folder(request: Request[Container, wire.MakeQuery, NoBody]) -> Reply[FileInfo]:
    """Idempotent: one that is there stays as it is."""
    query, path = request.parameters, _path(request)
    owner = await _owner(request, query.owner)

    def make(root: Root) -> tuple[FileInfo, bool]:
        return make_folder(root, path, int(query.mode, 8), owner, parents=query.parents)

    info, is_new = await _do(request, make, request.context.root)
    return Reply(info, status=201 if is_new else 200)


async def remove_folder(request: Request[Container, wire.RemoveQuery, NoBody]) -> Reply[Removed]:
    """What is in it goes only if that is asked for."""
    path, container = _path(request), request.context
    removal = await _do(
        request,
        lambda root: Removal(root, path, recursive=request.parameters.recursive),
        request.context.root,
    )

    async def remove() -> str:
        while await _do(request, removal.step):
            going_on.why = f"{removal.entries} files and folders were deleted so far"
        return f"{removal.entries} files and folders were deleted"

    who = request.identity.name
    going_on = container.operations.begin("delete-folder", quoted(path), who, remove(), cancellable=True)
    await going_on.wait(request.parameters.wait)
    if going_on.state != "running":
        container.operations.forget(going_on)
        going_on.raise_failure()
        return Reply(Removed(removal.entries))
    return Reply(Removed(removal.entries), status=202, headers=location(going_on))


async def get_archive(request: Request[Container, ByPath, NoBody]) -> Stream:
    """Its end is cut if something of it cannot be read."""
    pieces = pack(request.context.root, _path(request))
    await _do(request, next, pieces)
    return Stream(TAR, _packed(request, pieces), headers={"Content-Disposition": "attachment"})


async def _packed(request: Request[Container, Any, Any], pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    try:
        while piece := await request.context.hands.do(next, pieces, b""):
            yield piece
    except (OSError, HungError, FileError) as error:
        raise _cut(error) from None


async def put_archive(request: Request[Container, wire.UnpackQuery, Upload]) -> Unpacked:
    """What was unpacked before something in it was refused stays."""
    container, query, path = request.context, request.parameters, _path(request)
    owner = await _owner(request, query.owner) or Ids(0, 0)
    folder = await _do(request, container.root.folder, path)
    unpacking = Unpacking(folder, owner, keep_owner=query.keep_owner)
    try:
        await _receive(request, unpacking.feed)
        await _do(request, unpacking.end)
    finally:
        container.hands.later(unpacking.close)
    return Unpacked(unpacking.entries, unpacking.bytes)


def _path(request: Request[Container, Any, Any]) -> bytes:
    path = request.raw.octets("path")
    if b"\0" in path:
        raise problem.INVALID("cannot accept the parameters: path has a zero byte")
    return path


def _check(request: Request[Container, Any, Any]) -> Check:
    return lambda etag: check_preconditions(request, etag)


async def _owner(request: Request[Container, Any, Any], owner: str | None) -> Ids | None:
    return None if owner is None else await _do(request, _find_owner, request.context.root, owner)


def _find_owner(root: Root, owner: str) -> Ids:
    found = accounts.resolve(owner, _read_head(root, b"/etc/passwd"), _read_head(root, b"/etc/group"))
    return Ids(found.uid, found.gid)


def _read_head(root: Root, path: bytes) -> bytes:
    try:
        content = Content(root, path)
    except (OSError, FileError):
        return b""
    try:
        return content.read(0, accounts.MAX_FILE)
    finally:
        content.close()


async def _receive(request: Request[Container, Any, Upload], take: Callable[[bytes], None]) -> None:
    """Hand the body on, as fast as it is taken."""
    gathered = bytearray()
    while piece := await _piece(request):
        gathered += piece
        if len(gathered) >= PIECE:
            await _do(request, take, bytes(gathered))
            gathered.clear()
    if gathered:
        await _do(request, take, bytes(gathered))


async def _piece(request: Request[Container, Any, Upload]) -> bytes:
    try:
        async with asyncio.timeout(STALL):
            return await request.raw.read()
    except TimeoutError:
        raise problem.TIMED_OUT(
            f"cannot read the body: nothing of it came for {STALL:.0f} s", headers={"Connection": "close"}
        ) from None


async def _do(request: Request[Container, Any, Any], job: Callable[..., T], *arguments: object) -> T:
    """Call what waits for storage; what it cannot do becomes a problem."""
    try:
        return await request.context.hands.do(job, *arguments)
    except HungError as error:
        raise problem.UNAVAILABLE(f"cannot do that now: {error}", remedy="try again later") from None
    except FileError as error:
        kind = problem.INVALID if error.invalid else problem.CONFLICT
        raise kind(f"cannot do that: {error}", remedy=error.remedy) from None
    except ChangedError:
        raise problem.CONFLICT(
            "cannot write it: others write it at the same time", remedy="try again later"
        ) from None
    except TarError as error:
        raise problem.INVALID(
            f"cannot unpack the archive: {error}", remedy="what came before that entry was unpacked"
        ) from None
    except LookupError as error:
        raise problem.INVALID(f"cannot accept the parameters: {error}") from None
    except OSError as error:
        raise _refused(request, error) from None


def _refused(request: Request[Container, Any, Any], error: OSError) -> ProblemError:
    kind, remedy = _kind_of(error.errno)
    why = error.strerror or str(error)
    return kind(f"cannot do that with {shown(_path(request))}: {why}", remedy=remedy)


def _kind_of(number: int | None) -> tuple[ProblemType, str]:
    if number == errno.ENOENT:
        return problem.NOT_FOUND, "see GET /v1/fs/folder for what is there"
    if number in _FULL:
        return problem.FULL, "delete something, or give it more room; nothing of it was left"
    if number in _WRONG:
        return problem.INVALID, ""
    if number in (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EIO):
        return problem.UNAVAILABLE, "try again later"
    remedies = {
        errno.ENOTEMPTY: "add recursive=true to delete it with all that is in it",
        errno.ELOOP: "links of /proc are not followed, and not more than 40 others",
        errno.EXDEV: "something else is mounted in it: empty that by itself",
        errno.EBUSY: "something else is mounted there: empty that by itself",
        errno.EACCES: "Core-X has the rights of the container's root, and no others",
        errno.EPERM: "Core-X has the rights of the container's root, and no others",
    }
    return problem.CONFLICT, remedies.get(number or 0, "")
