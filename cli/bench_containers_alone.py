"""Core-X as another runtime's container runs it for `zn bench containers`: by an interpreter of its own.

Beside it lies its start message; its argument is the port. Nothing here is imported by `zn`.
"""

import socket
import sys
from pathlib import Path

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]

import msgspec

from corex.main import Given, run, tls_context
from corex.wire.boot import Boot


def main(port: int) -> None:
    """Be Core-X."""
    boot = msgspec.json.decode(Path("/boot.json").read_bytes(), type=Boot)
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    run(boot, tls=tls_context(boot), listener=listener, given=Given())


if __name__ == "__main__":
    main(int(sys.argv[1]))
