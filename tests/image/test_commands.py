"""`zn image` as a person and a program use it, on small build folders made here."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.image import app
from cli.outcome import Failure
from image import contents, initramfs, outputs, sbom
from image.contents import Contents
from image.errors import ImageError
from image.files import write_folder
from image.tree import Entry, compose, file, link

RUNNER = CliRunner()


def build_folder(path: Path, *entries: Entry) -> Path:
    """A build folder as the builder writes it, with a kernel of two letters."""
    tree = compose([file("init", b"#!", "zeronode", 0o755), link("lib", "usr/lib", "merged /usr"), *entries])
    boot = {"vmlinuz": b"MZ", "initramfs": initramfs.segment(tree.values(), 0, level=3)}
    described = Contents(
        name="virt",
        arch="amd64",
        version="0.1.0",
        build_id="0123456789abcdef",
        epoch=0,
        outputs={name: contents.output(content) for name, content in boot.items()},
        packages=(),
        files=contents.listed(tree.values()),
    )
    files = {**boot, "contents.json": contents.encode(described), "sbom.spdx.json": sbom.encode(described)}
    write_folder(path, {**files, outputs.SUMS: outputs.checksums(files)})
    return path


def printed(*arguments: object) -> str:
    result = RUNNER.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_inspect_shows_outputs_and_files_and_draws_a_picture(tmp_path: Path) -> None:
    folder = build_folder(tmp_path / "one", file("usr/lib/a.so", b"x" * 4321, "liba"))
    text = printed("inspect", folder, "--treemap", tmp_path / "picture.svg")
    assert "build 0123456789abcdef" in text
    assert "4,321  /usr/lib/a.so" in text
    assert (tmp_path / "picture.svg").read_text().startswith("<svg ")


def test_inspect_gives_programs_the_whole_listing(tmp_path: Path) -> None:
    folder = build_folder(tmp_path / "one")
    assert json.loads(printed("inspect", folder, "--json"))["files"][0]["path"] == "init"


def test_a_whole_build_folder_verifies(tmp_path: Path) -> None:
    folder = build_folder(tmp_path / "one")
    assert "every output and every file is as listed" in printed("verify", folder)
    assert json.loads(printed("verify", folder, "--json")) == {"problems": []}


def test_an_initramfs_that_differs_from_the_listing_is_told_file_by_file(tmp_path: Path) -> None:
    folder = build_folder(tmp_path / "one", file("etc/a", b"1", "t"), file("etc/b", b"1", "t"))
    other = build_folder(tmp_path / "two", file("etc/a", b"2", "t"), file("etc/c", b"1", "t"))
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != outputs.SUMS}
    files["initramfs"] = (other / "initramfs").read_bytes()
    write_folder(folder, {**files, outputs.SUMS: outputs.checksums(files)})
    result = RUNNER.invoke(app, ["verify", str(folder)])
    assert isinstance(result.exception, Failure)
    assert result.output.splitlines() == [
        "initramfs: /etc/b is missing",
        "initramfs: /etc/c is not listed",
        "initramfs: /etc/a has another sha256 than listed",
    ]


def test_diff_tells_what_grew_and_fails_only_if_something_differs(tmp_path: Path) -> None:
    one = build_folder(tmp_path / "one", file("etc/a", b"1", "t"))
    two = build_folder(tmp_path / "two", file("etc/a", b"123", "t"))
    assert printed("diff", one, one) == ""
    result = RUNNER.invoke(app, ["diff", str(one), str(two)])
    assert result.exit_code == 1
    assert "+2  /etc/a" in result.output
    changed = json.loads(RUNNER.invoke(app, ["diff", str(one), str(two), "--json"]).output)
    assert [change["growth"] for change in changed["files"]] == [2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["inspect", "none"], "cannot read none/contents.json", id="inspect"),
        pytest.param(["build", "none.toml"], "cannot read manifest none.toml: No such file", id="build"),
        pytest.param(["lock", "none.toml"], "cannot read manifest none.toml: No such file", id="lock"),
        pytest.param(["pack", "none.toml", "-o", "x"], "none.toml: No such file", id="pack"),
        pytest.param(
            ["build", "--arch", "arm64"], "virt.arm64.lock.json: no such file; make it", id="no lock"
        ),
    ],
)
def test_what_is_missing_is_one_message(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, arguments)
    assert isinstance(result.exception, ImageError)
    assert message in str(result.exception)
