"""The system call filters of containers and of `btrfs receive`, assembled when an image is built.

Input: a policy of initramfs/seccomp and the table of system call numbers of an architecture. Output: an
array of `struct sock_filter` in little endian, for seccomp(2) with SECCOMP_SET_MODE_FILTER, as classic BPF
(kernel: Documentation/userspace-api/seccomp_filter.rst, Documentation/networking/filter.rst).

The filter checks the architecture (another one kills: its numbers mean other calls), then searches the
number in a balanced tree of ranges with the same answer, about nine comparisons deep. Jumps of BPF
reach 255 instructions, so a longer left branch is passed by an unconditional jump, which reaches further.
"""

import struct
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from errno import ENOSYS, EPERM
from itertools import groupby
from pathlib import Path

import msgspec

from image.errors import ImageError

# seccomp(2): what a filter returns.
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
# Offsets in struct seccomp_data: the number, the architecture, the low half of an argument.
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
# Instructions: load a word, and the jumps, the mask and the return, all with a constant (linux/bpf_common.h).
_AND, _LOAD, _JUMP, _IF_EQUAL, _IF_GREATER_EQUAL, _IF_SET, _RETURN = 0x54, 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_REACH = 255
# AUDIT_ARCH_* of linux/audit.h.
_ARCHES: Mapping[str, int] = {"amd64": 0xC000003E, "arm64": 0xC00000B7}
# x32 calls bear the architecture of amd64 and this bit (asm/unistd.h).
_X32 = 0x40000000

# linux/sched.h: root, working directory and umask.
_CLONE_FS = 0x200
# linux/sched.h: the flags of clone(2) that make namespaces.
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# linux/btrfs.h: the letter of its calls; linux/fs.h: FICLONE, FICLONERANGE and FIDEDUPERANGE, which bear it, too.
_IOCTL_KIND, _BTRFS_MAGIC = 0xFF00, 0x94
_BTRFS_ALLOWED = (0x40049409, 0x4020940D, 0xC0189436)
_AF_VSOCK = 40
# personality(2): Linux, Linux with uname 2.6, 32-bit, both, and the question for the present one.
_PERSONALITIES = (0x0, 0x0020000, 0x8, 0x0020008, 0xFFFFFFFF)

Instruction = tuple[int, int, int, int]
Program = list[Instruction]


class PolicyError(ImageError):
    """The policy or a table of numbers cannot be used."""


class Denied(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of calls that fail with EPERM, and why."""

    reason: str
    calls: tuple[str, ...]


class Only(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Values that an argument of a call, counted from 0, must have; others fail with EPERM."""

    argument: int
    values: tuple[int, ...]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be called, by name."""

    allowed: tuple[str, ...]
    conditional: tuple[str, ...]
    absent: tuple[str, ...]
    denied: Mapping[str, Denied]
    only: Mapping[str, Only] = {}


@dataclass(frozen=True)
class _Range:
    """Numbers from `start` to before the next range's, all with the same answer."""

    start: int
    answer: tuple[Instruction, ...]


def load_policy(path: Path) -> Policy:
    """Read a policy; a call may stand in one place only."""
    try:
        policy = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Policy)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PolicyError(f"cannot use policy {path}: {error}") from error
    seen: set[str] = set()
    for name in _names(policy):
        if name in seen:
            raise PolicyError(f"cannot use policy {path}: {name} stands in it twice")
        seen.add(name)
    return policy


def _names(policy: Policy) -> list[str]:
    denied = [name for group in policy.denied.values() for name in group.calls]
    return [*policy.allowed, *policy.conditional, *policy.absent, *denied, *policy.only]


def load_numbers(path: Path) -> dict[str, int]:
    """Read a table of system call numbers: lines of number, tab, name."""
    rows = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    return {name: int(number) for number, name in rows}


def build(policy: Policy, numbers: Mapping[str, int], arch: str) -> bytes:
    """The filter of an architecture, as the bytes of an array of struct sock_filter."""
    search = _search(_ranges(policy, numbers))
    preamble = [
        _load(_ARCH),
        (_IF_EQUAL, 1, 0, _ARCHES[arch]),
        _answer(_KILL_PROCESS),
        _load(_NUMBER),
        (_IF_GREATER_EQUAL, 0, 1, _X32),
        _answer(_ERRNO | ENOSYS),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in [*preamble, *search])


def _ranges(policy: Policy, numbers: Mapping[str, int]) -> list[_Range]:
    """The answers to all numbers from 0 on, neighbours with the same answer in one range."""
    absent: tuple[Instruction, ...] = (_answer(_ERRNO | ENOSYS),)
    answers = dict.fromkeys(range(max(numbers.values()) + 2), absent)
    for name in policy.allowed:
        _set(answers, numbers, name, [_answer(_ALLOW)])
    for group in policy.denied.values():
        for name in group.calls:
            _set(answers, numbers, name, [_answer(_ERRNO | EPERM)])
    for name in policy.conditional:
        if name not in _CONDITIONS:
            raise PolicyError(f"cannot make a filter: no condition is known for {name}")
        _set(answers, numbers, name, _CONDITIONS[name]())
    for name, one in policy.only.items():
        _set(answers, numbers, name, _one_of(one.argument, one.values, _ALLOW, _ERRNO | EPERM))
    grouped = groupby(sorted(answers.items()), key=lambda item: item[1])
    return [_Range(next(iter(group))[0], answer) for answer, group in grouped]


def _set(
    answers: dict[int, tuple[Instruction, ...]], numbers: Mapping[str, int], name: str, program: Program
) -> None:
    """Set a call's answer; an architecture need not have every call."""
    if name in numbers:
        answers[numbers[name]] = tuple(program)


def _search(ranges: Sequence[_Range]) -> Program:
    """A program that finds the number's range by halving and gives its answer."""
    if len(ranges) == 1:
        return list(ranges[0].answer)
    middle = len(ranges) // 2
    left, right = _search(ranges[:middle]), _search(ranges[middle:])
    pivot = ranges[middle].start
    if len(left) <= _REACH:
        return [(_IF_GREATER_EQUAL, len(left), 0, pivot), *left, *right]
    return [(_IF_GREATER_EQUAL, 0, 1, pivot), (_JUMP, 0, 0, len(left)), *left, *right]


def _load(offset: int) -> Instruction:
    return (_LOAD, 0, 0, offset)


def _answer(action: int) -> Instruction:
    return (_RETURN, 0, 0, action)


def _argument(index: int) -> Instruction:
    """Load the low 32 bits of an argument: all that the kernel reads of the arguments checked here."""
    return _load(_ARGUMENTS + 8 * index)


def _clone() -> Program:
    return [_argument(0), (_IF_SET, 0, 1, _NAMESPACES), _answer(_ERRNO | EPERM), _answer(_ALLOW)]


def _unshare() -> Program:
    return _one_of(0, (_CLONE_FS,), _ALLOW, _ERRNO | EPERM)


def _ioctl() -> Program:
    """Of btrfs's calls only those that share extents of files: subvolumes and quota are the node's."""
    others = _refuse_if(1, (_TIOCSTI, _TIOCLINUX))
    of_btrfs = _one_of(1, _BTRFS_ALLOWED, _ALLOW, _ERRNO | EPERM)
    kind = [_argument(1), (_AND, 0, 0, _IOCTL_KIND), (_IF_EQUAL, 0, len(of_btrfs), _BTRFS_MAGIC << 8)]
    return [*kind, *of_btrfs, *others]


def _socket() -> Program:
    return _refuse_if(0, (_AF_VSOCK,))


def _personality() -> Program:
    return _one_of(0, _PERSONALITIES, _ALLOW, _ERRNO | EPERM)


def _refuse_if(index: int, values: Sequence[int]) -> Program:
    return _one_of(index, values, _ERRNO | EPERM, _ALLOW)


def _one_of(index: int, values: Sequence[int], action: int, otherwise: int) -> Program:
    """Take an action if an argument is one of some values."""
    tests = [(_IF_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_argument(index), *tests, _answer(otherwise), _answer(action)]


_CONDITIONS: Mapping[str, Callable[[], Program]] = {
    "clone": _clone,
    "ioctl": _ioctl,
    "personality": _personality,
    "socket": _socket,
    "unshare": _unshare,
}
