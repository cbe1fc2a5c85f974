"""What a container wrote as a layer: held against its image's files by the change times that nobody can set."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from core0.containers.changes import changes_of
from core0.images.tar import TarCheck
from tests.core0.containers.test_export import make_deep, opened

pytestmark = pytest.mark.root


class Overlay:
    """An image's files and what is written over them, as overlayfs shows both."""

    def __init__(self, folder: Path) -> None:
        self.lower, self.view = folder / "lower", folder / "view"
        self._upper, self._work = folder / "upper", folder / "work"
        for place in (self.lower, self.view, self._upper, self._work):
            place.mkdir()
        for name in ("etc/passwd", "etc/hosts", "bin/tool", "srv/a/one", "srv/a/two", "srv/b/three"):
            (self.lower / name).parent.mkdir(parents=True, exist_ok=True)
            (self.lower / name).write_text(name)
        (self.lower / "link").symlink_to("bin/tool")

    def mount(self) -> None:
        options = f"lowerdir={self.lower},upperdir={self._upper},workdir={self._work},xino=off,index=off"
        if os.system(f"mount -t overlay x -o {options} {self.view}"):
            pytest.skip("needs overlayfs over this file system")

    def changes(self) -> tarfile.TarFile:
        with opened(self.view) as root, opened(self.lower) as image:
            data = b"".join(changes_of(root, image))
        check = TarCheck()
        check.feed(data)
        check.end()
        return tarfile.open(fileobj=io.BytesIO(data))


@pytest.fixture
def overlay(tmp_path: Path):
    folder = Path("/dev/shm") / f"zn-overlay-{os.getpid()}"
    folder.mkdir()
    made = Overlay(folder)
    made.mount()
    yield made
    os.system(f"umount {made.view}")
    subprocess.run(["rm", "-rf", folder], check=True)  # shutil goes no deeper than Python's stack


def write(overlay: Overlay, name: str) -> None:
    (overlay.view / name).write_text("another")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        pytest.param(lambda view: None, [], id="nothing"),
        pytest.param(lambda view: (view / "new").write_text("x"), ["new"], id="a new file"),
        pytest.param(
            lambda view: (view / "srv/a/one").write_text("x"), ["srv", "srv/a", "srv/a/one"], id="written to"
        ),
        pytest.param(lambda view: (view / "bin/tool").chmod(0o700), ["bin", "bin/tool"], id="another mode"),
        pytest.param(
            lambda view: os.utime(view / "bin/tool", (0, 0)), ["bin", "bin/tool"], id="its time set back"
        ),
        pytest.param(
            lambda view: (view / "srv/b/three").unlink(), ["srv", "srv/b", "srv/b/.wh.three"], id="gone"
        ),
        pytest.param(lambda view: shutil.rmtree(view / "srv/a"), ["srv", "srv/.wh.a"], id="a folder gone"),
        pytest.param(
            lambda view: (shutil.rmtree(view / "srv/a"), (view / "srv/a").mkdir()),
            ["srv", "srv/a", "srv/a/.wh.one", "srv/a/.wh.two"],
            id="a folder made anew",
        ),
        pytest.param(
            lambda view: ((view / "link").unlink(), (view / "link").mkdir(), (view / "link/x").touch()),
            ["link", "link/x"],
            id="a folder in a link's place",
        ),
        pytest.param(
            lambda view: (shutil.rmtree(view / "bin"), (view / "bin").write_text("x")),
            ["bin"],
            id="a file in a folder's place",
        ),
        pytest.param(
            lambda view: ((view / "etc/hosts").write_text("x"), (view / "etc/hostname").write_text("x")),
            ["etc"],
            id="what the node writes",
        ),
        pytest.param(
            lambda view: ((view / "a").write_text("x"), os.link(view / "a", view / "b")),
            ["a", "b"],
            id="two names",
        ),
    ],
)
def test_what_was_written_and_nothing_else_is_in_the_layer(
    overlay: Overlay, change: Callable[[Path], object], names: list[str]
) -> None:
    change(overlay.view)
    assert overlay.changes().getnames() == names


def test_the_content_is_what_is_there_now(overlay: Overlay) -> None:
    (overlay.view / "srv/a/one").write_text("another")
    (overlay.view / "a").write_text("two names")
    os.link(overlay.view / "a", overlay.view / "b")
    archive = overlay.changes()
    content = archive.extractfile("srv/a/one")
    assert content
    assert content.read() == b"another"
    assert archive.getmember("b").linkname == "a"


def test_a_name_that_would_hide_others_is_refused(overlay: Overlay) -> None:
    (overlay.view / "srv/.wh.a").write_text("x")
    with pytest.raises(OSError, match=r"srv/\.wh\.a.*hides others in a layer"):
        overlay.changes()


def test_folders_without_end_are_refused(overlay: Overlay) -> None:
    make_deep(overlay.view, 900)
    assert len(overlay.changes().getnames()) == 900
    make_deep(overlay.view / "/".join("d" * 900), 300)
    with pytest.raises(OSError, match="its path is too long"):
        overlay.changes()


def test_holes_without_end_are_refused(overlay: Overlay) -> None:
    with (overlay.view / "sparse").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(OSError, match="of which 0 are there"):
        overlay.changes()
