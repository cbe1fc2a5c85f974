"""What counts as looser when two containers' rows are compared (tests/vm/comparison.py)."""

import pytest

from tests.vm import comparison
from tests.vm.comparison import Difference

NODE = {"user": "user:[1]", "net": "net:[2]"}


def compared(ours: dict[str, list[str]], theirs: dict[str, list[str]]) -> list[Difference]:
    return comparison.compare(*(comparison.prepared(rows, NODE, {39: "getpid"}) for rows in (ours, theirs)))


@pytest.mark.parametrize(
    ("row", "less", "more"),
    [
        pytest.param("call 39", [], ["passes"], id="a call"),
        pytest.param("path /proc/kcore", [], ["read"], id="a path"),
        pytest.param("path /proc/x", ["read"], ["read", "write"], id="a path to write"),
        pytest.param("capabilities eff", ["0"], ["0", "21"], id="a capability"),
        pytest.param("ids uid_map", ["0", "1065536", "65536"], ["0", "0", "4294967295"], id="users"),
        pytest.param("namespace user", ["user:[7]"], ["user:[1]"], id="the node's namespace"),
        pytest.param("RLIMIT_CORE hard", ["0"], ["unlimited"], id="no limit"),
        pytest.param("RLIMIT_NOFILE soft", ["900"], ["1000"], id="a limit by number"),
        pytest.param("oom_score_adj", ["500"], ["-10"], id="who is ended last"),
    ],
)
def test_more_is_looser_and_less_is_not(row: str, less: list[str], more: list[str]) -> None:
    (looser,) = compared({row: more}, {row: less})
    assert (looser.looser, looser.reason) == (True, "")
    (stricter,) = compared({row: less}, {row: more})
    assert not stricter.looser
    assert compared({row: more}, {row: more}) == []


def test_two_namespaces_of_their_own_are_the_same() -> None:
    assert compared({"namespace net": ["net:[8]"]}, {"namespace net": ["net:[9]"]}) == []


def test_a_mount_that_only_one_has_is_for_the_other_what_it_lies_in() -> None:
    around = {"mount /": ["no ro"]}
    (found,) = compared({**around, "mount /etc/hosts": ["no ro", "no nodev"]}, around)
    assert found.looser
    assert compared({**around, "mount /etc/hosts": ["no ro"]}, around) == []


def test_a_row_that_only_the_other_has_is_stricter() -> None:
    (found,) = compared({}, {"path /dev/kmsg": ["read"]})
    assert not found.looser


def test_what_is_listed_has_its_reason_and_stands_in_the_table() -> None:
    rows = {"call personality": frozenset({"passes"}), "capabilities eff": frozenset({"0"})}
    table = list(comparison.table(rows, {**rows, "call personality": frozenset()}))
    assert "| system calls by number, 0 to 479 | 1 | 0 | 0 | 1 |" in table
    assert table[-1].startswith("- `call personality`: with the upper half")


def test_each_area_has_rows_of_its_own() -> None:
    known = (
        "capabilities eff",
        "ids gid_map",
        "namespace pid",
        "oom_score_adj",
        "RLIMIT_CPU soft",
        "mount /proc/bus",
    )
    assert [comparison.area_of(row) for row in known] == [
        "capabilities", "ids", "namespace", "process", "limit", "mount",
    ]  # fmt: skip
    assert comparison.area_of("path /sys/kernel/x") == "path /sys"
    assert comparison.area_of("x32 call 5") == "x32 call"
    assert comparison.area_of("unshare NEWNET") == "argument"
