"""Messages of the DNS, as much of them as a resolver needs that knows some names and passes all else on. Pure.

A question is parsed, an answer is built; what other servers answer goes on as it is (docs/decisions/0014-own-dns.md).
Questions come from strangers: nothing here follows a compression pointer, and every length is checked.

Sources: RFC 1035 (messages), RFC 6891 (EDNS), RFC 2308 (negative answers).
"""

import struct

import msgspec

A, PTR, AAAA, AXFR, IXFR, ANY = 1, 12, 28, 252, 251, 255
_SOA, _OPT, _IN = 6, 41, 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
# Seconds that an answer of ours may be kept: containers come and go.
TTL = 5
# A message without EDNS, and the size that we ourselves say (DNS flag day 2020).
_PLAIN, _OWN = 512, 1232

_HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION, _AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
# Where the question's name is in every answer, as a compression pointer.
_QUESTIONED = struct.pack("!H", 0xC000 | _HEADER.size)

Labels = tuple[bytes, ...]
# A type and its data.
Record = tuple[int, bytes]


class Question(msgspec.Struct, frozen=True):
    """What somebody asks.

    Attributes:
        number: the message's.
        flags: as they came.
        labels: the name's, lower case.
        kind: the type that is asked for.
        section: the question as it came, name, type and class.
        largest: bytes of an answer by UDP that the asker takes.
        extended: whether the message speaks EDNS.
    """

    number: int
    flags: int
    labels: Labels
    kind: int
    section: bytes
    largest: int = _PLAIN
    extended: bool = False


class UnusableError(Exception):
    """A message that gets an error for an answer, or none where there is nobody who asked: `answer` is empty."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__("cannot use the message")
        self.answer = answer


def parse(message: bytes) -> Question:
    """The question of a message.

    Raises:
        UnusableError: it is no question (which nobody answers, or two servers might talk for ever), or none of ours.
    """
    if len(message) < _HEADER.size:
        raise UnusableError
    number, flags, questions, *others = _HEADER.unpack_from(message)
    if flags & _RESPONSE:
        raise UnusableError
    if flags >> 11 & 15:
        raise UnusableError(_bare(number, flags, NOTIMP))
    try:
        if questions != 1:
            raise ValueError
        labels, at = _labels(message, _HEADER.size)
        kind, kin = struct.unpack_from("!HH", message, at)
    except (ValueError, IndexError, struct.error):
        raise UnusableError(_bare(number, flags, FORMERR)) from None
    if kin not in (_IN, ANY):
        raise UnusableError(_bare(number, flags, NOTIMP))
    section = message[_HEADER.size : at + 4]
    said = _size_said(message, at + 4, others)
    return Question(number, flags, labels, kind, section, max(_PLAIN, said or 0), said is not None)


def _labels(message: bytes, at: int) -> tuple[Labels, int]:
    """A name that is written out, and where it ends. Raises ValueError, IndexError."""
    found, start = [], at
    while length := message[at]:
        if length > 63 or at + 1 + length > len(message) or at + length - start > 253:
            raise ValueError("a pointer, or a name that is too long")
        found.append(message[at + 1 : at + 1 + length].lower())
        at += 1 + length
    return tuple(found), at + 1


def _size_said(message: bytes, at: int, others: list[int]) -> int | None:
    """What EDNS says of the largest answer; None without. It is looked for where every resolver puts it: first."""
    answers, authorities, additional = others
    if answers or authorities or not additional or message[at : at + 3] != struct.pack("!BH", 0, _OPT):
        return None
    return int.from_bytes(message[at + 3 : at + 5]) if len(message) >= at + 11 else None


def _bare(number: int, flags: int, code: int) -> bytes:
    """An error without the question, which was not understood."""
    return _HEADER.pack(number, _RESPONSE | flags & (_RECURSION | 0x7800) | code, 0, 0, 0, 0)


def answer(question: Question, code: int, records: tuple[Record, ...] = (), *, zone: str = "") -> bytes:
    """An answer of our own.

    Args:
        question: what was asked.
        code: NOERROR, NXDOMAIN, …
        records: of the name that was asked for.
        zone: the domain that a negative answer is of; it says how long that may be kept.
    """
    flags = _RESPONSE | _AUTHORITATIVE | _AVAILABLE | question.flags & _RECURSION | code
    authority = _start_of_authority(zone) if zone and not records else b""
    extension = struct.pack("!BHHIH", 0, _OPT, _OWN, 0, 0) if question.extended else b""
    counts = (1, len(records), bool(authority), bool(extension))
    body = b"".join(_record(_QUESTIONED, kind, data) for kind, data in records)
    return _HEADER.pack(question.number, flags, *counts) + question.section + body + authority + extension


def _record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", kind, _IN, TTL, len(data)) + data


def _start_of_authority(zone: str) -> bytes:
    """The record that says how long a negative answer may be kept: its last number."""
    numbers = struct.pack("!IIIII", 1, 3600, 600, 86400, TTL)
    return _record(written(zone), _SOA, written(f"ns.{zone}") + written(f"node.{zone}") + numbers)


def written(name: str) -> bytes:
    """A name as it stands in a message."""
    labels = (label.encode() for label in name.split("."))
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def renumbered(message: bytes, number: int) -> bytes:
    """The same message with another number."""
    return struct.pack("!H", number) + message[2:]


def fits(reply: bytes, question: Question, number: int) -> bool:
    """Whether a message is the answer to a question that was asked with this number."""
    if len(reply) < _HEADER.size + len(question.section):
        return False
    own, flags, questions, *_ = _HEADER.unpack_from(reply)
    section = reply[_HEADER.size : _HEADER.size + len(question.section)]
    # the type and class are after the name; lower() changes no length octet, which is at most 63
    same = section[:-4].lower() == question.section[:-4].lower() and section[-4:] == question.section[-4:]
    return own == number and bool(flags & _RESPONSE) and questions == 1 and same


def code_of(reply: bytes) -> int:
    """How an answer says it went."""
    return reply[3] & 15


def limited(reply: bytes, question: Question) -> bytes:
    """An answer that its asker can take by UDP: one that is too long says so, and is asked for by TCP again."""
    if len(reply) <= question.largest:
        return reply
    number, flags, *_ = _HEADER.unpack_from(reply)
    return _HEADER.pack(number, flags | _TRUNCATED, 1, 0, 0, 0) + question.section
