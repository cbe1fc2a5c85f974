"""The console's files, which are public and the same for all containers: found once, read when they are asked for.

A folder has them packed, as NAME.gz (gzip, RFC 1952), in the places that they have in URLs. The template looks at
each once, and its forks share what it found: types and ETags. The content stays in files, on a node in its memory
once for all containers.

The page may load and ask its own server only (Content Security Policy, level 3). Its one script inside the page is
the import map, which browsers take from no file; the policy has its hash.
"""

import base64
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping

import msgspec

from corex.http import problem
from corex.http.connection import RawRequest, Response
from corex.http.routes import encode_problem

# Where a node's image has them; in the source tree they lie there unpacked, and without those of others.
FOLDER = os.path.join(os.path.dirname(__file__), "static")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGE = "/index.html"
_PACKED = ".gz"
# zlib's word for the gzip format (zlib.h, inflateInit2).
_GZIP = 31
_MAP_START, _MAP_END = b'<script type="importmap">', b"</script>"
_POLICY = (
    "default-src 'none'; script-src 'self' {hash}; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Asset(msgspec.Struct, frozen=True):
    """One file.

    Attributes:
        path: where its packed content is.
        kind: its media type.
        etag: the strong ETag of its packed content, in quotes.
    """

    path: str
    kind: str
    etag: str


class Site(msgspec.Struct, frozen=True):
    """All files by their URL's path, and what the browser may do with them.

    Attributes:
        files: none where there is no console.
        policy: the Content Security Policy.
    """

    files: Mapping[str, Asset]
    policy: str

    def __call__(self, raw: RawRequest) -> Response | None:
        """The answer to a GET for a file; None for all that is not the console's."""
        if raw.method not in ("GET", "HEAD"):
            return None
        asset = self.files.get(_PAGE if raw.path == "/" else raw.path)
        if asset is not None:
            return _answer(asset, self.policy, raw.headers)
        return encode_problem(_no_console()) if raw.path == "/" else None


_prepared: list[Site] = []


def prepare(folder: str = FOLDER) -> None:
    """Look at a folder once, for `site` in this process and its forks."""
    _prepared[:] = [look(folder)]


def site() -> Site:
    """What `prepare` found."""
    if not _prepared:
        prepare()
    return _prepared[0]


def look(folder: str) -> Site:
    """What a folder has; what is not packed, or of a type that the console has none of, is left out.

    Raises:
        OSError: a file cannot be read.
        ValueError: the page has no import map.
    """
    files = {}
    policy = ""
    for path in _packed(folder):
        url = path[len(folder) : -len(_PACKED)]
        with open(path, "rb") as file:
            content = file.read()
        kind = TYPES.get(os.path.splitext(url)[1])
        if kind:
            files[url] = Asset(path, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        if url == _PAGE:
            policy = _POLICY.format(hash=_hash_of_map(zlib.decompress(content, _GZIP)))
    return Site(files if policy else {}, policy)


def _packed(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        yield from (f"{parent}/{name}" for name in names if name.endswith(_PACKED))


def _hash_of_map(page: bytes) -> str:
    """The import map's hash as a policy has it: of all between its tags."""
    _, start, rest = page.partition(_MAP_START)
    content, end, _ = rest.partition(_MAP_END)
    if not (start and end):
        raise ValueError("cannot serve the console: its page has no import map")
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"


def _answer(asset: Asset, policy: str, wanted: Mapping[str, str]) -> Response:
    headers = {**_HEADERS, "Content-Security-Policy": policy, "Content-Type": asset.kind}
    packed = "gzip" in wanted.get("accept-encoding", "")
    etag = asset.etag if packed else f'{asset.etag[:-1]}-plain"'
    headers["ETag"] = etag
    if packed:
        headers["Content-Encoding"] = "gzip"
    if etag in [one.strip() for one in wanted.get("if-none-match", "").split(",")]:
        return Response(304, headers)
    with open(asset.path, "rb") as file:
        content = file.read()
    return Response(200, headers, content if packed else zlib.decompress(content, _GZIP))


def _no_console() -> problem.ProblemError:
    return problem.NOT_FOUND(
        "cannot show the web console: this image has none",
        remedy="use the REST interface or zn; zn image build makes images with a console",
    )
