"""Choosing and reading wheels, and what uv says when it cannot."""

import io
import zipfile
from pathlib import Path

import pytest

from image import licence, wheels
from image.wheels import WheelError


def package(*filenames: str) -> dict[str, object]:
    found = [{"url": f"https://host/{name}", "hashes": {"sha256": name}} for name in filenames]
    return {"name": "p", "version": "1", "wheels": found}


@pytest.mark.parametrize(
    ("filenames", "expected"),
    [
        pytest.param(
            ["p-1-py3-none-any.whl", "p-1-cp313-cp313-manylinux_2_17_x86_64.whl"],
            "p-1-cp313-cp313-manylinux_2_17_x86_64.whl",
            id="compiled rather than pure",
        ),
        pytest.param(
            ["p-1-cp39-abi3-manylinux_2_34_x86_64.whl", "p-1-cp311-abi3-manylinux_2_28_x86_64.whl"],
            "p-1-cp311-abi3-manylinux_2_28_x86_64.whl",
            id="newest stable ABI",
        ),
        pytest.param(
            ["p-1-cp311-abi3-manylinux_2_28_x86_64.whl", "p-1-cp311-abi3-manylinux_2_34_x86_64.whl"],
            "p-1-cp311-abi3-manylinux_2_34_x86_64.whl",
            id="newest glibc",
        ),
        pytest.param(["p-1-2-py3-none-any.whl"], "p-1-2-py3-none-any.whl", id="build number"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_best_wheel_is_chosen_in_any_order(filenames: list[str], expected: str, order: int) -> None:
    assert wheels._choose(package(*filenames[::order]), "3.13").filename == expected


def test_a_package_without_a_wheel_is_refused() -> None:
    with pytest.raises(WheelError, match=r"cannot use p 1: it has no wheel for Python 3\.13"):
        wheels._choose({"name": "p", "version": "1"}, "3.13")


def archive(**files: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("p/", "")
        for name, content in files.items():
            made.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return out.getvalue()


def test_a_wheel_becomes_entries_below_the_site_folder() -> None:
    entries = wheels.read(archive(p__a_dot_py="x = 1"), "usr/lib/zeronode/site", "p")
    assert [(entry.path, entry.content, entry.mode) for entry in entries] == [
        ("usr/lib/zeronode/site/p/a.py", b"x = 1", 0o644)
    ]


def test_a_wheel_that_writes_elsewhere_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("p-1.data/scripts/tool", "#!python")
    with pytest.raises(WheelError, match="belongs outside the package folder"):
        wheels.read(out.getvalue(), "site", "p")


def test_the_licence_of_a_wheel_is_its_expression() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr(
            "p-1.dist-info/METADATA",
            "Name: p\nLicense-Expression: MIT OR 0BSD\n\nText",
        )
    assert licence.of_wheels(wheels.read(out.getvalue(), "site", "p")) == {"p": "MIT OR 0BSD"}


def test_uv_explains_why_it_cannot_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    constraints = tmp_path / "requirements.lock"
    constraints.write_text("idna==3.20\n")
    with pytest.raises(WheelError, match=r"cannot resolve Python packages: .*"):
        wheels.resolve(["idna==3.19"], constraints, "3.13", "amd64")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param(
            {"PIP_INDEX_URL": "http://127.0.0.1/a"}, {"UV_DEFAULT_INDEX": "http://127.0.0.1/a"}, id="pip's"
        ),
        pytest.param(
            {"PIP_INDEX_URL": "http://127.0.0.1/a", "UV_INDEX_URL": "http://127.0.0.1/b"}, {}, id="uv's own"
        ),
    ],
)
def test_uv_asks_the_index_of_this_machine(
    environment: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wheels._index() == expected
