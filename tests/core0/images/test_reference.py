"""Image references: their forms, and what is refused."""

import pytest

from core0.images.model import Reference, parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("http://h:80/oci/demo/", Reference("layout", "http://h:80/oci/demo", "")),
        ("https://h/oci/demo/#v1", Reference("layout", "https://h/oci/demo", "v1")),
        ("http://h:5000/demo", Reference("registry", "http://h:5000/v2/demo", "latest")),
        ("http://h:5000/team/demo:1.2", Reference("registry", "http://h:5000/v2/team/demo", "1.2")),
        ("http://h/x/demo.tar", Reference("archive", "http://h/x/demo.tar", "")),
        ("http://h/demo.tar#v1", Reference("archive", "http://h/demo.tar", "v1")),
        ("http://h/demo.tar:1", Reference("registry", "http://h/v2/demo.tar", "1")),
        ("local:team/demo:1", Reference("local", "local:team/demo", "")),
        (f"http://h/demo@{DIGEST}", Reference("registry", "http://h/v2/demo", DIGEST)),
        (f"http://h/demo:tag@{DIGEST}", Reference("registry", "http://h/v2/demo", DIGEST)),
    ],
)
def test_references(text, reference):
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text",
    [
        "demo",
        "file:///etc/passwd",
        "http://user:secret@h/demo",
        "http:///demo",
        "http://h/Demo",
        "http://h/../demo",
        "http://h/demo:-x",
        "http://h/demo@sha256:12",
        "http://h/demo?x=1",
        "http://h:99999/demo",
        "http://h:0/demo",
        "http://h:x/demo",
        "http://h/../demo.tar",
        "local:",
        "local:../demo",
        "local:Demo",
        "local:demo:",
        "local:" + "a" * 300,
    ],
)
def test_refused(text):
    with pytest.raises(ValueError, match="cannot read image reference"):
        parse_reference(text)
