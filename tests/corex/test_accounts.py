"""Users from files that a tenant wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corex.process.accounts import MAX_FILE, MAX_GROUPS, MAX_HOME, Account, home_of, resolve

PASSWD = b"""root:x:0:0::/root:/bin/sh
broken:x:1
web:x:1000:1001::/home/web:/bin/sh
huge:x:4294967295:0::/:/bin/sh
minus:x:-1:0::/:/bin/sh
web:x:7:7:::/bin/sh
5:x:6:6::/:/bin/sh
"""
GROUP = b"root:x:0:\nweb:x:1001:\naudio:x:29:other,web\nvideo:x:44:web\nbad:x:9\nvideo2:x:44:web\n"


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("0", Account(0, 0)),
        ("root", Account(0, 0)),
        ("1000", Account(1000, 1001, (29, 44))),
        ("web", Account(1000, 1001, (29, 44))),
        ("web:root", Account(1000, 0)),
        ("web:audio", Account(1000, 29)),
        ("123", Account(123, 0)),
        ("123:456", Account(123, 456)),
        ("5", Account(5, 0)),
    ],
)
def test_users_are_found_as_the_c_library_would(user: str, account: Account) -> None:
    assert resolve(user, PASSWD, GROUP) == account


@pytest.mark.parametrize(
    "user",
    ["nobody", "", ":", "web:nogroup", "huge", "minus", "broken", "4294967295", "-1", "1.5", "web:-1", "٣"],
)
def test_what_is_not_there_is_refused_by_name(user: str) -> None:
    with pytest.raises(LookupError, match="is not in the container's /etc/"):
        resolve(user, PASSWD, GROUP)


@pytest.mark.parametrize(
    ("user", "home"),
    [
        ("0", "/root"),
        ("root", "/root"),
        ("root:web", "/root"),
        ("web", "/home/web"),
        ("1000:29", "/home/web"),
        ("7", "/"),
        ("123", "/"),
        ("nobody", "/"),
        ("minus", "/"),
        ("", "/"),
    ],
)
def test_the_home_folder_is_that_of_the_users_row(user: str, home: str) -> None:
    assert home_of(user, PASSWD) == home


@pytest.mark.parametrize(
    ("written", "home"),
    [
        (b"/srv/\xff", "/srv/\udcff"),
        (b"", "/"),
        (b"relative", "/"),
        (b"/nul\0", "/"),
        (b"/" + b"x" * (MAX_HOME - 1), "/" + "x" * (MAX_HOME - 1)),
        (b"/" + b"x" * MAX_HOME, "/"),
    ],
)
def test_a_home_folder_that_is_no_path_is_none(written: bytes, home: str) -> None:
    assert home_of("u", b"u:x:1:1::" + written + b":/bin/sh\n") == home


@given(st.text(max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_hostile_files_give_an_account_in_range_or_a_lookup_error(
    user: str, passwd: bytes, group: bytes
) -> None:
    try:
        account = resolve(user, b"u:x:1:1::/:\n" + passwd, b"g:x:2:u\n" + group)
    except LookupError:
        return
    assert all(0 <= number < 2**32 - 1 for number in (account.uid, account.gid, *account.groups))
    assert home_of(user, passwd).startswith("/")


def test_a_million_memberships_are_capped() -> None:
    group = b"".join(b"g%d:x:%d:web\n" % (number, number) for number in range(5000))
    assert len(resolve("web", PASSWD, group).groups) == MAX_GROUPS


def test_an_endless_line_is_read_to_the_cap_only() -> None:
    with pytest.raises(LookupError):
        resolve("late", b"x" * MAX_FILE + b"\nlate:x:1:1::/late:\n", b"")
    assert home_of("late", b"x" * MAX_FILE + b"\nlate:x:1:1::/late:\n") == "/"
