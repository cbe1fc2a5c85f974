"""Users and groups of a container from its own /etc, whose authors are not trusted. No NSS, no pwd, no grp.

Formats: passwd(5), group(5). Rows that are not in the format are skipped, as the C library does.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

# Bytes read of each file, supplementary groups taken, and bytes of a home folder's path (PATH_MAX of limits.h).
MAX_FILE = 1 << 20
MAX_GROUPS = 1024
MAX_HOME = 4095
_NO_ID = 2**32 - 1


@dataclass(frozen=True)
class Account:
    """Numeric user id, group id and supplementary group ids."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ROOT = Account(0, 0)


def resolve(user: str, passwd: bytes, group: bytes) -> Account:
    """The account that `uid`, `uid:gid`, `name` or `name:group` means.

    A user id without a row in passwd has the group 0, as in the OCI runtime's tools.

    Raises:
        LookupError: a name that the files do not have, or an id out of range.
    """
    who, colon, in_group = user.partition(":")
    name, uid, gid = _find_user(who, passwd)
    if colon:
        return Account(uid, _find_group(in_group, group))
    return Account(uid, gid, _memberships(name, group) if name else ())


def with_groups(account: Account, groups: tuple[str, ...], group: bytes) -> Account:
    """An account with other supplementary groups, by name or number.

    Raises:
        LookupError: a name that the file does not have.
    """
    return Account(account.uid, account.gid, tuple(_find_group(one, group) for one in groups))


def home_of(user: str, passwd: bytes) -> str:
    """The home folder of a user as `resolve` takes it; / for one without a row, or whose row has no usable path.

    So do runc and podman.
    """
    row = _find_row(user.partition(":")[0], passwd)
    home = row[5] if row else b""
    is_path = home.startswith(b"/") and len(home) <= MAX_HOME and b"\0" not in home
    return os.fsdecode(home) if is_path else "/"


def _find_user(who: str, passwd: bytes) -> tuple[bytes | None, int, int]:
    row = _find_row(who, passwd)
    if row:
        return row[0], int(row[2]), int(row[3])
    wanted = _number(who.encode())
    if wanted is None:
        raise LookupError(f"user {who[:80]!a} is not in the container's /etc/passwd")
    return None, wanted, 0


def _find_row(who: str, passwd: bytes) -> list[bytes] | None:
    """The first row of a user, given by number or name, whose two ids are such."""
    wanted = _number(who.encode())
    for row in _rows(passwd, 7):
        uid = _number(row[2])
        if uid is None or _number(row[3]) is None:
            continue
        if uid == wanted if wanted is not None else row[0] == who.encode():
            return row
    return None


def _find_group(which: str, group: bytes) -> int:
    wanted = _number(which.encode())
    if wanted is not None:
        return wanted
    for row in _rows(group, 4):
        gid = _number(row[2])
        if row[0] == which.encode() and gid is not None:
            return gid
    raise LookupError(f"group {which[:80]!a} is not in the container's /etc/group")


def _memberships(name: bytes, group: bytes) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for row in _rows(group, 4):
        gid = _number(row[2])
        if gid is not None and name in row[3].split(b","):
            found[gid] = None
    return tuple(found)[:MAX_GROUPS]


def _rows(data: bytes, columns: int) -> Iterator[list[bytes]]:
    for line in data[:MAX_FILE].split(b"\n"):
        row = line.split(b":")
        if len(row) == columns and row[0]:
            yield row


def _number(text: bytes) -> int | None:
    if not text.isdigit() or len(text) > 10 or int(text) >= _NO_ID:
        return None
    return int(text)
