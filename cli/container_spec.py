"""What `zn container create` is told, as the parts of a spec."""

import re
import shlex
from pathlib import Path
from typing import Any

import msgspec

from cli.outcome import ExitCode, Failure
from cli.sizes import bytes_of
from core0.wire.types import ContainerSpec, PublishedPort, SecretFile, TmpfsMount, VolumeMount

# An IPv6 address is in brackets, as in an URL.
_PORT = re.compile(
    r"((\[(?P<address6>[^\]]+)\]|(?P<address>[0-9.]+)):(?=[0-9]+:))?"
    r"((?P<node>[0-9]+):)?(?P<container>[0-9]+)(/(?P<protocol>.*))?"
)


def spec_of(**given: object) -> ContainerSpec:
    """The spec, checked here as the node will check it. Raises Failure (usage)."""
    try:
        return msgspec.convert(given, ContainerSpec)
    except msgspec.ValidationError as error:
        raise Failure(
            f"cannot create the container: {error}; see zn container create --help", ExitCode.USAGE
        ) from None


def pair_of(text: str) -> tuple[str, str]:
    """NAME=VALUE. Raises Failure (usage)."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Failure(f"cannot set {text!r}: it is not NAME=VALUE", ExitCode.USAGE)
    return name, value


def mount_of(text: str) -> VolumeMount:
    """A volume, as VOLUME:FOLDER[:ro]. Raises Failure (usage)."""
    volume, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    try:
        if mode not in ("", "ro"):
            raise ValueError(mode)
        return msgspec.convert({"volume": volume, "target": target, "read_only": bool(mode)}, VolumeMount)
    except (ValueError, msgspec.ValidationError):
        raise Failure(
            f"cannot mount {text!r}: it is not VOLUME:FOLDER[:ro], as in data:/var/lib/db", ExitCode.USAGE
        ) from None


def port_of(text: str) -> PublishedPort:
    """A published port, as NODE:CONTAINER. Raises Failure (usage)."""
    known = _PORT.fullmatch(text)
    try:
        given = known.groupdict() if known else {}
        node = int(given["node"] or given["container"])
        wanted = {
            "node": node,
            "container": int(given["container"]),
            "protocol": given["protocol"] or "tcp",
            "address": given["address6"] or given["address"],
        }
        return msgspec.convert(wanted, PublishedPort)
    except (KeyError, ValueError, msgspec.ValidationError):
        raise Failure(
            f"cannot publish {text!r}: it is not NODE:CONTAINER, as in 8080:80, 192.168.1.10:8080:80 or 53:53/udp",
            ExitCode.USAGE,
        ) from None


def tmpfs_of(text: str) -> TmpfsMount:
    """Files in memory, as FOLDER[:size=16M,mode=1777,exec]. Raises Failure (usage)."""
    target, _, rest = text.partition(":")
    given: dict[str, object] = {"target": target}
    try:
        for option in filter(None, rest.split(",")):
            name, equals, value = option.partition("=")
            given |= _tmpfs_option(name, value, bool(equals))
        return msgspec.convert(given, TmpfsMount)
    except (ValueError, msgspec.ValidationError, Failure):
        raise Failure(
            f"cannot mount {text!r}: it is not FOLDER[:size=16M,mode=1777,exec], as in /run:size=1M",
            ExitCode.USAGE,
        ) from None


def _tmpfs_option(name: str, value: str, has_value: bool) -> dict[str, object]:
    if name == "size" and has_value:
        return {"size_mib": -(-bytes_of(value) >> 20)}
    if name == "mode" and has_value:
        return {"mode": int(value, 8)}
    if name == "exec" and not has_value:
        return {"executable": True}
    raise ValueError(name)


def secret_of(text: str) -> SecretFile:
    """A secret, as NAME[:file=FILE,mode=0400,uid=0,gid=0]. Raises Failure (usage)."""
    name, _, rest = text.partition(":")
    given: dict[str, object] = {"secret": name}
    try:
        for option in filter(None, rest.split(",")):
            key, _, value = option.partition("=")
            if key not in ("file", "mode", "uid", "gid"):
                raise ValueError(key)
            given[key] = value if key == "file" else int(value, 8 if key == "mode" else 10)
        return msgspec.convert(given, SecretFile)
    except (ValueError, msgspec.ValidationError):
        raise Failure(
            f"cannot show {text!r}: it is not SECRET[:file=FILE,mode=0400,uid=0,gid=0], as in db-password:uid=33",
            ExitCode.USAGE,
        ) from None


def after_of(text: str) -> tuple[str, str]:
    """What it begins after, as CONTAINER[:healthy]."""
    name, _, condition = text.partition(":")
    return name, condition or "running"


def plan_of(file: Path) -> dict[str, Any]:
    """A plan: processes and checks in a JSON file, as Core-X's layers have them. Raises Failure (usage)."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise Failure(f"cannot read the plan in {file}: {error}", ExitCode.USAGE) from None


def health_of(
    command: str | None, port: int | None, path: str | None, **given: object
) -> dict[str, object] | None:
    """A health check, if one was given. Raises Failure (usage)."""
    if command is None and port is None and path is None:
        return None
    try:
        argv = shlex.split(command or "")
    except ValueError as error:
        raise Failure(f"cannot use the health command {command!r}: {error}", ExitCode.USAGE) from None
    return {"argv": argv, "port": port, "path": path, **given}


def capability_of(text: str) -> str:
    """A capability's name, as people and other tools write it."""
    return text.upper().removeprefix("CAP_")
