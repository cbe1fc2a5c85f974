"""One server of an image, asked over HTTP: who we are, where it sends us, and blobs that broke off.

What is secret, the password and the token that it buys, goes to the server itself and to where tokens are made,
never along with a redirect to another, and into no message.

Sources: OCI distribution specification 1.1; "Token Authentication" of distribution (auth/token); RFC 9110; RFC 7617.
"""

import base64
import http.client
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import IO, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

import msgspec

from core0.images.digest import Digest
from core0.images.model import INDEX_TYPES, LARGEST_MANIFEST, MANIFEST_TYPES, Descriptor, PullError, Source

_PIECE = 256 << 10
_TIMEOUT = 20.0
_ATTEMPTS = 5
_MOST_REDIRECTS = 5
_LARGEST_TOKEN = 64 << 10
_CHALLENGE = re.compile(r"(?i)(?:^|,)\s*(bearer|basic)\s+([^\s=,]+\s*=.*)")
_PARAMETER = re.compile(r'([A-Za-z]+)\s*=\s*"([^"]*)"')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class _Token(msgspec.Struct, frozen=True):
    """What a server of tokens answers: one of the two."""

    token: str = ""
    access_token: str = ""


class AbsentError(PullError):
    """The server says that it has no such thing."""


class Cause(NamedTuple):
    """Why one server does not have what was asked for, and whether that may be over at the next try."""

    said: str
    passing: bool


class Server:
    """Who has an image: a registry, a mirror of it, or a folder of a web server. Threads may share it.

    Args:
        source: where it is and how it is asked.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._opener = _opener(source)
        self._authorization = ""
        self._turn = threading.Lock()

    @contextmanager
    def open(
        self, path: str, headers: Mapping[str, str] = _NO_HEADERS
    ) -> "Iterator[http.client.HTTPResponse]":
        """The answer for what is at the source's base and a path, to be read in the block.

        Raises:
            PullError: for good.
            OSError: it may be over at the next try.
        """
        url = f"{self._source.base}/{path}"
        with _told(f"cannot fetch {url}"), self._authorized(url, headers) as answer:
            yield answer

    def small(self, path: str, headers: Mapping[str, str] = _NO_HEADERS) -> tuple[bytes, str]:
        """What no digest names, a layout's index or a tag's manifest, and its media type.

        Raises:
            PullError, OSError: the server does not have it, or stays away.
        """
        with self.open(path, headers) as response:
            data = response.read(LARGEST_MANIFEST + 1)
            media_type = response.headers.get_content_type()
        if len(data) > LARGEST_MANIFEST:
            raise PullError(f"cannot use {path}: it is over {LARGEST_MANIFEST} bytes")
        return data, media_type

    def whole(self) -> Generator[bytes, None, None]:
        """All that is at the source's base itself. Raises PullError, OSError: also if it breaks off."""
        with _told(f"cannot fetch {self._source.base}"), self._authorized(self._source.base, {}) as answer:
            left = answer.length  # None if the server does not say
            while piece := answer.read(_PIECE):
                left = None if left is None else left - len(piece)
                yield piece
            if left:
                raise OSError("it ended early")

    def blob(self, descriptor: Descriptor, first: int) -> Iterator[bytes]:
        """A blob's bytes from one on, taken up again where a connection broke off.

        Raises:
            PullError, OSError: the server does not have them all, or stays away.
        """
        path = self._path(descriptor)
        failures, received = 0, first
        while received < descriptor.size:
            before, cause = (
                received,
                OSError(f"cannot fetch {self._source.base}/{path}: it ended early; try later"),
            )
            try:
                for piece in self._range(path, received, descriptor):
                    received += len(piece)
                    yield piece
            except OSError as error:
                cause = error
            failures = 0 if received > before else failures + 1
            if failures >= _ATTEMPTS:
                raise cause
            if failures:
                time.sleep(0.2 * 2**failures)

    def _path(self, descriptor: Descriptor) -> str:
        if self._source.kind == "layout":
            return f"blobs/{descriptor.digest.replace(':', '/')}"
        kind = "manifests" if descriptor.media_type in (*INDEX_TYPES, *MANIFEST_TYPES) else "blobs"
        return f"{kind}/{descriptor.digest}"

    def _range(self, path: str, first: int, descriptor: Descriptor) -> Iterator[bytes]:
        """What one request brings of a blob, never more than its size."""
        # without Accept, distribution has no OCI manifests (404)
        headers = {"Accept": ACCEPT} if path.startswith("manifests/") else {}
        headers |= {"Range": f"bytes={first}-"} if first else {}
        with self.open(path, headers) as response:
            if first and response.status == 206:
                if not response.headers.get("Content-Range", "").startswith(f"bytes {first}-"):
                    raise PullError(
                        f"cannot use blob {descriptor.digest}: the server sent another part of it"
                    )
            else:
                _pass_over(response, first)  # a server without ranges starts over
            left = descriptor.size - first
            while left and (piece := response.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece
            if not left and response.read(1):
                raise PullError(
                    f"cannot use blob {descriptor.digest}: it is longer than {descriptor.size} bytes"
                )

    def _authorized(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Ask; if the server wants to know who asks, tell it and ask once more."""
        used = self._authorization
        try:
            return self._ask(url, headers, used)
        except urllib.error.HTTPError as error:
            if error.code != 401 or _origin(error.url) != _origin(url):
                raise
            with error:
                challenge = ", ".join(error.headers.get_all("WWW-Authenticate", []))
        with self._turn:
            if self._authorization == used:  # or another thread was first
                self._authorization = self._authorize(challenge)
        return self._ask(url, headers, self._authorization)

    def _ask(self, url: str, headers: Mapping[str, str], authorization: str) -> http.client.HTTPResponse:
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 — http or https only, see _opener
        if authorization:
            request.add_unredirected_header("Authorization", authorization)
        answer: http.client.HTTPResponse = self._opener.open(request, timeout=_TIMEOUT)
        return answer

    def _authorize(self, challenge: str) -> str:
        """The header by which a server knows us, as its challenge wants it. Raises PullError."""
        found = _CHALLENGE.search(challenge)
        scheme, words = (found[1].lower(), dict(_PARAMETER.findall(found[2]))) if found else ("", {})
        if scheme == "bearer" and words.get("realm"):
            return f"Bearer {self._token(words['realm'], words.get('service', ''))}"
        if scheme == "basic" and self._basic():
            return self._basic()
        origin = _origin(self._source.base)
        raise PullError(
            f"cannot fetch {self._source.base}: the server wants credentials; give user and password of "
            f"images.registries.{origin!a} in the node's config"
        )

    def _basic(self) -> str:
        if not self._source.password:
            return ""
        pair = f"{self._source.user}:{self._source.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def _token(self, realm: str, service: str) -> str:
        """A token for nothing but pulling this repository, whatever scope the challenge names."""
        doing = f"cannot get a token for {self._source.base} from {realm[:200]!a}"
        own, there = _origin(self._source.base), _origin(realm)
        if not there or (own.startswith("https:") and not there.startswith("https:")):
            raise PullError(f"{doing}: it is no https address; the registry's setup is wrong, or it is none")
        if self._basic() and there.startswith("http:") and there != own:
            raise PullError(f"{doing}: the password does not go to another machine without TLS")
        repository = urlsplit(self._source.base).path.removeprefix("/v2/")
        query = f"service={quote(service, safe='')}&scope={quote(f'repository:{repository}:pull', safe='')}"
        with (
            _told(doing),
            self._ask(f"{realm}{'&' if '?' in realm else '?'}{query}", {}, self._basic()) as answer,
        ):
            said = answer.read(_LARGEST_TOKEN)
        try:
            answered = msgspec.json.decode(said, type=_Token)
        except msgspec.DecodeError:
            answered = _Token()
        token = answered.token or answered.access_token
        if not _TOKEN.fullmatch(token):
            raise PullError(f"{doing}: it answered with none")
        return token


class Holder(Protocol):
    """Who has an image's documents and blobs: a server, or what was kept of an archive."""

    def small(self, path: str, headers: Mapping[str, str] = _NO_HEADERS) -> tuple[bytes, str]:
        """What no digest names, and its media type."""

    def blob(self, descriptor: Descriptor, first: int) -> Iterator[bytes]:
        """A blob's bytes from one on."""


def blob(servers: Sequence[Holder], descriptor: Descriptor) -> Iterator[bytes]:
    """A blob's bytes from the servers that have it, the next one going on where one gave up.

    Raises:
        PullError: nobody has it; or after the last piece, if its digest is not as named.
        OSError: nobody has it who could be asked.
    """
    with Digest() as seen:
        yield from _from_any(servers, descriptor, seen)
        found = seen.text()
    if found != descriptor.digest:
        raise PullError(
            f"cannot use blob {descriptor.digest}: the server sent one with {found}; "
            "the image is damaged or was tampered with"
        )


def _from_any(servers: Sequence[Holder], descriptor: Descriptor, seen: Digest) -> Iterator[bytes]:
    received, causes = 0, list[Cause]()
    for server in servers:
        try:
            for piece in server.blob(descriptor, received):
                seen.update(piece)
                received += len(piece)
                yield piece
        except (PullError, OSError) as error:
            causes.append(Cause(str(error), isinstance(error, OSError)))
        else:
            return
    raise worst(causes)


def worst(causes: Sequence[Cause]) -> PullError | OSError:
    """All causes in one: for good only if each of them is."""
    said = "; ".join(cause.said for cause in causes)
    return OSError(said) if any(cause.passing for cause in causes) else PullError(said)


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Turn what HTTP raises into PullError, for good, or OSError, for what may be over at the next try."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            kind = OSError if error.code >= 500 or error.code == 429 else PullError
            kind = AbsentError if error.code == 404 else kind
            raise kind(f"{doing}: the server answered {_answer_text(error)}") from None
    except ssl.SSLCertVerificationError as error:
        raise PullError(_untrusted(doing, error)) from None
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise PullError(_untrusted(doing, reason)) from None
        why = reason.strerror or reason if isinstance(reason, OSError) else reason
        raise OSError(f"{doing}: {why}; check the address and that the server runs") from None
    except http.client.HTTPException as error:
        raise OSError(f"{doing}: the server broke off or speaks no HTTP ({type(error).__name__})") from None
    except ValueError as error:  # an address in a redirect that is none
        raise PullError(f"{doing}: {str(error)[:200]!a}") from None


def _answer_text(error: urllib.error.HTTPError) -> str:
    if error.code == 401:
        return "401: it wants credentials, or others; see images.registries in the node's config"
    if 300 <= error.code < 400:
        return f"{error.code}: it redirects without end, or to no web address"
    return f"{error.code} {str(error.reason)[:200]}"


def _untrusted(doing: str, error: ssl.SSLCertVerificationError) -> str:
    return (
        f"{doing}: {error.verify_message}; give its authority as ca of images.registries in the node's config"
    )


def _pass_over(response: http.client.HTTPResponse, count: int) -> None:
    while count and (piece := response.read(min(_PIECE, count))):
        count -= len(piece)


def _origin(url: str) -> str:
    """`scheme://host:port` of a web address; empty of any other, and of one with a user in it."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return ""
    return (
        ""
        if parts.username is not None or not parts.hostname
        else f"{parts.scheme}://{parts.hostname}:{port}"
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web addresses; to the same server with what it was told, to others without."""

    max_redirections = _MOST_REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        here, there = _origin(req.full_url), _origin(newurl)
        if not there or (here.startswith("https:") and not there.startswith("https:")):
            raise PullError(
                f"cannot follow a redirect of {here}: it leads to no web address, or away from https"
            )
        after = super().redirect_request(req, fp, code, msg, headers, newurl)
        authorization = req.unredirected_hdrs.get("Authorization")
        if after and authorization and here == there:
            after.add_unredirected_header("Authorization", authorization)
        return after


def _opener(source: Source) -> urllib.request.OpenerDirector:
    """Speaks HTTP and nothing else: no files, no FTP, no proxies of an environment."""
    try:
        trust = ssl.create_default_context(cadata=source.ca or None)
    except (ssl.SSLError, ValueError) as error:
        raise PullError(f"cannot use the ca of images.registries for {source.base}: {error}") from None
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=trust),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
