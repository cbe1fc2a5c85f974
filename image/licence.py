"""Licences as packages state them: Debian's copyright files and the metadata of wheels."""

import re
from collections.abc import Iterable
from email.message import Message
from email.parser import Parser

from image.tree import Entry, Kind

_DOC = "usr/share/doc/"


def of_debian(entries: Iterable[Entry]) -> dict[str, str]:
    """Licence names by package, from machine-readable copyright files (DEP 5); "" where there is none.

    A folder of documentation may be a link to the one of a package from the same source.
    """
    documents = [entry for entry in entries if entry.path.startswith(_DOC)]
    texts = {
        entry.path.split("/")[3]: entry.content.decode("utf-8", "replace")
        for entry in documents
        if entry.path.endswith("/copyright") and entry.kind is Kind.FILE
    }
    links = {
        entry.path.split("/")[3]: entry.content.decode().rsplit("/", 1)[-1]
        for entry in documents
        if entry.kind is Kind.LINK and entry.path.count("/") == 3
    }
    return {name: _names(texts.get(links.get(name, name), "")) for name in {*texts, *links}}


def _names(copyright_text: str) -> str:
    if not copyright_text.startswith("Format:"):
        return ""
    found = re.findall(r"^License: *(\S.*)$", copyright_text, re.MULTILINE)
    return ", ".join(sorted({name.strip() for name in found}))


def of_wheels(entries: Iterable[Entry]) -> dict[str, str]:
    """Licences by package: the SPDX expression (PEP 639) or the older free text of one line."""
    metadata = [entry for entry in entries if entry.path.endswith(".dist-info/METADATA")]
    return {entry.origin: _licence(Parser().parsestr(entry.content.decode(), True)) for entry in metadata}


def _licence(headers: Message) -> str:
    stated = headers.get("License-Expression") or headers.get("License") or ""
    return stated.splitlines()[0].strip() if stated else ""
