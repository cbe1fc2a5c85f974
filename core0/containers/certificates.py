"""Certificates for Core-X, one made ahead: of all that the node does for a container, this takes the longest."""

import asyncio
from collections.abc import Callable

# Certificate and key as PEM, and the certificate's fingerprint.
Certificate = tuple[str, str, str]
# What it says of its owner: whoever asks Core-X knows it by its fingerprint.
_NAME = "core-x"
# Seconds without another container until one is made ahead: those who come together shall not wait for it.
_CALM = 0.25


class Certificates:
    """A fresh one for whoever asks, in an event loop."""

    def __init__(self, make: Callable[[str], Certificate]) -> None:
        self._make = make
        self._ready: Certificate | None = None
        self._making: asyncio.TimerHandle | None = None

    def __call__(self) -> Certificate:
        """One that nobody else ever has."""
        if self._making:
            self._making.cancel()
        self._making = asyncio.get_running_loop().call_later(_CALM, self._make_ahead)
        ready, self._ready = self._ready, None
        return ready or self._make(_NAME)

    def _make_ahead(self) -> None:
        self._ready = self._make(_NAME)
