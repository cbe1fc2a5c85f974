"""Console markers: what is printed is what is read, whatever stands before it on the line."""

from hypothesis import given
from hypothesis import strategies as st

from core0.wire.console import PHASES, Phase, announce, format_phase, parse_phase

details = st.text(st.characters(codec="ascii", exclude_categories=["C"])).map(
    lambda text: " ".join(text.split())
)
phases = st.builds(
    Phase,
    name=st.sampled_from(PHASES),
    state=st.sampled_from(["done", "failed"]),
    at=st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000),
    detail=details,
)


@given(phases, st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=20))
def test_a_phase_reads_back_from_its_line(phase, noise):
    if "zn: phase" not in noise:
        assert parse_phase(noise + format_phase(phase) + "\r\n") == phase


@given(st.text())
def test_other_lines_are_none(line):
    if "zn: phase" not in line:
        assert parse_phase(line) is None


def test_announcing_prints_one_line_and_keeps_it(tmp_path, capfd):
    log = tmp_path / "boot.log"
    phase = announce("network", detail="two\nlines", log=str(log))
    assert capfd.readouterr().out == log.read_text() == format_phase(phase) + "\n"
    assert phase.detail == "two lines"
