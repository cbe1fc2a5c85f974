"""Connections to targets: streams, with TLS where that is wanted, and HTTP requests over them."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress

import h11

from corex.forward.location import Place
from corex.forward.names import Read, addresses_of

CONNECT_TIMEOUT = 10.0
ANSWER_TIMEOUT = 30.0
LARGEST_ANSWER = 64 << 10
_PIECE = 64 << 10
# Where distributions have the certificates that they trust.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)


class Stream:
    """A connection to a target."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_ANSWER)

    @property
    def is_over(self) -> bool:
        """Whether the other side has ended it."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def send(self, data: bytes) -> None:
        """Send bytes. Raises OSError, TimeoutError."""
        async with asyncio.timeout(ANSWER_TIMEOUT):
            self._writer.write(data)
            await self._writer.drain()

    async def post(self, place: Place, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Send a JSON document by HTTP; the answer's status and body. Raises OSError, TimeoutError."""
        named = [
            ("Host", place.authority),
            ("User-Agent", "core-x"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            *headers.items(),
        ]
        try:
            head = self._http.send(h11.Request(method="POST", target=place.path, headers=named)) or b""
            rest = self._http.send(h11.Data(data=body)) or b""
            await self.send(head + rest + (self._http.send(h11.EndOfMessage()) or b""))
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await self._answer()
        except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
            raise ConnectionAbortedError(f"it does not speak HTTP: {error}"[:200]) from None

    async def _answer(self) -> tuple[int, bytes]:
        status, body = 0, bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_PIECE))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > LARGEST_ANSWER:
                    raise ConnectionAbortedError("its answer does not end")
            elif isinstance(event, h11.EndOfMessage):
                if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                    self._http.start_next_cycle()
                else:
                    self._writer.close()
                return status, bytes(body)
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionResetError("it ended the connection")

    def close(self) -> None:
        """Let go of it."""
        self._writer.transport.abort()


async def open_stream(place: Place, authority: str, read: Read) -> Stream:
    """Connect to a target.

    Args:
        place: where it is.
        authority: certificates (PEM) to trust instead of the container's own.
        read: gives the content of a file of the container.

    Raises:
        OSError: nobody answers, or its certificate is not to be trusted.
        TimeoutError: it takes too long.
    """
    context = _believing(authority or await _bundle(read)) if place.is_secret else None
    async with asyncio.timeout(CONNECT_TIMEOUT):
        trouble: OSError = ConnectionRefusedError("it has no address")
        for address in await addresses_of(place.host, read):
            try:
                reader, writer = await asyncio.open_connection(
                    address, place.port, ssl=context, server_hostname=place.host if context else None
                )
            except OSError as error:
                trouble = error
                continue
            return Stream(reader, writer)
        raise trouble


async def send_datagrams(place: Place, messages: list[bytes], most: int, read: Read) -> None:
    """Send messages, each in a datagram of its own, cut to so many bytes. Raises OSError."""
    address = (await addresses_of(place.host, read))[0]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM) as sending:
        sending.setblocking(False)
        sending.connect((address, place.port))
        for message in messages:
            await loop.sock_sendall(sending, message[:most])


async def _bundle(read: Read) -> str:
    for path in _BUNDLES:
        found = await read(path)
        if found:
            return found.decode("ascii", "replace")
    raise FileNotFoundError("the container has no certificates to trust; give them as 'ca'")


def _believing(authority: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise OSError(f"cannot use the certificates to trust: {error}") from None
    with suppress(AttributeError):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # one of its own is enough to trust
    return context
