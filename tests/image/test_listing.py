"""What an image says about itself: listing, bill of materials, picture, comparison, licences."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from image import compare, contents, licence, sbom, treemap
from image.contents import Contents, Output
from image.lock import DebFile, Lock, NpmPackage, Wheel
from image.tree import file, folder, link
from image.treemap import Box, Item

LIBC = DebFile("libc6", "2:2.41-12+deb13u4", "amd64", "debian", "pool/libc6.deb", 10, "a" * 64)
IDNA = Wheel("idna", "3.20", "idna-3.20-py3-none-any.whl", 20, "b" * 64)
XTERM = NpmPackage("@xterm/xterm", "6.0.0", "@xterm/xterm/-/xterm-6.0.0.tgz", 30, "e" * 64)
LOCK = Lock(1, "virt", "amd64", "c" * 64, 1795054374, (LIBC,), (IDNA,), (XTERM,))
FILES = contents.listed(
    [
        file("usr/lib/libc.so.6", b"x" * 3000, "libc6", 0o755),
        file("usr/lib/zeronode/site/idna/core.pyc", b"y" * 1000, "idna"),
        file("usr/lib/zeronode/corex/console/static/vendor/xterm.js.gz", b"x" * 700, "@xterm/xterm"),
        file("usr/lib/modules/6.12/erofs.ko", b"z" * 500, "linux-image"),
        link("lib", "usr/lib", "merged /usr"),
        folder("proc", "manifest"),
    ]
)
MADE = Contents(
    name="virt",
    arch="amd64",
    version="0.1.0",
    build_id="0123456789abcdef",
    epoch=LOCK.epoch,
    outputs={"vmlinuz": Output(1, "d" * 64)},
    packages=contents.packages(
        LOCK, FILES, {"idna": "BSD-3-Clause", "@xterm/xterm": "MIT", "libc6": "LGPL-2.1+, GPL-2"}
    ),
    files=FILES,
)


def test_packages_say_how_much_of_them_is_in_the_image() -> None:
    assert [(package.name, package.kind, package.installed) for package in MADE.packages] == [
        ("libc6", "deb", 3000),
        ("idna", "wheel", 1000),
        ("@xterm/xterm", "npm", 700),
    ]


def test_the_listing_comes_back() -> None:
    assert msgspec.json.decode(contents.encode(MADE), type=Contents) == MADE


def test_the_bill_of_materials_names_every_package_with_checksum_and_purl() -> None:
    document = json.loads(sbom.encode(MADE))
    packages = {package["name"]: package for package in document["packages"]}
    libc, idna = packages["libc6"], packages["idna"]
    assert libc["checksums"] == [{"algorithm": "SHA256", "checksumValue": "a" * 64}]
    assert (
        libc["externalRefs"][0]["referenceLocator"] == "pkg:deb/debian/libc6@2%3A2.41-12%2Bdeb13u4?arch=amd64"
    )
    assert idna["externalRefs"][0]["referenceLocator"] == "pkg:pypi/idna@3.20"
    assert (idna["licenseDeclared"], libc["licenseDeclared"]) == ("BSD-3-Clause", "NOASSERTION")
    assert packages["@xterm/xterm"]["licenseDeclared"] == "MIT"
    assert packages["@xterm/xterm"]["externalRefs"][0]["referenceLocator"] == "pkg:npm/%40xterm/xterm@6.0.0"
    assert "LGPL-2.1+, GPL-2" in libc["licenseComments"]


def test_the_bill_of_materials_is_whole_by_the_rules_of_spdx() -> None:
    document = json.loads(sbom.encode(MADE))
    ids = [package["SPDXID"] for package in document["packages"]]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", name) for name in ids)
    related = {relation["relatedSpdxElement"] for relation in document["relationships"]}
    assert related == set(ids)
    assert document["creationInfo"]["created"] == "2026-11-19T02:12:54Z"
    assert sbom.encode(MADE) == sbom.encode(MADE)


@given(st.lists(st.integers(0, 10**8), max_size=40), st.floats(10, 2000), st.floats(10, 2000))
def test_a_treemap_fills_its_box_in_proportion(sizes: list[int], width: float, height: float) -> None:
    box = Box(0, 0, width, height)
    placed = treemap.squarify([Item(str(place), size) for place, size in enumerate(sizes)], box)
    total = sum(sizes)
    assert len(placed) == sum(size > 0 for size in sizes)
    for item, inner in placed:
        assert inner.area == pytest.approx(item.size / total * box.area, rel=1e-6, abs=1e-6)
        assert inner.x >= -1e-6
        assert inner.y >= -1e-6
        assert inner.x + inner.width <= width * (1 + 1e-9) + 1e-6
        assert inner.y + inner.height <= height * (1 + 1e-9) + 1e-6


def test_the_picture_is_svg_and_names_what_is_in_the_image() -> None:
    root = ET.fromstring(treemap.svg(MADE))
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "libc6: 3.0 kB" in titles
    assert "/usr/lib/zeronode/site/idna/core.pyc: 1.0 kB" in titles
    assert "kernel modules: 0.5 kB" in titles


def test_the_same_build_does_not_differ() -> None:
    assert compare.difference(MADE, MADE) == compare.Difference((), (), ())


def test_changed_added_and_removed_things_are_told_with_their_growth() -> None:
    newer = msgspec.structs.replace(
        MADE,
        outputs={"vmlinuz": Output(3, "e" * 64)},
        packages=MADE.packages[:1],
        files=(*FILES[1:], *contents.listed([file("init", b"#!", "zeronode", 0o755)])),
    )
    found = compare.difference(MADE, newer)
    assert [(change.name, change.growth) for change in found.outputs] == [("vmlinuz", 2)]
    assert [(change.name, change.new, change.growth) for change in found.packages] == [
        ("@xterm/xterm", "", -700),
        ("idna", "", -1000),
    ]
    assert [(change.name, change.growth) for change in found.files] == [
        ("/init", 2),
        ("/usr/lib/libc.so.6", -3000),
    ]


def test_a_build_folder_without_listing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(contents.ContentsError, match="build the image with 'zn image build'"):
        contents.load(tmp_path)


def test_licences_come_from_machine_readable_copyright_files_and_through_links() -> None:
    stanzas = (
        "Format: dep5",
        "Files: *\nLicense: GPL-2+",
        "Files: a\nLicense: Expat",
        "License: Expat\n text",
    )
    text = "\n\n".join(stanzas)
    entries = [
        file("usr/share/doc/libz/copyright", text.encode(), "libz"),
        link("usr/share/doc/libz-extra", "libz", "libz-extra"),
        file("usr/share/doc/old/copyright", b"This is free software.\nLicense: whatever you like", "old"),
    ]
    assert licence.of_debian(entries) == {"libz": "Expat, GPL-2+", "libz-extra": "Expat, GPL-2+", "old": ""}
