"""A registry for tests: real HTTP on this machine, and as unreliable or hostile as a test wants it."""

import gzip
import hashlib
import io
import json
import ssl
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from core0.images.model import Job, parse_reference, sources_of
from core0.wire.images import ImagesConfig

NO_CONFIG = ImagesConfig()

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


class _Server(ThreadingHTTPServer):
    """One that does not tell of clients that hang up."""

    def handle_error(self, *_: object) -> None:
        pass


class Registry:
    """A registry whose content and manners a test sets.

    Attributes:
        content: what is behind a digest or `NAME:TAG`, with its media type.
        asked: the method, path and headers of each request.
        before: is asked first; what it returns true for is answered already.
    """

    def __init__(self, trust: ssl.SSLContext | None = None) -> None:
        self.content: dict[str, tuple[bytes, str]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.before: Callable[[Any], bool] = lambda _: False
        self._lock = threading.Lock()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with registry._lock:
                    registry.asked.append((self.path, dict(self.headers)))
                if not registry.before(self):
                    registry.answer(self)

            def say(self, status: int, content: bytes = b"", **headers: str) -> bool:
                """Answer; underscores in the names of headers are hyphens."""
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return True

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "https" if trust else "http"
        if trust:
            # the handshake belongs to the thread of its connection, not to who accepts
            self._server.socket = trust.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def origin(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Registry":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Have a blob or manifest; returns its descriptor."""
        self.content[digest_of(content)] = (content, media_type)
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

    def push(
        self,
        *layers: tuple[bytes, bytes, str],
        tag: str = "demo:latest",
        architecture: str = "amd64",
    ) -> dict[str, Any]:
        """Have an image of layers, each its tar, its blob, and how the blob is packed; returns its descriptor."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar, _, _ in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "config": self.add(json.dumps(config).encode(), CONFIG),
            "layers": [self.add(blob, LAYER + packed) for _, blob, packed in layers],
        }
        return self.tag(json.dumps(manifest).encode(), MANIFEST, tag)

    def push_index(self, entries: Sequence[dict[str, Any]], tag: str = "demo:latest") -> dict[str, Any]:
        """Have an index of manifests."""
        return self.tag(json.dumps({"schemaVersion": 2, "manifests": entries}).encode(), INDEX, tag)

    def tag(self, content: bytes, media_type: str, tag: str) -> dict[str, Any]:
        self.content[tag] = (content, media_type)
        return self.add(content, media_type)

    def job(self, folder: object, reference: str = "demo:latest", config: ImagesConfig = NO_CONFIG) -> Job:
        """A job for the puller."""
        wanted = parse_reference(f"{self.origin}/{reference}")
        return Job(wanted, str(folder), (), 1 << 30, sources_of(wanted, config))

    def headers(self, name: str) -> list[tuple[str, str | None]]:
        """What was asked for, and one header of each request."""
        return [(path, headers.get(name)) for path, headers in self.asked]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        _, _, path = request.path.partition("/v2/")
        name, _, wanted = path.replace("/blobs/", "/manifests/").partition("/manifests/")
        found = self.content.get(wanted) or self.content.get(f"{name}:{wanted}")
        if found is None:
            request.send_error(404)
            return
        content, media_type = found
        first = int(request.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Type", media_type)
        request.send_header("Content-Length", str(len(content) - first))
        request.end_headers()
        request.wfile.write(content[first:])


def gzipped(tar: bytes) -> tuple[bytes, bytes, str]:
    """A layer for `push`."""
    return tar, gzip.compress(tar, 1, mtime=0), "+gzip"


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving_folder(folder: Path) -> Iterator[str]:
    """A plain web server of a folder; gives its origin."""
    server = _Server(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def archive_of(folder: Path) -> bytes:
    """A layout as one tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(folder, ".")
    return out.getvalue()
