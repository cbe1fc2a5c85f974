"""The one certificate that a client takes."""

import asyncio
from weakref import WeakSet

import aiohttp


class Pin(aiohttp.Fingerprint):
    """A certificate by its SHA-256, and the connections that were held against it.

    aiohttp says goodbye by TLS to who has another one, or keeps no connection, and waits for nobody: a command that
    ends behind it leaves its connections half closed.
    """

    def __init__(self, fingerprint: bytes) -> None:
        super().__init__(fingerprint)
        self._connections: WeakSet[asyncio.Transport] = WeakSet()

    def check(self, transport: asyncio.Transport) -> None:
        """Raises aiohttp.ServerFingerprintMismatch."""
        self._connections.add(transport)
        super().check(transport)

    def end(self) -> None:
        """End what is left of the connections, without a word."""
        for connection in tuple(self._connections):
            connection.abort()
