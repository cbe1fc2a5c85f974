"""What others wrote does not drive the operator's terminal, and is not lost where it goes to a program."""

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.logs import _newest, _Printer
from cli.outcome import Failure
from cli.output import coloured, output_to, print_error, print_json, print_line, print_table, visible
from cli.times import moment_of, stamp_of
from corex.wire.api import LogGap, LogLine

TITLE, CLEAR, RED, PLAIN = "\x1b]0;owned\x07", "\x1b[2J\x1b[H", "\x1b[31m", "\x1b[0m"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        pytest.param("plain ünïcode\ttab", "plain ünïcode\ttab", id="text"),
        pytest.param(f"{RED}red{PLAIN} rest", f"{RED}red{PLAIN} rest" + PLAIN, id="colours"),
        pytest.param(f"{RED}red", f"{RED}red{PLAIN}", id="a colour that is left on ends with its line"),
        pytest.param("\x1b[38:2::1:2:3mx", f"\x1b[38:2::1:2:3mx{PLAIN}", id="a colour by its parts"),
        pytest.param(f"a{TITLE}b", "ab", id="a title"),
        pytest.param("a\x1b]52;c;AAAA\x1b\\b", "ab", id="the clipboard"),
        pytest.param("a\x1b]0;never ended", "a", id="a string without an end"),
        pytest.param(f"a{CLEAR}b", "ab", id="clear the screen"),
        pytest.param("a\x1bcb", "ab", id="reset"),
        pytest.param("a\x1b[?1049hb", "ab", id="another screen"),
        pytest.param("a\x1b[>4;2mb", "ab", id="ends as a colour does, and sets what keys send"),
        pytest.param("a\x1b[6nb", "ab", id="asks the terminal to type"),
        pytest.param("a\x9b2Jb", "ab", id="C1's control sequence"),
        pytest.param("a\x9d0;owned\x9cb", "ab", id="C1's string"),
        pytest.param("a\x1bPq#0\x1b\\b", "ab", id="graphics"),
        pytest.param("a\x1b(0b", "ab", id="another character set"),
        pytest.param("\x1b\x1b[2J[31ma", "[31ma", id="what is left makes no new one"),
        pytest.param("good\rbad\x08", "goodbad", id="overwriting"),
        pytest.param("a\u202eb", "a\\u202eb", id="the direction of writing"),
        pytest.param("a\x1b", "a", id="a lone escape"),
    ],
)
def test_a_terminal_gets_text_and_colours_alone(written: str, shown: str) -> None:
    assert coloured(written) == shown


_pieces = st.lists(
    st.sampled_from(
        ["\x1b", "[", "]", "P", "2J", "31m", "0;", ">", "\x07", "\\", "\x9b", "\x9c", "x", "\n", "\r"]
    )
)


@given(_pieces.map("".join) | st.text())
def test_whatever_is_written_nothing_but_colours_is_left(written: str) -> None:
    rest = re.sub("\x1b\\[[0-9;:]*m", "", coloured(written))
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", rest) is None


@given(st.text(st.characters(max_codepoint=0x2069)))
def test_names_stay_on_their_line(written: str) -> None:
    assert re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", visible(written)) is None


def test_a_name_makes_no_row_and_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name",), [("a\nb" + TITLE,)])
    print_line("web is failed: x\nzn: all is well\x1b[8m")
    print_error("zn: cannot find 'x\x1b[2J'\nmore")
    said = capsys.readouterr()
    assert [one.rstrip() for one in said.out.splitlines()] == [
        *("name", "a\\nb\\x1b]0;owned\\x07"),
        "web is failed: x\\nzn: all is well\\x1b[8m",
    ]
    assert said.err == "zn: cannot find 'x\\x1b[2J'\nmore\n"


def test_json_says_the_same_without_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "\x1b[2J\x9b2J\x7f\u202eé"}
    print_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert "é" in out
    assert out.replace("é", "").replace("\n", "").isascii()


class Terminal(io.TextIOWrapper):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


def written(terminal: bool, *pieces: bytes) -> bytes:
    kept = io.BytesIO()
    stream = (Terminal if terminal else io.TextIOWrapper)(kept, "utf-8")
    with output_to(stream) as write:
        for piece in pieces:
            write(piece)
    return kept.getvalue()


def test_bytes_come_through_a_pipe_and_a_terminal_gets_text_however_they_are_cut() -> None:
    data = b"one\xff\xc3\xbc\x1b]0;t\x07\r\ntwo\x1b[31m red\x1b[2J\xc2\x9b2J"
    assert written(False, data) == data
    shown = b"one\\xff\xc3\xbc\ntwo\x1b[31m red" + PLAIN.encode()
    assert written(True, data) == shown
    # byte by byte a title's text is seen, as nobody waits for its end
    by_bytes = written(True, *(bytes([one]) for one in data))
    assert by_bytes == shown.replace(b"\xbc\n", b"\xbc0;t\n")


def line(order: int, text: str, process: str = "web", partial: bool = False) -> LogLine:
    return LogLine(order, order, 1_700_000_000.25, process, "stdout", text, partial)


def test_parts_of_a_long_line_are_one_line_again(capsys: pytest.CaptureFixture[str]) -> None:
    show = _Printer(with_name=True, with_time=True)
    for record in (
        line(1, "one ", partial=True),
        line(2, "line"),
        line(3, "cut ", partial=True),
        line(4, "other", "db"),
        line(5, "rest"),
        line(6, "end", partial=True),
        LogGap(3),
    ):
        show(record)
    said = capsys.readouterr()
    stamp = "2023-11-14T22:13:20.250Z"
    assert said.out.splitlines() == [
        f"{stamp} {one}" for one in ("web: one line", "web: cut ", "db: other", "web: rest", "web: end")
    ]
    assert said.err == "zn: 3 lines were overwritten before they were read\n"


def test_the_newest_lines_have_the_gaps_between_them() -> None:
    records = [LogGap(9), line(10, "a"), LogGap(2), line(13, "b"), line(14, "c")]
    assert _newest(records, None) == records
    assert _newest(records, 0) == []
    assert _newest(records, 2) == records[3:]
    assert _newest(records, 3) == records[1:]
    assert _newest(records, 9) == records


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", 1_699_999_910),
        ("10min", 1_699_999_400),
        ("1.5h", 1_699_994_600),
        ("2d", 1_699_827_200),
        ("2023-11-14T22:13:20.250Z", 1_700_000_000.25),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
    ],
)
def test_moments(text: str, moment: float) -> None:
    assert moment_of(text, 1_700_000_000) == moment


@pytest.mark.parametrize("text", ["", "10", "10 min", "yesterday", "-5s", "2023-13-01T00:00:00Z"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="cannot read the time"):
        moment_of(text, 0)


def test_a_stamp_is_a_moment() -> None:
    assert moment_of(stamp_of(1_700_000_000.25), 0) == 1_700_000_000.25
