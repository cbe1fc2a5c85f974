"""Python packages: uv resolves them to wheels for the image's Python, and a wheel becomes entries.

The host's requirements.lock is the constraint: the image gets the versions that the tests here ran with.
"""

import io
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from image.errors import ImageError
from image.tree import Entry, file

# glibc of the suite as uv names it; a wheel may ask for an older one.
_PLATFORMS = {"amd64": "x86_64-manylinux_2_40", "arm64": "aarch64-manylinux_2_40"}


class WheelError(ImageError):
    """Python packages cannot be resolved, or a wheel cannot be read."""


@dataclass(frozen=True)
class Found:
    """A wheel that uv chose: where it is now, and what it must be."""

    name: str
    version: str
    filename: str
    url: str
    sha256: str


def resolve(requirements: Sequence[str], constraints: Path, python: str, arch: str) -> tuple[Found, ...]:
    """The wheels for the requirements and all that they need, for one Python on one architecture."""
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-header"),
        "--system-certs",  # as pip and apt: a company's own authority is known to the system, not to uv
        *("--format", "pylock.toml", "--only-binary", ":all:", "--constraints", str(constraints)),
        *("--python-version", python, "--python-platform", _PLATFORMS[arch]),
    ]
    environment = {**os.environ, **_index()}
    done = subprocess.run(
        command, input="\n".join(requirements), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise WheelError(f"cannot resolve Python packages: {done.stderr.strip()}")
    packages = tomllib.loads(done.stdout)["packages"]
    return tuple(_choose(package, python) for package in packages)


def _index() -> Mapping[str, str]:
    """Make uv ask the package index that this machine's pip uses, unless uv has its own settings."""
    if {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE"} & os.environ.keys():
        return {}
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    configured = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    named = os.environ.get("PIP_INDEX_URL") or configured
    return {"UV_DEFAULT_INDEX": named} if named else {}


def _choose(package: Mapping[str, object], python: str) -> Found:
    name, version = str(package["name"]), str(package["version"])
    wheels = package.get("wheels")
    if not isinstance(wheels, list) or not wheels:
        raise WheelError(
            f"cannot use {name} {version}: it has no wheel for Python {python} on the image's platform"
        )
    best = max(wheels, key=lambda wheel: _rank(_filename(wheel["url"]), python))
    url = str(best["url"])
    return Found(name, version, _filename(url), url, str(best["hashes"]["sha256"]))


def _filename(url: str) -> str:
    return url.rsplit("/", 1)[-1].split("#")[0]


def _rank(filename: str, python: str) -> tuple[bool, int, int, str]:
    """Compiled for this Python first, then the newest stable ABI, then the newest glibc (PEP 425, 600)."""
    interpreter, abi, platform = filename.removesuffix(".whl").split("-")[-3:]
    stable = re.fullmatch(r"cp3(\d+)", interpreter) if abi == "abi3" else None
    glibc = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", platform)]
    compiled = interpreter == f"cp{python.replace('.', '')}"
    return compiled, int(stable[1]) if stable else 0, max(glibc, default=0), filename


def read(wheel: bytes, site: str, origin: str) -> list[Entry]:
    """The files of a wheel below the folder `site`; only the root of a wheel is used (no .data schemes)."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        return list(_entries(archive, members, site, origin))


def _entries(
    archive: zipfile.ZipFile, members: Iterable[zipfile.ZipInfo], site: str, origin: str
) -> Iterable[Entry]:
    for member in members:
        if ".data/" in member.filename:
            raise WheelError(f"cannot use {origin}: {member.filename} belongs outside the package folder")
        yield file(f"{site}/{member.filename}", archive.read(member), origin)
