"""Cgroups of single processes, made in a real one."""

import os
import subprocess
from pathlib import Path

import pytest

from corex.process.groups import Groups

pytestmark = pytest.mark.root


def folder_of(cgroup: Path) -> int:
    return os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)


def test_who_may_make_none_has_none(tmp_path: Path) -> None:
    assert Groups(None).make("a") is None
    Groups(None).remove("a")


def test_what_is_in_the_way_is_moved_and_a_group_is_made_once(cgroup: Path) -> None:
    groups = Groups(folder_of(cgroup))
    with subprocess.Popen(["sleep", "100"]) as sleeper:
        (cgroup / "cgroup.procs").write_text(str(sleeper.pid))
        first, again = groups.make("a"), groups.make("a")
        assert first
        assert again
        assert (cgroup / "cgroup.procs").read_text() == ""
        assert (cgroup / "core-x/cgroup.procs").read_text().split() == [str(sleeper.pid)]
        sleeper.kill()
    for group in (first, again):
        group.close()


def test_a_group_knows_its_members_and_ends_them(cgroup: Path) -> None:
    groups = Groups(folder_of(cgroup))
    group = groups.make("a")
    assert group
    assert group.members() == []
    with subprocess.Popen(["sleep", "100"]) as sleeper:
        (cgroup / "process-a/cgroup.procs").write_text(str(sleeper.pid))
        assert group.members() == [sleeper.pid]
        group.kill()
        assert sleeper.wait(10) == -9
    assert group.read("cgroup.nothing") is None
    groups.remove("a")
    assert not (cgroup / "process-a").exists()
    assert group.members() == [], "it is gone"
    group.kill()
    group.close()


def test_a_group_that_is_not_empty_goes_with_the_next_one(cgroup: Path) -> None:
    groups = Groups(folder_of(cgroup))
    for name in ("a", "b"):
        group = groups.make(name)
        assert group
        group.close()
    with subprocess.Popen(["sleep", "100"]) as sleeper:
        (cgroup / "process-a/cgroup.procs").write_text(str(sleeper.pid))
        groups.remove("a")
        assert (cgroup / "process-a").exists()
        sleeper.kill()
    groups.remove("b")
    assert not (cgroup / "process-a").exists()
    assert not (cgroup / "process-b").exists()


def test_a_process_that_comes_again_keeps_its_group(cgroup: Path) -> None:
    groups = Groups(folder_of(cgroup))
    group = groups.make("a")
    assert group
    with subprocess.Popen(["sleep", "100"]) as sleeper:
        (cgroup / "process-a/cgroup.procs").write_text(str(sleeper.pid))
        groups.remove("a")
        again = groups.make("a")
        assert again
        sleeper.kill()
    groups.remove("b")
    assert (cgroup / "process-a").exists()
    for one in (group, again):
        one.close()
    groups.remove("a")
