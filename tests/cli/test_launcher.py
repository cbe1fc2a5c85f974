"""The launcher, run for real in a folder of its own with a lock that needs no network."""

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose command line prints what it got."""
    shutil.copy2(ROOT / "zn", tmp_path / "zn")
    (tmp_path / "requirements.lock").write_text("# nothing\n")
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "__init__.py").touch()
    (tmp_path / "cli" / "__main__.py").write_text("import sys; print(sys.prefix, *sys.argv[1:])\n")
    return tmp_path


def launch(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([checkout / "zn", *words], capture_output=True, text=True, cwd="/", timeout=100)


def load_launcher() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("zn_launcher", str(ROOT / "zn"))
    spec = importlib.util.spec_from_loader("zn_launcher", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_environment_is_made_once_and_again_for_another_lock(checkout: Path) -> None:
    first = launch(checkout, "check", "--json", "a b")
    assert (first.returncode, first.stdout) == (0, f"{checkout}/.venv check --json a b\n")
    assert "Installing the Python packages of requirements.lock ... done" in first.stderr
    assert launch(checkout, "check").stderr == ""
    (checkout / ".venv" / "left-over").touch()
    (checkout / "requirements.lock").write_text("# still nothing\n")
    assert "Making .venv ... done" in launch(checkout, "check").stderr
    assert not (checkout / ".venv" / "left-over").exists()


@pytest.mark.slow
def test_an_environment_that_cannot_be_made_is_never_used(checkout: Path) -> None:
    (checkout / "requirements.lock").write_text("nothing-without-a-hash==1.0\n")
    for _ in range(2):
        done = launch(checkout, "check")
        assert (done.returncode, done.stdout) == (1, "")
        assert "cannot make the virtual environment" in done.stderr
        assert "hash" in done.stderr


def test_somebody_elses_environment_is_used_and_left_alone(checkout: Path) -> None:
    (checkout / ".venv").symlink_to(sys.prefix)
    done = launch(checkout, "check")
    assert (done.returncode, done.stderr) == (0, "")


def test_packages_are_installed_with_what_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    launcher = load_launcher()
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$DEBIAN_FRONTEND $@" >> {tmp_path}/calls\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(launcher, "PACKAGES", (("absent-package", "/none", ("vm",), "boots the nodes"),))
    launcher.ensure_packages(["check"])
    assert not (tmp_path / "calls").exists()
    launcher.ensure_packages(["--contexts", "file", "vm"])
    calls = (tmp_path / "calls").read_text()
    assert calls == "noninteractive -q install --yes --no-install-recommends absent-package\n"
    assert "absent-package           boots the nodes" in capfd.readouterr().err


def test_a_failed_installation_updates_the_lists_once_and_then_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = load_launcher()
    apt = tmp_path / "apt-get"
    apt.write_text(
        f'#!/bin/sh\necho "$2" >> {tmp_path}/calls\necho "E: no such package"; test "$2" = update\n'
    )
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(
        launcher.Failure, match=r"(?s)cannot install x: apt-get failed; run `.*E: no such package"
    ):
        launcher.install_packages([("x", "is needed")])
    assert (tmp_path / "calls").read_text().split() == ["install", "update", "install"]


def test_without_root_and_sudo_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = load_launcher()
    (tmp_path / "apt-get").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(launcher.Failure, match="neither root nor sudo; run zn once as root"):
        launcher.apt_get()
    (tmp_path / "apt-get").unlink()
    with pytest.raises(launcher.Failure, match="this is no Debian system"):
        launcher.apt_get()
