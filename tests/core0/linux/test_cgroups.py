"""Limits of control groups."""

import pytest

from core0.linux.cgroups import lines_that_free

FIRST = "254:0 rbps=max wbps=1000 riops=max wiops=max"
SECOND = "254:16 rbps=max wbps=1000 riops=max wiops=max"


@pytest.mark.parametrize(
    ("limited", "wanted", "freed"),
    [
        ("", [FIRST], ()),
        (f"{FIRST}\n", [FIRST], ()),
        (f"{FIRST}\n{SECOND}\n", [SECOND], ("254:0 rbps=max wbps=max riops=max wiops=max",)),
        ("(unknown) rbps=max wbps=1000 riops=max wiops=max\n", [SECOND], ()),
        (f"{SECOND}\n", [], ("254:16 rbps=max wbps=max riops=max wiops=max",)),
    ],
    ids=[
        "nothing is limited",
        "as wanted",
        "a disk was replaced",
        "a disk was pulled",
        "the last volume went",
    ],
)
def test_a_disk_that_no_volume_lies_on_any_more_is_freed(
    limited: str, wanted: list[str], freed: tuple[str, ...]
) -> None:
    assert lines_that_free(limited, wanted) == freed
