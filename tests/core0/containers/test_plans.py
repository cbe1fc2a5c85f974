"""What Core-X is told to start, by spec and image."""

from typing import Any

import msgspec
import pytest

from core0.containers.plans import NoProgramError, boot_of, check_plan, plan_of
from core0.images.model import Image, RunConfig
from core0.wire.control import RefusedError
from core0.wire.types import ContainerSpec
from corex.wire.boot import Boot
from corex.wire.health import HealthCheck
from corex.wire.process import CheckSpec, ProcessSpec, Readiness
from corex.wire.targets import TargetSpec

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RUN = RunConfig("web", ("A=image", "B=image", "odd"), ("/entry",), ("--serve",), "/srv", "SIGQUIT")


def spec(**fields: Any) -> ContainerSpec:
    return ContainerSpec("http://host/demo/", "0" * 64, **fields)


def image(run: RunConfig = RUN) -> Image:
    return Image("sha256:" + "1" * 64, run, ())


def test_without_a_plan_the_image_s_program_is_the_main_process() -> None:
    plan = plan_of(spec(env={"B": "spec"}), image())
    assert plan.checks == {}
    assert plan.processes == {
        "main": ProcessSpec(
            ("/entry", "--serve"),
            env={"PATH": PATH, "A": "image", "B": "spec"},
            cwd="/srv",
            user="web",
            restart="always",
            stop_signal="SIGQUIT",
        )
    }
    changed = spec(argv=("sh",), user="0:5", cwd="/", restart="never")
    main = plan_of(changed, image(RunConfig())).processes["main"]
    assert main == ProcessSpec(("sh",), env={"PATH": PATH}, user="0:5")


def test_a_plan_lies_over_what_the_image_says() -> None:
    plan = {
        "processes": {
            "db": {"argv": ["postgres"], "user": "postgres", "ready": {"port": 5432}, "env": {"A": "plan"}},
            "web": {"after": {"db": "ready"}, "override": "replace", "stop_signal": "SIGTERM", "cwd": "/"},
        },
        "checks": {"web": {"process": "web", "port": 80}},
        "targets": {"logs": {"type": "syslog", "location": "udp://logs"}},
    }
    made = boot_of(
        "demo",
        "node-1",
        ("c", "k"),
        spec(
            plan=plan,
            env={"B": "spec"},
            health=HealthCheck(port=80),
            hostname="shop",
            dns_names=("shop.example",),
        ),
        image(),
    )
    assert made.targets == {"logs": TargetSpec("syslog", "udp://logs")}
    assert made.names == ("demo.default.internal", "shop", "node-1", "shop.example")
    assert made.processes["db"] == ProcessSpec(
        ("postgres",),
        env={"PATH": PATH, "A": "plan", "B": "spec"},
        cwd="/srv",
        user="postgres",
        stop_signal="SIGQUIT",
        ready=Readiness(port=5432),
    )
    assert made.processes["web"] == ProcessSpec(
        ("/entry", "--serve"),
        env={"PATH": PATH, "A": "image", "B": "spec"},
        user="web",
        after={"db": "ready"},
    )
    assert made.checks == {"web": CheckSpec(process="web", port=80)}
    assert msgspec.json.decode(msgspec.json.encode(made), type=Boot) == made


@pytest.mark.parametrize(
    ("fields", "pointer", "reason"),
    [
        (
            {"plan": {"processes": {"a": {}}}, "argv": ("sh",)},
            "/argv",
            "which of them would be the main process",
        ),
        ({"plan": {}}, "/plan/processes", "a plan without processes"),
        ({"plan": {"processes": {"a": {"argv": "sh"}}}}, "/plan/processes", "expected `array`, got `str`"),
        ({"plan": {"procs": {}}}, "/plan/procs", "object contains unknown field `procs`"),
        ({"plan": {"processes": {"A": {}}}}, "/plan", "matching regex"),
        ({"plan": {"processes": {"a": {"umask": "9"}}}}, "/plan/processes/a/umask", "it is not octal"),
        (
            {"plan": {"processes": {"a": {"after": {"b": "ready"}}, "b": {"after": {"a": "ready"}}}}},
            "/plan/processes/a/after/b",
            "a would start after itself: a after b after a",
        ),
        (
            {"plan": {"processes": {"a": {}}, "checks": {"c": {"process": "x", "port": 1}}}},
            "/plan/checks/c/process",
            "there is no process x",
        ),
    ],
)
def test_a_plan_that_is_none_is_refused_before_anything_is_made(
    fields: dict[str, Any], pointer: str, reason: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        check_plan(spec(**fields))
    assert (refused.value.refusal.status, refused.value.refusal.pointer) == (422, pointer)
    assert reason in refused.value.refusal.detail


def test_an_image_without_a_program_needs_one() -> None:
    check_plan(spec())
    check_plan(spec(plan={"processes": {"a": {}}}))
    with pytest.raises(NoProgramError, match="the image names no program"):
        plan_of(spec(), image(RunConfig()))
    with pytest.raises(RefusedError, match="no layer gives argv of a"):
        plan_of(spec(plan={"processes": {"a": {}}}), image(RunConfig()))
