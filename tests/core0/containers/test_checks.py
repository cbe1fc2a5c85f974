"""Texts and places of a spec that cannot be, by their field."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from core0.containers.checks import check_targets, check_texts
from core0.wire.control import RefusedError
from core0.wire.types import ContainerSpec, SecretFile, TmpfsMount, VolumeMount
from corex.wire.health import HealthCheck

SPEC = ContainerSpec("http://host/demo/", "0" * 64)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"hostname": "Web-1.example.com"}, id="a host name with a domain"),
        pytest.param({"hostname": "9" * 63}, id="a long host name of digits"),
        pytest.param({"labels": {"org.example/app_1": "", "A": "any väl=ue, of it"}}, id="labels"),
        pytest.param(
            {
                "mounts": (VolumeMount("data", "/data"),),
                "tmpfs": (TmpfsMount("/run"), TmpfsMount("/var/tmp")),
            },
            id="places beside each other",
        ),
    ],
)
def test_what_people_write_is_fine(wanted: Mapping[str, object]) -> None:
    check(replace(SPEC, **wanted))


def check(spec: ContainerSpec) -> None:
    check_texts(spec)
    check_targets(spec)


@pytest.mark.parametrize(
    ("wanted", "pointer", "why"),
    [
        pytest.param({"hostname": "a b"}, "/hostname", "no host name", id="a space"),
        pytest.param({"hostname": "a\n10.0.0.1 evil"}, "/hostname", "no host name", id="a line end"),
        pytest.param({"hostname": "-a"}, "/hostname", "no host name", id="a hyphen first"),
        pytest.param({"hostname": "a-.b"}, "/hostname", "no host name", id="a hyphen last"),
        pytest.param({"hostname": "a..b"}, "/hostname", "no host name", id="an empty part"),
        pytest.param({"hostname": "é"}, "/hostname", "no host name", id="no ASCII"),
        pytest.param({"hostname": "a" * 64}, "/hostname", "no host name", id="a part too long"),
        pytest.param({"labels": {"": "x"}}, "/labels", "cannot label it ''", id="no key"),
        pytest.param({"labels": {"-a": "x"}}, "/labels", "cannot label it '-a'", id="a hyphen first"),
        pytest.param({"labels": {"a,b": "x"}}, "/labels", "cannot label it 'a,b'", id="a comma in a key"),
        pytest.param({"labels": {"k" * 129: "x"}}, "/labels", "cannot label it", id="a long key"),
        pytest.param({"labels": {"a/b": "x" * 1025}}, "/labels/a~1b", "too long", id="a long value"),
        pytest.param({"labels": {"a": "\x1b[2J"}}, "/labels/a", "cannot be printed", id="a terminal's order"),
        pytest.param(
            {"secrets": (SecretFile("a", "../b"),)}, "/secrets/0/file", "no file's", id="climbs out"
        ),
        pytest.param({"secrets": (SecretFile("a", ".."),)}, "/secrets/0/file", "no file's", id="two dots"),
        pytest.param({"secrets": (SecretFile("a", "é" * 200),)}, "/secrets/0/file", "no file's", id="long"),
        pytest.param(
            {"secrets": (SecretFile("a"), SecretFile("b", "a"))}, "/secrets/1/file", "is there", id="one file"
        ),
        pytest.param(
            {"tmpfs": (TmpfsMount("/run/secrets"),)}, "/tmpfs/0/target", "makes that", id="over secrets"
        ),
        pytest.param({"health": HealthCheck()}, "/health", "a command or a port", id="no check"),
        pytest.param({"health": HealthCheck(("x",), 80)}, "/health", "one of them", id="two checks"),
        pytest.param(
            {"health": HealthCheck(("x",), path="/")}, "/health/port", "without a port", id="no port"
        ),
        pytest.param({"health": HealthCheck(port=80, path="x")}, "/health/path", "no path", id="no slash"),
        pytest.param(
            {"health": HealthCheck(port=80, path="/ HTTP/1.1\r\nX: y")},
            "/health/path",
            "no path",
            id="a header",
        ),
        pytest.param({"tmpfs": (TmpfsMount("/proc/x"),)}, "/tmpfs/0/target", "makes that", id="in proc"),
        pytest.param({"tmpfs": (TmpfsMount("/a/../etc"),)}, "/tmpfs/0/target", ". or ..", id="climbs"),
        pytest.param(
            {"tmpfs": (TmpfsMount("/a"), TmpfsMount("/a"))}, "/tmpfs/1/target", "seen at /a", id="twice"
        ),
        pytest.param(
            {"mounts": (VolumeMount("data", "/data"),), "tmpfs": (TmpfsMount("/data/cache"),)},
            "/tmpfs/0/target",
            "seen at /data",
            id="in a volume",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(wanted: Mapping[str, object], pointer: str, why: str) -> None:
    with pytest.raises(RefusedError, match=why) as refused:
        check(replace(SPEC, **wanted))
    assert (refused.value.refusal.status, refused.value.refusal.pointer) == (422, pointer)
