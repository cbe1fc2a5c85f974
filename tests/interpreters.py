"""Interpreters whose objects the node can make immortal, for tests on machines that have one."""

import shutil
import subprocess
import sys

import pytest

from core0.init import immortal


def known_interpreter() -> str:
    """This one, or another of this machine's; skips the test where there is none. Each boot uses the image's."""
    for name in (sys.executable,) if immortal.is_known() else ("python3.13", "python3.12"):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip("needs an interpreter whose immortal objects are known: python3.13 or python3.12")
