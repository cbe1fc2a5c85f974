"""Messages of the DNS as other programs send them, written down here apart from the product's own codec."""

import struct

KINDS = {"A": 1, "PTR": 12, "TXT": 16, "AAAA": 28, "AXFR": 252, "ANY": 255}
EDNS = b"\0" + struct.pack("!HHIH", 41, 4096, 0, 0)


def wire(name: str) -> bytes:
    """A name as it stands in a message."""
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def ask(name: str, kind: str = "A", number: int = 7, *, edns: bool = False) -> bytes:
    """A question, recursion desired."""
    header = struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, int(edns))
    return header + wire(name) + struct.pack("!HH", KINDS[kind], 1) + (EDNS if edns else b"")


def reply_to(question: bytes, *datas: bytes, code: int = 0, more: int = 0) -> bytes:
    """What a server answers: records of the type that was asked for; `more` sets flags."""
    number = question[:2]
    end = 12
    while question[end]:
        end += 1 + question[end]
    section = question[12 : end + 5]
    kind = section[-4:-2]
    records = b"".join(b"\xc0\x0c" + kind + struct.pack("!HIH", 1, 60, len(data)) + data for data in datas)
    return number + struct.pack("!HHHHH", 0x8180 | code | more, 1, len(datas), 0, 0) + section + records


def read(reply: bytes) -> tuple[int, list[bytes]]:
    """How a reply says it went, and the data of its answers."""
    _, flags, questions, answers, *_ = struct.unpack_from("!HHHHHH", reply)
    at = 12
    for _ in range(questions):
        at = _behind_name(reply, at) + 4
    found = []
    for _ in range(answers):
        at = _behind_name(reply, at)
        (length,) = struct.unpack_from("!H", reply, at + 8)
        found.append(reply[at + 10 : at + 10 + length])
        at += 10 + length
    return flags & 15, found


def _behind_name(message: bytes, at: int) -> int:
    while length := message[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1
