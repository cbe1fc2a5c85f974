"""The kernel command line: our words are understood, rubbish becomes warnings, nothing raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.wire import cmdline

KEY = "9f" * 32


def test_our_parameters_are_found_among_the_kernels():
    parsed = cmdline.parse(
        f"BOOT_IMAGE=vmlinuz quiet zn.operator={KEY} root=x zn.hostname=rack3 zn.panic=60\n"
    )
    assert parsed.operator == bytes.fromhex(KEY)
    assert parsed.hostname == "rack3"
    assert parsed.panic_seconds == 60
    assert parsed.warnings == ()


def test_without_parameters_there_are_defaults():
    parsed = cmdline.parse("")
    assert (parsed.operator, parsed.hostname, parsed.panic_seconds) == (None, None, 10)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        pytest.param("zn.opertor=1", "unknown kernel parameter 'zn.opertor'", id="misspelt"),
        pytest.param("zn.operator", "64 hexadecimal digits", id="no value"),
        pytest.param("zn.operator=" + "9F" * 32, "64 hexadecimal digits", id="upper case"),
        pytest.param("zn.hostname=-a", "DNS label", id="leading hyphen"),
        pytest.param('"zn.hostname=a b"', "DNS label", id="quoted blank"),
        pytest.param("zn.panic=0", "1 to 86400", id="too small"),
        pytest.param("zn.panic=٣", "1 to 86400", id="digits of another script"),
    ],
)
def test_what_cannot_be_used_is_told_with_the_right_form(line, told):
    (warning,) = cmdline.parse(line).warnings
    assert told in warning
    assert warning.isprintable()


def test_a_wrong_parameter_does_not_spoil_a_right_one():
    parsed = cmdline.parse("zn.hostname=ok zn.hostname=NOT_OK")
    assert parsed.hostname == "ok"
    assert len(parsed.warnings) == 1


@given(st.text())
def test_any_text_parses(text):
    for warning in cmdline.parse(text).warnings:
        assert "\n" not in warning


def test_each_parameters_example_is_accepted_by_its_own_check():
    for parameter in cmdline.PARAMETERS.values():
        parsed = cmdline.parse(parameter.example)
        assert parameter.name in parsed.values
