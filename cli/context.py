"""Contexts: which node, which key, which Core-X; one TOML file that `zn up` writes and people may edit.

Secrets are never in the file itself: the operator's private key and the Core-X tokens are files beside it,
mode 0600, named relative to it.

    current = "local"

    [context.local]
    address = "127.0.0.1:40123"
    fingerprint = "<sha256 of the node's certificate>"
    key = "operator.pem"

    [context.local.container.demo]
    address = "127.0.0.1:40125"
    fingerprint = "<sha256 of Core-X's certificate>"
    token = "local-demo.token"
"""

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cli.outcome import ExitCode, Failure


class CoreXEndpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a container's Core-X answers, what certificate to pin, and the file that holds its token."""

    address: str
    fingerprint: str
    token: str


class Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node: where its API answers, what certificate to pin, the operator's key file, its containers.

    Who is not its operator has containers alone (`zn process login`): then the first three are empty. `machine` is
    the folder of the machine under QEMU that the node runs in, where `zn` started one: its ports are reached by
    forwards only.
    """

    address: str = ""
    fingerprint: str = ""
    key: str = ""
    machine: str = ""
    container: dict[str, CoreXEndpoint] = {}


class Contexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    current: str | None = None
    context: dict[str, Context] = {}


def default_path() -> Path:
    """$XDG_CONFIG_HOME/zeronode/contexts.toml."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "zeronode" / "contexts.toml"


def load(path: Path) -> Contexts:
    """Read the file; an absent one has no contexts.

    Raises:
        Failure: it cannot be understood; the message names the place.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Contexts)
    except FileNotFoundError:
        return Contexts()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise Failure(
            f"cannot read the contexts file {path}: {error}; correct it, or delete it and run zn up again",
            ExitCode.USAGE,
        ) from error


def choose(path: Path, name: str | None = None) -> Context:
    """The named context, or the current one.

    Raises:
        Failure: there is no such context; the message lists those that exist.
    """
    contexts = load(path)
    wanted = name or contexts.current
    if wanted is None:
        raise Failure(
            f"cannot choose a node: {path} names none; run zn up first, or zn process login for a container alone",
            ExitCode.USAGE,
        )
    if wanted not in contexts.context:
        known = ", ".join(contexts.context) or "none"
        raise Failure(f"cannot find context {wanted!r} in {path}: it has {known}", ExitCode.USAGE)
    return contexts.context[wanted]


def name_of(path: Path, name: str | None = None) -> str:
    """The name of the named context, or of the current one; empty without one."""
    return name or load(path).current or ""


def save(path: Path, contexts: Contexts) -> None:
    """Write the file whole or not at all, readable by its owner only."""
    _write_private(path, "\n".join(_lines(contexts)) + "\n")


def put(path: Path, name: str, context: Context) -> None:
    """Add or replace one context and make it the current one."""
    known = load(path)
    save(path, Contexts(name, {**known.context, name: context}))


def drop(path: Path, name: str) -> None:
    """Remove one context with its tokens; no context of that name is fine."""
    known = load(path)
    if name not in known.context:
        return
    for endpoint in known.context[name].container.values():
        (path.parent / endpoint.token).unlink(missing_ok=True)
    left = {key: value for key, value in known.context.items() if key != name}
    save(path, Contexts(next(iter(left), None), left))


def remember(path: Path, name: str, container: str, endpoint: CoreXEndpoint) -> None:
    """Add or replace where a container's Core-X answers; a context that is not there is made, without a node."""
    chosen = load(path).context.get(name, Context())
    put(path, name, msgspec.structs.replace(chosen, container={**chosen.container, container: endpoint}))


def forget(path: Path, name: str, container: str) -> None:
    """Remove a container's Core-X and its token; neither needs to be there."""
    (path.parent / f"{token_name(name, container)}.token").unlink(missing_ok=True)
    chosen = load(path).context.get(name)
    if chosen and container in chosen.container:
        left = {key: value for key, value in chosen.container.items() if key != container}
        put(path, name, msgspec.structs.replace(chosen, container=left))


def token_name(name: str, container: str) -> str:
    """What a container's token is kept by (`write_token`)."""
    return f"{name}-{container}"


def write_token(path: Path, name: str, token: str) -> str:
    """Keep a Core-X token in a file beside the contexts file; returns the name to put into the context."""
    file = f"{name}.token"
    _write_private(path.parent / file, f"{token}\n")
    return file


def read_token(path: Path, endpoint: CoreXEndpoint) -> str:
    """The token of a Core-X.

    Raises:
        Failure: the token's file is gone.
    """
    try:
        return (path.parent / endpoint.token).read_text("ascii").strip()
    except FileNotFoundError:
        raise Failure(
            f"cannot log in to Core-X: the token file {path.parent / endpoint.token} is gone; "
            "remove the container and create it again",
            ExitCode.NOT_ALLOWED,
        ) from None


def _lines(contexts: Contexts) -> Iterator[str]:
    if contexts.current is not None:
        yield f"current = {_quoted(contexts.current)}"
    for name, context in contexts.context.items():
        yield f"\n[context.{_quoted(name)}]"
        yield from _pairs(context)
        for container, endpoint in context.container.items():
            yield f"\n[context.{_quoted(name)}.container.{_quoted(container)}]"
            yield from _pairs(endpoint)


def _pairs(struct: msgspec.Struct) -> Iterator[str]:
    for key in struct.__struct_fields__:
        value = getattr(struct, key)
        if isinstance(value, str) and value:
            yield f"{key} = {_quoted(value)}"


def _quoted(text: str) -> str:
    # a JSON string without surrogate pairs is a TOML basic string; DEL is the one character JSON leaves bare
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)
