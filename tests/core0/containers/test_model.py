"""Wishes as the node's state has them: an earlier image understands what uses nothing that it lacks."""

import msgspec
import pytest
from msgspec.structs import replace

from core0.containers.model import Wanted, encode_wish
from core0.wire.types import ContainerSpec, Limits, PublishedPort, SecretFile, TmpfsMount, VolumeMount
from corex.wire.health import HealthCheck

SPEC = ContainerSpec("http://host/demo/", "0" * 64)
FULL = replace(
    SPEC,
    argv=("a", "b"),
    env={"A": ""},
    ports=(PublishedPort(80, 8080), PublishedPort(53, 53, "udp", "10.0.0.1")),
    limits=Limits(memory_mib=64, read_bps=5),
    mounts=(VolumeMount("data", "/data"),),
    tmpfs=(TmpfsMount("/tmp"), TmpfsMount("/run", 1, 0o700, executable=True)),
    secrets=(SecretFile("db", uid=33),),
    drop_capabilities=("ALL",),
    after={"db": "healthy"},
    health=HealthCheck(port=80, path="/"),
    labels={"app": ""},
    hostname="web",
    read_only=True,
    priority=-5,
)


@pytest.mark.parametrize(
    "wanted",
    [Wanted(SPEC), Wanted(FULL), Wanted(FULL, run=False, host=7, paused=True)],
    ids=["usual", "full", "no more"],
)
def test_a_wish_is_read_as_it_was_written(wanted: Wanted) -> None:
    assert msgspec.json.decode(encode_wish(wanted), type=Wanted) == wanted


def test_what_has_its_default_is_not_written() -> None:
    assert msgspec.json.decode(encode_wish(Wanted(SPEC))) == {
        "spec": {"image": "http://host/demo/", "token_sha256": "0" * 64}
    }
    written = msgspec.json.decode(encode_wish(Wanted(FULL, host=7)))
    assert written["host"] == 7
    assert written["spec"]["ports"][0] == {"node": 80, "container": 8080}
    assert written["spec"]["limits"] == {"memory_mib": 64, "read_bps": 5}
    assert written["spec"]["health"] == {"port": 80, "path": "/"}
    assert "restart" not in written["spec"]
