"""Running a piece of the node in a fresh network namespace of this machine."""

import subprocess
import sys
from collections.abc import Callable

import pytest

_IN_NAMESPACE = "import ctypes\nassert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0\n"


@pytest.fixture
def in_fresh_network() -> Callable[[str], None]:
    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", _IN_NAMESPACE + code], check=True, timeout=60)

    return run
