"""Endpoints as people write them."""

import pytest

from core0.mesh.endpoint import parse_endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("203.0.113.1:51820", ("203.0.113.1", 51820)),
        ("[2001:db8::1]:1", ("2001:db8::1", 1)),
        ("hub.example.org:65535", ("hub.example.org", 65535)),
        ("hub:7", ("hub", 7)),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "hub",
        "hub:",
        "hub:0",
        "hub:65536",
        "hub:+1",
        "hub:٣",
        "-hub:1",
        "a..b:1",
        "1.2.3:1",
        "1.2.3.256:1",
        "2001:db8::1:51820",
        "[2001:db8::1]",
        "[hub]:1",
        "[1.2.3.4]:1",
        "h b:1",
        "x" * 64 + ":1",
        "a." * 127 + "a:1",
        "hub:1\n",
        "hub\0:1",
    ],
)
def test_what_is_no_endpoint_says_why(text: str) -> None:
    with pytest.raises(ValueError, match=r"it has no port|is no IPv6 address|brackets|neither a name"):
        parse_endpoint(text)
