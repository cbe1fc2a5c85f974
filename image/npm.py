"""npm packages: npm itself resolves them at locking; a build copies files out of their archives.

Where the registry is, npm's own configuration says (npm-config(7), `registry`): no host stands here. Nothing of a
package is ever run. An archive's place in a registry is the one that npm takes when a lock names none.
"""

import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from image.errors import ImageError

_ROOT = "package/"


class NpmError(ImageError):
    """npm packages cannot be resolved or read; the message names the cause and the remedy."""


@dataclass(frozen=True)
class Found:
    """A package that npm chose and verified, with its archive."""

    name: str
    version: str
    content: bytes


def resolve(packages: Sequence[str]) -> tuple[Found, ...]:
    """The archives of packages, each `NAME` or `NAME@RANGE`; npm checks them against the registry's checksums.

    Raises:
        NpmError: npm is not installed, or cannot have one of them.
    """
    if not packages:
        return ()
    with tempfile.TemporaryDirectory(prefix="zn-npm-") as folder:
        said = _npm("pack", "--json", "--ignore-scripts", "--pack-destination", folder, *packages)
        return tuple(
            Found(one["name"], one["version"], (Path(folder) / one["filename"]).read_bytes())
            for one in json.loads(said)
        )


def path(name: str, version: str) -> str:
    """Where a registry has the archive of a package, relative to its own address."""
    return f"{name}/-/{name.rpartition('/')[2]}-{version}.tgz"


def registry() -> str:
    """The address of the registry that this machine's npm asks, without a slash at its end. Raises NpmError."""
    return _npm("config", "get", "registry").strip().rstrip("/")


def _npm(*words: str) -> str:
    environment = {**os.environ, "NO_UPDATE_NOTIFIER": "1"}
    try:
        done = subprocess.run(
            ["npm", *words], env=environment, capture_output=True, text=True, check=False, cwd="/"
        )
    except FileNotFoundError as error:
        raise NpmError("cannot ask npm: it is not installed; apt-get install npm") from error
    if done.returncode:
        raise NpmError(f"cannot ask npm: npm {words[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def read(archive: bytes, origin: str) -> dict[str, bytes]:
    """The files of a package by their paths in it.

    Raises:
        NpmError: it is no archive of npm, or has anything beside its own folder.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
            for member in members:
                if member.isdir():
                    continue
                content = members.extractfile(member) if member.isreg() else None
                if content is None or not member.name.startswith(_ROOT) or ".." in member.name.split("/"):
                    raise NpmError(f"cannot use npm package {origin}: {member.name!a} is no file of its own")
                files[member.name.removeprefix(_ROOT)] = content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise NpmError(f"cannot read npm package {origin}: {error}") from error
    return files


def licence(files: Mapping[str, bytes]) -> str:
    """What a package says of its licence, as SPDX names it; "" if nothing (package.json, `license`)."""
    try:
        stated = json.loads(files["package.json"])["license"]
    except (KeyError, TypeError, ValueError):
        return ""
    return stated if isinstance(stated, str) else ""
