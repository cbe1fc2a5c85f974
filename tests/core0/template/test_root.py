"""Volumes in a container's root: a stranger wrote that tree, so no link of it is followed."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

# In a mount namespace of its own: place a file system into the tree that argv names.
_PLACE = """
import ctypes, os, sys
assert ctypes.CDLL(None, use_errno=True).unshare(0x20000) == 0
from core0.linux import mounts
from core0.template.root import _place_volume
mounts.set_propagation_private()
tree, target = sys.argv[1:]
mounts.mount(tree, tree, flags=mounts.MS_BIND)
base = os.open(tree, os.O_PATH | os.O_DIRECTORY)
volume = mounts.create("tmpfs", {})
_place_volume(base, target, volume)
print(os.stat(f"{tree}/{target}").st_dev != os.stat(tree).st_dev)
"""


def place(tree: Path, target: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _PLACE, tree, target], capture_output=True, text=True)


@pytest.mark.parametrize("target", ["data", "var/lib/data", "a/b/c/d"])
def test_a_volume_is_seen_at_a_folder_that_is_made_for_it(tmp_path: Path, target: str) -> None:
    (tmp_path / "var").mkdir()
    done = place(tmp_path, target)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr
    assert (tmp_path / target).is_dir()


def test_a_link_on_the_way_is_refused(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (tree / "var").symlink_to(outside)
    done = place(tree, "var/data")
    assert "cannot open var in the container's root: Too many levels of symbolic links" in done.stderr
    assert list(outside.iterdir()) == []


def test_a_file_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    assert "Not a directory" in place(tmp_path, "var/data").stderr
