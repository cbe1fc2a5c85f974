"""Every program of the node behind one entry: without arguments PID 1, else the program that is named.

`/init` of the image calls `main`. The imports are inside the functions: each program loads only its own.
"""

import gc
import os
import socket
import sys
from collections.abc import Sequence

from core0.wire import paths, ports

# What strangers in containers ask must not take the node's memory.
_NAMES_LIMITS = {"memory.max": "64M", "pids.max": "8"}


def main(arguments: Sequence[str]) -> None:
    """Run a program of the node.

    Raises:
        SystemExit: 2 for a program that is not known.
    """
    # the kernel gives words that it does not know to PID 1 as arguments (kernel-parameters.rst): no names of ours
    match [] if os.getpid() == 1 else list(arguments):
        case []:
            _init()
        case ["pull"]:
            from core0.images.pull import main as pull

            pull()
        case ["fetch"]:
            from core0.config.fetch import main as fetch

            fetch()
        case ["resolve"]:
            from core0.mesh.resolve import main as resolve

            resolve()
        case _:
            sys.stderr.write(f"zn: unknown program {' '.join(arguments)!a}; known: fetch, pull, resolve\n")
            raise SystemExit(2)


def _init() -> None:
    gc.disable()  # what is imported stays: each process turns it on when it has what it needs
    from core0.init.main import main as init
    from core0.init.supervise import Service

    init([Service("template", run=_template)])


def _template(_: socket.socket | None) -> None:
    from core0.init.supervise import Service
    from core0.template.main import main as template

    template(
        node=Service("node", run=_node, listen=_node_listener),
        api=Service("api", run=_api, listen=_api_listener, user=paths.API_USER),
        names=Service("names", run=_names, limits=_NAMES_LIMITS, user=paths.NAMES_USER),
    )


def _api_listener() -> socket.socket:
    """The API's door, for IPv6 and IPv4."""
    listener = socket.create_server(
        ("::", ports.API), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
    )
    listener.setblocking(False)
    return listener


def _node_listener() -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    if os.path.exists(paths.NODE_SOCKET):  # noqa: PTH110 — an earlier template's
        os.unlink(paths.NODE_SOCKET)  # noqa: PTH108
    listener.bind(paths.NODE_SOCKET)
    os.chown(paths.NODE_SOCKET, 0, paths.API_USER)
    os.chmod(paths.NODE_SOCKET, 0o660)  # noqa: PTH101 — PID 1 does without pathlib
    listener.listen(16)
    return listener


def _api(listener: socket.socket | None) -> None:
    from core0.api.main import main as api

    assert listener is not None  # noqa: S101 — the table above gives it one
    api(listener)


def _names(talk: socket.socket | None) -> None:
    from core0.names.main import main as names

    assert talk is not None  # noqa: S101
    names(talk)


def _node(listener: socket.socket | None) -> None:
    from core0.node.main import main as node

    assert listener is not None  # noqa: S101
    node(listener)


if __name__ == "__main__":
    main(sys.argv[1:])
