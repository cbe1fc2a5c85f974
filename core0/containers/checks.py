"""Which texts of a spec can be, beyond what its types say; the others are refused by their field. Pure.

By functions, not by patterns of the types: a boot waits until those are compiled.
"""

from collections.abc import Mapping

from core0.containers.targets import refused_target
from core0.wire.control import invalid
from core0.wire.types import ContainerSpec
from corex.wire.health import HealthCheck

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_LONGEST_FILE = 255
_LONGEST_LABEL, _LONGEST_KEY, _LONGEST_VALUE = 63, 128, 1024


def check_texts(spec: ContainerSpec) -> None:
    """Refuse a host name or labels that cannot be. Raises RefusedError (422)."""
    if spec.hostname is not None and not all(map(_is_label, spec.hostname.split("."))):
        detail = f"cannot call it {spec.hostname!a}: it is no host name"
        raise invalid(detail, "use letters, digits and hyphens, with dots between the parts", "/hostname")
    _check_labels(spec.labels)
    _check_files(spec)
    _check_health(spec.health)


def _check_health(check: HealthCheck | None) -> None:
    """Refuse a check that is none, or two."""
    if check is None:
        return
    if bool(check.argv) == (check.port is not None):
        detail = "cannot check its health: a check is a command or a port, and one of them"
        raise invalid(detail, "give argv, or port and maybe path", "/health")
    path = check.path or "/"
    if check.path is not None and check.port is None:
        raise invalid("cannot check its health by a path without a port", "give the port", "/health/port")
    if not (path.isascii() and path.isprintable()) or " " in path or not path.startswith("/"):
        detail = f"cannot check its health by {path[:80]!a}: it is no path of HTTP"
        raise invalid(detail, "begin it with a slash, and write other letters as %XX", "/health/path")


def _check_files(spec: ContainerSpec) -> None:
    """Refuse names that are no file's, and two secrets in one file."""
    seen: set[str] = set()
    for index, one in enumerate(spec.secrets):
        name = one.file or one.secret
        if name in (".", "..") or "/" in name or not name.isprintable() or len(name.encode()) > _LONGEST_FILE:
            detail = f"cannot show secret {one.secret} as {name[:80]!a}: that is no file's name"
            raise invalid(detail, "use a name without slashes", f"/secrets/{index}/file")
        if name in seen:
            detail = f"cannot show secret {one.secret} as {name!a}: another secret is there"
            raise invalid(detail, "choose another name", f"/secrets/{index}/file")
        seen.add(name)


def _is_label(text: str) -> bool:
    """Whether it can be a part of a host name (RFC 1123, section 2.1)."""
    inner = set(text) <= _LETTERS | {"-"} and not text.startswith("-") and not text.endswith("-")
    return inner and 0 < len(text) <= _LONGEST_LABEL


def _check_labels(labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        if not 0 < len(key) <= _LONGEST_KEY or key[0] not in _LETTERS or set(key) - _LETTERS - set("._/-"):
            remedy = "begin it with a letter or digit; these and . _ / - may follow, 128 in all"
            raise invalid(f"cannot label it {key[:80]!a}", remedy, "/labels")
        if len(value) > _LONGEST_VALUE or not value.isprintable():
            detail = f"cannot label it {key}: its value is too long or cannot be printed"
            raise invalid(detail, f"use at most {_LONGEST_VALUE} letters", f"/labels/{_escaped(key)}")


def _escaped(key: str) -> str:
    """A key as part of a JSON pointer (RFC 6901, section 3)."""
    return key.replace("~", "~0").replace("/", "~1")


def check_targets(spec: ContainerSpec) -> None:
    """Refuse places where nothing can be seen. Raises RefusedError (422)."""
    seen: list[str] = []
    for index, mount in enumerate(spec.mounts):
        _check_target(f"volume {mount.volume}", mount.target, seen, f"mounts/{index}")
    for index, tmpfs in enumerate(spec.tmpfs):
        _check_target("a tmpfs", tmpfs.target, seen, f"tmpfs/{index}")


def _check_target(what: str, target: str, seen: list[str], field: str) -> None:
    refused = refused_target(target, seen)
    if refused:
        detail = f"cannot mount {what} at {target}: {refused}"
        raise invalid(detail, "choose another folder", f"/{field}/target")
    seen.append(target)
