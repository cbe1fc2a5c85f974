"""The fetcher: a process without privilege that reads the config and its signature from a web server.

It takes an address on stdin and writes one `Fetched` to stdout. Nothing of it is believed before its signature.
The node daemon has this module for what that is, so what fetches is imported by the process that does: 40 modules.
"""

import sys

import msgspec

from core0.wire.config import LARGEST

_TIMEOUT = 20.0
_LARGEST_SIGNATURE = 4096


class Fetched(msgspec.Struct, frozen=True):
    """What was read, or why it was not."""

    document: bytes = b""
    signature: bytes = b""
    error: str = ""


def main() -> None:
    """Do one job."""
    import http.client

    address = sys.stdin.buffer.read().decode()
    try:
        found = Fetched(_read(address, LARGEST), _read(f"{address}.sig", _LARGEST_SIGNATURE))
    except (OSError, http.client.HTTPException, ValueError) as error:
        found = Fetched(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(found))
    sys.stdout.flush()


def _read(address: str, largest: int) -> bytes:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:  # noqa: S310 — http or https, see cmdline
            data: bytes = response.read(largest + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"cannot fetch {address}: the server answered {error.code}") from None
    except urllib.error.URLError as error:
        raise OSError(f"cannot fetch {address}: {error.reason}") from None
    if len(data) > largest:
        raise ValueError(f"cannot use {address}: it is over {largest} bytes")
    return data
