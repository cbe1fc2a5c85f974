"""Interpreters whose objects the node can make immortal, for tests on machines that have one."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core0.init import immortal

NAMES = ("python3.13", "python3.12")


def known_interpreter() -> str:
    """This one, or another of this machine's; skips the test where there is none. Each boot uses the image's."""
    for path in (sys.executable,) if immortal.is_known() else _others():
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip(f"needs an interpreter whose immortal objects are known: {' or '.join(NAMES)}")


def _others() -> Iterator[str]:
    """Those that are found by name, and those that are installed beside this one, as version managers do."""
    for name in NAMES:
        if found := shutil.which(name):
            yield found
        for path in sorted(Path(sys.base_prefix).parent.glob(f"*/bin/{name}")):
            yield str(path)
