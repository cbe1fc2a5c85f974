"""Questions of strangers: what is none gets no answer, what is broken gets an error, and nothing else happens."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core0.names import codec
from core0.names.codec import UnusableError, answer, fits, limited, parse, renumbered
from tests.core0.names.messages import ask, read, reply_to, wire

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join).filter(lambda name: len(name) < 250)


@given(NAME, st.sampled_from(["A", "AAAA", "PTR", "TXT"]), st.integers(0, 65535), st.booleans())
def test_a_question_is_read_as_it_was_asked(name: str, kind: str, number: int, edns: bool) -> None:
    message = ask(name.upper(), kind, number, edns=edns)
    question = parse(message)
    assert question.labels == tuple(label.encode() for label in name.split("."))
    assert (question.number, question.extended) == (number, edns)
    assert question.largest == (4096 if edns else 512)
    assert message[12:].startswith(question.section)


def parsed(message: bytes) -> tuple[bytes, bytes]:
    """The question's section, or the error that it gets."""
    try:
        return parse(message).section, b""
    except UnusableError as error:
        return b"", error.answer


@given(st.binary(max_size=300))
@example(ask("a.b")[:-1])
@example(ask("a.b")[:12] + b"\xc0\x0c\0\1\0\1")
def test_whatever_comes_is_a_question_an_error_or_nothing(message: bytes) -> None:
    section, error = parsed(message)
    assert section in message
    assert error == b"" or (error[:2] == message[:2] and error[2] & 0x80)


@given(st.binary(max_size=80), st.integers(0, 60), NAME)
def test_no_damage_to_a_message_does_harm(noise: bytes, at: int, name: str) -> None:
    message = bytearray(ask(name, edns=True))
    message[at : at + len(noise)] = noise
    assert any(parsed(bytes(message))) or message[2] & 0x80


HEADER = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param(HEADER + b"\xc0\x0c\0\1\0\1", 1, id="a pointer to itself"),
        pytest.param(HEADER + b"\1a\xc0\x0c\0\1\0\1", 1, id="a pointer behind a label"),
        pytest.param(HEADER + b"\x3fab", 1, id="a label beyond the end"),
        pytest.param(HEADER + b"\1a" * 150 + b"\0\0\1\0\1", 1, id="a name of 300 bytes"),
        pytest.param(HEADER + b"\1a\0\0\1", 1, id="no class"),
        pytest.param(HEADER, 1, id="no question"),
        pytest.param(struct.pack("!HHHHHH", 7, 0, 2, 0, 0, 0) + wire("a") * 2, 1, id="two questions"),
        pytest.param(HEADER + b"\1a\0\0\1\0\3", 4, id="of the class CHAOS"),
        pytest.param(struct.pack("!HHHHHH", 7, 5 << 11, 1, 0, 0, 0) + b"\1a\0\0\6\0\1", 4, id="an update"),
    ],
)
def test_what_cannot_be_answered_gets_an_error(message: bytes, code: int) -> None:
    with pytest.raises(UnusableError) as raised:
        parse(message)
    assert read(raised.value.answer) == (code, [])


@pytest.mark.parametrize(
    "message", [b"", b"\0" * 11, reply_to(ask("a.b"), b"\1\2\3\4")], ids=["nothing", "too short", "an answer"]
)
def test_what_is_no_question_gets_no_answer(message: bytes) -> None:
    with pytest.raises(UnusableError) as raised:
        parse(message)
    assert not raised.value.answer


def test_an_answer_repeats_the_question_as_it_was_written() -> None:
    message = ask("Db.WEB.internal", number=99)
    reply = answer(parse(message), 0, ((1, bytes([10, 88, 0, 2])),))
    assert reply.startswith(b"\0\x63\x85\x80")
    assert wire("Db.WEB.internal") in reply
    assert read(reply) == (0, [bytes([10, 88, 0, 2])])


@pytest.mark.parametrize("change", ["number", "question", "type", "direction", "length"])
def test_an_answer_that_was_not_asked_for_is_not_taken(change: str) -> None:
    question = parse(ask("www.example.org"))
    reply = bytearray(reply_to(ask("WWW.example.org", number=4711), b"\1\2\3\4"))
    assert fits(bytes(reply), question, 4711)
    if change == "number":
        reply[0] ^= 1
    elif change == "question":
        reply[13] = ord("v")
    elif change == "type":
        reply[12 + len(question.section) - 3] = 28
    elif change == "direction":
        reply[2] &= 0x7F
    else:
        del reply[20:]
    assert not fits(bytes(reply), question, 4711)


def test_an_answer_that_is_too_long_says_so() -> None:
    question = parse(ask("big.example.org", "TXT"))
    reply = reply_to(ask("big.example.org", "TXT"), b"\xff" + b"x" * 255, b"\xff" + b"y" * 255)
    cut = limited(reply, question)
    assert len(cut) <= 512
    assert cut[2] & 0x02
    assert read(cut) == (0, [])
    assert limited(reply, parse(ask("big.example.org", "TXT", edns=True))) == reply


def test_a_negative_answer_says_how_long_it_may_be_kept() -> None:
    reply = answer(parse(ask("nobody.web.internal")), codec.NXDOMAIN, zone="internal")
    assert read(reply) == (3, [])
    assert struct.unpack("!I", reply[-4:]) == (codec.TTL,)
    assert renumbered(reply, 1)[2:] == reply[2:]
