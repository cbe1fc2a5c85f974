"""From a context to a client: the operator's key signs a fresh certificate, the other side's is pinned."""

import asyncio
import datetime
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from ci.qemu import detached
from cli import context
from cli.context import Context, CoreXEndpoint
from cli.frame import Settings
from cli.outcome import ExitCode, Failure
from core0.client.client import NodeClient
from core0.client.credentials import client_context, issue_certificate, load_key
from corex.client.client import Client, Endpoint

T = TypeVar("T")
# Who used the operator's key, in the node's log.
_WHO = "zn"


def node_client(settings: Settings) -> NodeClient:
    """A client of the chosen node's API; use it with `async with`, inside a running loop.

    Raises:
        Failure: no context is chosen, or it has no node.
        OperatorKeyError: its key cannot be read.
    """
    chosen = context.choose(settings.contexts, settings.context)
    if not chosen.address:
        raise Failure(
            f"cannot ask a node: this context of {settings.contexts} has containers alone; "
            "a node is asked by its operator, with --context",
            ExitCode.USAGE,
        )
    return client_of(settings.contexts, chosen)


def client_of(contexts: Path, chosen: Context) -> NodeClient:
    """A client of one context's node."""
    key = load_key(contexts.parent / chosen.key)

    def issue(moment: datetime.datetime) -> ssl.SSLContext:
        return client_context(issue_certificate(key, _WHO, now=moment))

    now = datetime.datetime.now(datetime.UTC)
    return NodeClient(chosen.address, chosen.fingerprint, issue(now), reissue=issue)


def call(settings: Settings, work: Callable[[NodeClient], Awaitable[T]]) -> T:
    """Do some work with the chosen node and return its result."""

    async def run() -> T:
        async with node_client(settings) as client:
            return await work(client)

    return asyncio.run(run())


def call_corex(settings: Settings, container: str, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do some work with a container's Core-X and return its result."""

    async def run() -> T:
        async with corex_client(settings, container) as client:
            return await work(client)

    return asyncio.run(run())


async def reach(chosen: Context, port: int) -> str:
    """The address (`host:port`) at which a port of a context's node is reached from here."""
    if not chosen.machine:
        return f"{chosen.address.rpartition(':')[0]}:{port}"
    async with detached.attach(Path(chosen.machine)) as machine:
        return f"127.0.0.1:{await machine.forward(port)}"


def corex_client(settings: Settings, container: str) -> Client:
    """A client of a container's Core-X; use it with `async with`.

    Raises:
        Failure: the context does not know the container's Core-X, or its token is gone.
    """
    known = corex_endpoint(settings, container)
    token = context.read_token(settings.contexts, known)
    return Client(Endpoint(known.address, known.fingerprint, token))


def corex_endpoint(settings: Settings, container: str) -> CoreXEndpoint:
    """Where a container's Core-X answers.

    Raises:
        Failure: the context does not know.
    """
    chosen = context.choose(settings.contexts, settings.context)
    endpoint = chosen.container.get(container)
    if endpoint is None:
        known = ", ".join(chosen.container) or "none"
        raise Failure(
            f"cannot reach Core-X of container {container!r}: the context has the token of {known}; "
            "who created the container can let you in (zn process allow), then zn process login",
            ExitCode.REFUSED,
        )
    return endpoint
