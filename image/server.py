"""The netboot server: one built image, its generated boot script, and OCI images, over HTTP.

BIOS firmware cannot trust a private certificate authority, so this is plain HTTP: what a node fetches later
it verifies by digest or signature, and believes nothing because of this connection. Nothing here writes, and
nothing outside the configured folders can be named.

    /boot.ipxe                          sets `zn-args` and goes on to the image's own script
    /image/FILE                         the build's output folder
    /oci/NAME/...                       an OCI layout, file by file (OCI image-spec, image-layout)
    /v2/NAME/manifests|blobs/REFERENCE  the same layout as a registry to pull from (OCI distribution-spec)
"""

import argparse
import asyncio
import errno
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from image.errors import ImageError

_CHUNK = 1 << 18
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ARGUMENT = re.compile(r"zn\.[a-z]+=[A-Za-z0-9._:-]+")
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
# OCI image-spec: whoever reads a manifest may refuse more than 4 MiB, so none is bigger.
_LARGEST_MANIFEST = 4 << 20


class ServeError(ImageError):
    """The server cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Config:
    """What to serve and where.

    Attributes:
        image: the output folder of a build.
        oci: a folder whose subfolders are OCI layouts, by name; they may come and go while it serves.
        arguments: kernel parameters added to the image's own, such as `zn.operator=...`.
        host: the address to bind. Anyone who reaches it can read what is served.
        port: the port to bind, 0 for any free one.
    """

    image: Path
    oci: Path | None = None
    arguments: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        port: the port that it bound.
    """

    port: int


def print_event(event: str, **fields: object) -> None:
    """Write one event as a line: a capital letter, then fields."""
    words = " ".join(f"{key}={value}" for key, value in fields.items())
    print(f"{event} {words}", flush=True)  # noqa: T201  the log of the standalone server is its standard output


Tell = Callable[..., None]


@asynccontextmanager
async def serve(config: Config, tell: Tell = print_event) -> AsyncIterator[Running]:
    """Serve until the block ends.

    Args:
        config: what and where.
        tell: takes the events: who fetched what, and the server's start.

    Raises:
        ServeError: no build output, a bad argument, or the address is taken.
    """
    runner = web.AppRunner(application(config, tell), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        port = await _bind(runner, config)
        tell("Serving", url=f"http://{config.host}:{port}/boot.ipxe", image=config.image)
        yield Running(port)
    finally:
        await runner.cleanup()


def application(config: Config, tell: Tell) -> web.Application:
    """The routes and their state.

    Raises:
        ServeError: the configuration cannot be served.
    """
    _check(config)
    site = _Site(config, tell)
    app = web.Application(middlewares=[site.report])
    app.add_routes(
        [
            web.get("/boot.ipxe", site.boot_script),
            web.get("/image/{path:.+}", site.image_file),
            web.get("/oci/{path:.+}", site.layout_file),
            web.get("/v2/", site.registry),
            web.get("/v2/{name}/manifests/{reference}", site.manifest),
            web.get("/v2/{name}/blobs/{digest}", site.blob),
        ]
    )
    return app


def boot_script(arguments: tuple[str, ...]) -> str:
    """The first script that iPXE gets: it sets the kernel's parameters and goes on to the image's script."""
    return f"#!ipxe\nset zn-args {' '.join(arguments)}\nchain --autofree image/boot.ipxe\n"


def resolve_inside(folder: Path, name: str) -> Path:
    """The regular file of that relative name inside a folder.

    Raises:
        FileNotFoundError: there is none, or the name leads outside, be it by `..` or by a symlink.
    """
    if "\0" in name:
        raise FileNotFoundError(name)
    root = folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise FileNotFoundError(name)
    return path


@dataclass
class _Digests:
    """SHA-256 of served files, computed once per content as far as size and time tell."""

    known: dict[tuple[Path, int, int], str] = field(default_factory=dict)

    async def of(self, path: Path) -> str:
        status = os.stat(path)  # noqa: PTH116  one system call blocks for no time worth a thread
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in self.known:
            self.known[key] = await asyncio.to_thread(_sha256, path)
        return self.known[key]


class _Site:
    """The handlers of one server."""

    def __init__(self, config: Config, tell: Tell) -> None:
        self._config = config
        self._tell = tell
        self._digests = _Digests()

    @web.middleware
    async def report(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tell who fetched what, how it went, and when a client hangs up in the middle."""
        try:
            response = await handler(request)
        except FileNotFoundError:
            response = web.Response(status=404, text=f"cannot serve {request.path}: there is no such file\n")
        except ConnectionError:
            self._tell("Aborted", method=request.method, path=request.path, client=request.remote)
            raise
        self._tell(
            "Served" if response.status < 400 else "Refused",
            method=request.method,
            path=request.path,
            status=response.status,
            bytes=response.content_length,
            client=request.remote,
        )
        return response

    async def boot_script(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text=boot_script(self._config.arguments))

    async def image_file(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, resolve_inside(self._config.image, request.match_info["path"]))

    async def layout_file(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, resolve_inside(self._layouts(), request.match_info["path"]))

    async def registry(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({}, headers={"Docker-Distribution-API-Version": "registry/2.0"})

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        layout, reference = self._layouts() / request.match_info["name"], request.match_info["reference"]
        digest = reference if _DIGEST.fullmatch(reference) else find_tag(layout, reference)
        path = _blob(layout, digest)
        media_type = read_media_type(path)
        return await self._send(request, path, media_type, {"Docker-Content-Digest": digest})

    async def blob(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        path = _blob(self._layouts() / request.match_info["name"], digest)
        return await self._send(request, path, headers={"Docker-Content-Digest": digest})

    def _layouts(self) -> Path:
        if self._config.oci is None:
            raise FileNotFoundError("this server has no OCI layouts")
        return self._config.oci

    async def _send(
        self,
        request: web.Request,
        path: Path,
        media_type: str = "application/octet-stream",
        headers: dict[str, str] | None = None,
    ) -> web.StreamResponse:
        """Send a file, or the part of it that a Range header asks for (RFC 9110)."""
        tag = f'"{await self._digests.of(path)}"'
        common = {
            hdrs.ETAG: tag,
            hdrs.ACCEPT_RANGES: "bytes",
            hdrs.CONTENT_TYPE: media_type,
            **(headers or {}),
        }
        if tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
            return web.Response(status=304, headers=common)
        size = os.stat(path).st_size  # noqa: PTH116  as above
        part = _wanted_part(request, tag, size)
        if part is None:
            return web.Response(status=416, headers={hdrs.CONTENT_RANGE: f"bytes */{size}"})
        response = web.StreamResponse(headers=common)
        if len(part) != size:
            response.set_status(206)
            response.headers[hdrs.CONTENT_RANGE] = f"bytes {part.start}-{part.stop - 1}/{size}"
        response.content_length = len(part)
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            await _write_part(response, path, part)
        return response


def find_tag(layout: Path, tag: str) -> str:
    """The digest that a layout's index gives to a tag; `latest` also means the only manifest of a layout.

    Raises:
        FileNotFoundError: no such layout or tag.
    """
    manifests = json.loads(resolve_inside(layout, "index.json").read_bytes())["manifests"]
    for descriptor in manifests:
        if descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
            return str(descriptor["digest"])
    if tag == "latest" and len(manifests) == 1:
        return str(manifests[0]["digest"])
    raise FileNotFoundError(tag)


def read_media_type(manifest: Path) -> str:
    """The media type that a manifest gives itself.

    Raises:
        FileNotFoundError: the blob is no manifest.
    """
    if manifest.stat().st_size > _LARGEST_MANIFEST:
        raise FileNotFoundError(manifest)
    try:
        return str(json.loads(manifest.read_bytes()).get("mediaType", _INDEX_TYPE))
    except (ValueError, AttributeError):
        raise FileNotFoundError(manifest) from None


def _blob(layout: Path, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise FileNotFoundError(digest)
    return resolve_inside(layout, digest.replace("sha256:", "blobs/sha256/"))


def _wanted_part(request: web.Request, tag: str, size: int) -> range | None:
    """The bytes to send; None if the range lies outside. A range for another content means the whole."""
    if request.headers.get(hdrs.IF_RANGE, tag) != tag:
        return range(size)
    try:
        wanted = request.http_range
    except ValueError:
        return range(size)  # RFC 9110: a range that cannot be understood is ignored
    if wanted.start is None and wanted.stop is None:
        return range(size)
    part = range(*wanted.indices(size))
    return part if len(part) else None


async def _write_part(response: web.StreamResponse, path: Path, part: range) -> None:
    with path.open("rb") as file:
        file.seek(part.start)
        left = len(part)
        while left:
            chunk = await asyncio.to_thread(file.read, min(left, _CHUNK))
            if not chunk:
                raise ConnectionError(f"{path} shrank while it was sent")
            await response.write(chunk)
            left -= len(chunk)
    await response.write_eof()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(config: Config) -> None:
    if not (config.image / "boot.ipxe").is_file():
        raise ServeError(
            f"cannot serve {config.image}: it has no boot.ipxe; build an image first: zn image build"
        )
    for argument in config.arguments:
        if not _ARGUMENT.fullmatch(argument):
            raise ServeError(f"cannot pass {argument!r} to the kernel: not of the form zn.name=value")


async def _bind(runner: web.AppRunner, config: Config) -> int:
    try:
        await web.TCPSite(runner, config.host, config.port).start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ServeError(f"cannot serve on {config.host} port {config.port}: {error.strerror}") from error
        raise ServeError(
            f"cannot serve on {config.host} port {config.port}: another program has it; "
            "end that program, or take any free port with --port 0"
        ) from error
    return int(runner.addresses[0][1])


def main(words: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; the process that `zn up` starts. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m image.server", description="Serve a built image for netboot."
    )
    parser.add_argument("image", type=Path, help="output folder of a build")
    parser.add_argument("--oci", type=Path, help="folder of OCI layouts")
    parser.add_argument(
        "--argument", action="append", default=[], help="kernel parameter, such as zn.hostname=node1"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to bind")
    parser.add_argument(
        "--ready", type=int, help="descriptor that gets the port once it serves, then is closed"
    )
    parser.add_argument("--port", type=int, default=0, help="port to bind, 0 for any")
    given = parser.parse_args(words)
    config = Config(given.image, given.oci, tuple(given.argument), given.host, given.port)
    try:
        asyncio.run(_serve_until_signal(config, given.ready))
    except ServeError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _serve_until_signal(config: Config, ready: int | None) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with serve(config) as running:
        if ready is not None:
            os.write(ready, str(running.port).encode())
            os.close(ready)
        await ended.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
