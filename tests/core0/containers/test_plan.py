"""The container plan: each situation's actions, and that planning again after applying gives nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core0.containers.model import (
    Action,
    Create,
    Freeze,
    Limit,
    Pull,
    Record,
    Remove,
    Seen,
    Stop,
    Thaw,
    Wait,
    Wanted,
)
from core0.containers.plan import plan
from core0.images.model import Image, RunConfig
from core0.wire.types import ContainerSpec, CoreX, Limits

TOKEN = "0" * 64
SPEC = ContainerSpec("http://host/demo/", TOKEN)
LABELLED = replace(SPEC, labels={"app": "shop"})
OTHER = ContainerSpec("http://host/demo/", TOKEN, argv=("/bin/true",))
SLOWER = replace(SPEC, limits=Limits(cpus=0.5, memory_mib=64, cpu_weight=10))
SMALLER = replace(SPEC, limits=Limits(storage_mib=32))
IMAGE = Image("sha256:" + "1" * 64, RunConfig(), ())


def record(spec: ContainerSpec) -> Record:
    return Record(1, spec, IMAGE.digest, "10.88.0.2", "fd00::2", 2, CoreX(9001, "2" * 64), 99, 1)


@pytest.mark.parametrize(
    ("wanted", "seen", "said"),
    [
        pytest.param(Wanted(SPEC), Seen(), ["pull http://host/demo/", "create"], id="new, image absent"),
        pytest.param(Wanted(SPEC), Seen(image=IMAGE), ["create"], id="new, image here"),
        pytest.param(Wanted(SPEC), Seen(record(SPEC), alive=True, image=IMAGE), [], id="as wanted"),
        pytest.param(
            Wanted(SPEC), Seen(record(SPEC), alive=False, image=IMAGE), ["remove", "create"], id="it died"
        ),
        pytest.param(
            Wanted(OTHER),
            Seen(record(SPEC), alive=True, image=IMAGE),
            ["stop", "remove", "create"],
            id="another spec",
        ),
        pytest.param(
            Wanted(SLOWER), Seen(record(SPEC), alive=True, image=IMAGE), ["limit"], id="other limits"
        ),
        pytest.param(
            Wanted(LABELLED), Seen(record(SPEC), alive=True, image=IMAGE), ["limit"], id="other labels"
        ),
        pytest.param(
            Wanted(SLOWER, paused=True),
            Seen(record(SPEC), alive=True, image=IMAGE, freezer="frozen"),
            ["limit"],
            id="other limits, paused",
        ),
        pytest.param(
            Wanted(SMALLER),
            Seen(record(SPEC), alive=True, image=IMAGE),
            ["limit"],
            id="another size of its files",
        ),
        pytest.param(
            Wanted(replace(OTHER, limits=SLOWER.limits)),
            Seen(record(SPEC), alive=True, image=IMAGE),
            ["stop", "remove", "create"],
            id="other limits, and more",
        ),
        pytest.param(
            Wanted(SLOWER), Seen(record(SPEC), image=IMAGE), ["remove", "create"], id="other limits, it died"
        ),
        pytest.param(
            Wanted(SPEC, run=False), Seen(record(SPEC), alive=True), ["stop", "remove"], id="to be stopped"
        ),
        pytest.param(Wanted(SPEC, run=False), Seen(), [], id="stopped"),
        pytest.param(None, Seen(record(SPEC), alive=True), ["stop", "remove"], id="to be gone"),
        pytest.param(
            Wanted(SPEC, paused=True),
            Seen(record(SPEC), alive=True, image=IMAGE),
            ["freeze"],
            id="to be paused",
        ),
        pytest.param(
            Wanted(SPEC, paused=True),
            Seen(record(SPEC), alive=True, image=IMAGE, freezer="freezing"),
            ["freeze"],
            id="half paused",
        ),
        pytest.param(
            Wanted(SPEC, paused=True),
            Seen(record(SPEC), alive=True, image=IMAGE, freezer="frozen"),
            [],
            id="paused",
        ),
        pytest.param(
            Wanted(SPEC),
            Seen(record(SPEC), alive=True, image=IMAGE, freezer="freezing"),
            ["thaw"],
            id="resumed before all of it was paused",
        ),
        pytest.param(
            Wanted(SPEC, run=False),
            Seen(record(SPEC), alive=True, freezer="frozen"),
            ["thaw", "stop", "remove"],
            id="paused, to be stopped: it must hear that",
        ),
        pytest.param(
            None,
            Seen(record(SPEC), alive=True, freezer="frozen"),
            ["thaw", "stop", "remove"],
            id="paused, to be gone",
        ),
        pytest.param(
            Wanted(SPEC, paused=True), Seen(image=IMAGE), ["create", "freeze"], id="paused, after a reboot"
        ),
        pytest.param(
            Wanted(SPEC), Seen(lacks="it needs x"), ["pull http://host/demo/", "wait: it needs x"], id="lacks"
        ),
        pytest.param(
            Wanted(SPEC),
            Seen(record(SPEC), True, IMAGE, lacks="it needs x"),
            [],
            id="lacks, and runs already",
        ),
        pytest.param(Wanted(SPEC, run=False), Seen(lacks="it needs x"), [], id="lacks, and shall not run"),
        pytest.param(None, Seen(), [], id="gone"),
    ],
)
def test_plan(wanted, seen, said):
    assert [str(action) for action in plan(wanted, seen)] == said


def applied(seen: Seen, actions: tuple[Action, ...]) -> Seen:
    for action in actions:
        match action:
            case Pull():
                seen = replace(seen, image=IMAGE)
            case Create(spec):
                assert seen.image, "a container is made of an image that is here"
                assert seen.record is None, "never two of one name"
                seen = Seen(record(spec), True, seen.image, lacks=seen.lacks)
            case Limit(_, spec):
                assert seen.alive, "limits of what has ended are nobody's"
                seen = replace(seen, record=record(spec))
            case Wait():
                assert seen.record is None, "what runs waits for nothing"
            case Freeze():
                seen = replace(seen, freezer="frozen")
            case Thaw():
                seen = replace(seen, freezer="thawed")
            case Stop():
                assert seen.freezer == "thawed", "what is halted cannot end in order"
                seen = replace(seen, alive=False)
            case Remove():
                assert not seen.alive, "nothing is taken from under a living container"
                seen = Seen(None, False, seen.image, lacks=seen.lacks)
    return seen


specs = st.sampled_from([SPEC, OTHER, SLOWER, SMALLER])
wishes = st.none() | st.builds(Wanted, specs, st.booleans(), paused=st.booleans())
situations = st.builds(
    lambda made, alive, *rest: Seen(made, alive and made is not None, *rest),
    st.none() | specs.map(record),
    st.booleans(),
    st.sampled_from([None, IMAGE]),
    st.sampled_from(["thawed", "freezing", "frozen"]),
    st.sampled_from(["", "it needs x"]),
)


@given(wishes, situations)
def test_planning_after_applying_gives_nothing(wanted, seen):
    again = plan(wanted, applied(seen, plan(wanted, seen)))
    assert again == (() if not seen.lacks or not again else (Wait(seen.lacks),))
