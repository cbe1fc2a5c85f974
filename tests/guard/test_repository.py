"""What must never be committed: hosts of registries and mirrors, paths of a developer's machine."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# In pieces, so that this file does not find itself.
HOSTS = ("deb." + "debian.org", "pypi" + ".org", "files." + "pythonhosted", "ghcr" + ".io", "docker" + ".io")
PLACES = ("/" + "work/", ".." + "/shared", str(ROOT))


def committed_files() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("words", [HOSTS, PLACES], ids=["hosts", "places"])
def test_no_committed_file_names_them(words: tuple[str, ...]) -> None:
    pattern = re.compile("|".join(map(re.escape, words)))
    found = {
        str(path.relative_to(ROOT)): sorted(set(pattern.findall(text)))
        for path in committed_files()
        if pattern.search(text := path.read_text("utf-8", "replace"))
    }
    assert not found


def test_no_committed_file_is_built_or_big() -> None:
    big = {str(path): path.stat().st_size for path in committed_files() if path.stat().st_size > 1 << 20}
    assert not big
