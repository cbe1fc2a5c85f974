"""Where in a container its volumes may be seen."""

import pytest

from core0.containers.targets import refused_target


@pytest.mark.parametrize("target", ["/data", "/var/lib/db", "/etc/app", "/process", "/..data", "/srv/a b"])
def test_a_folder_of_the_images_own_is_fine(target: str) -> None:
    assert refused_target(target, []) == ""


@pytest.mark.parametrize(
    ("target", "others", "why"),
    [
        pytest.param("/a/../b", [], ". or ..", id="climbs"),
        pytest.param("/a/.", [], ". or ..", id="stays"),
        pytest.param("/proc", [], "makes that folder itself", id="proc"),
        pytest.param("/dev/shm", [], "makes that folder itself", id="inside dev"),
        pytest.param("/sys/fs/cgroup", [], "makes that folder itself", id="inside sys"),
        pytest.param("/etc", [], "hide the files", id="etc"),
        pytest.param("/data", ["/data"], "seen at /data", id="twice"),
        pytest.param("/data/in", ["/data"], "something else is seen at /data", id="in another"),
        pytest.param("/data", ["/x", "/data/in"], "seen at /data/in", id="around another"),
    ],
)
def test_what_would_hide_or_climb_is_refused(target: str, others: list[str], why: str) -> None:
    assert why in refused_target(target, others)
