"""Volumes in a container's root: a stranger wrote that tree, so no link of it is followed."""

import subprocess
import sys
from pathlib import Path

import pytest

from core0.linux import mounts

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


# An image's folder of user 33, and a volume with what argv names; who has the volume afterwards.
_GIVE = """
import os, sys
from core0.linux import mounts
from core0.template.root import _give_to_image
tree, owner, file, attributes = sys.argv[1:]
os.makedirs(f"{tree}/data", 0o750)
os.chown(f"{tree}/data", 33, 34)
volume = mounts.create("tmpfs", {"uid": owner, "mode": "0755"})
if file:
    os.mkdir(file, dir_fd=volume)
mounts.set_attributes(volume, int(attributes))
base = os.open(tree, os.O_PATH | os.O_DIRECTORY)
_give_to_image(base, "data", volume)
_give_to_image(base, "absent", volume)
there = os.stat(".", dir_fd=volume)
print(there.st_uid, there.st_gid, oct(there.st_mode & 0o7777))
"""
_TAKEN, _LEFT = "33 34 0o750\n", "0 0 0o755\n"


@pytest.mark.parametrize(
    ("owner", "file", "attributes", "whose"),
    [
        pytest.param("0", "", 0, _TAKEN, id="new"),
        pytest.param("0", "kept", 0, _LEFT, id="with a file"),
        pytest.param("7", "", 0, "7 0 0o755\n", id="somebody's"),
        pytest.param("0", "", mounts.ATTR_RDONLY, _LEFT, id="read-only"),
    ],
)
def test_only_a_new_volume_takes_the_owner_of_the_folder_that_it_covers(
    tmp_path: Path, owner: str, file: str, attributes: int, whose: str
) -> None:
    words = [sys.executable, "-c", _GIVE, tmp_path, owner, file, str(attributes)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == (whose, 0), done.stderr
