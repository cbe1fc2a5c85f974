"""`zn test`: the static checks, then every test, the QEMU ones included."""

import subprocess
import sys
from typing import Annotated

import typer

from cli.check import STATIC, run_checks
from cli.tasks import ROOT

app = typer.Typer()
_PYTEST = (sys.executable, "-m", "pytest")
# A worker gets whole files: much of what their tests share is made once for each.
_FILES = ("--dist", "loadfile", "--no-loadscope-reorder", "--durations", "10")


@app.command("test", context_settings={"ignore_unknown_options": True})
def run_tests(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PYTEST ARGUMENTS]", help="Given to pytest: only those tests."),
    ] = None,
) -> None:
    """Run the static checks and every test; console logs of failed machines stay in tests/artifacts/.

    Example: zn test

    Example: zn test tests/vm -k reboot
    """
    if words:
        raise typer.Exit(_run(*words))
    static = run_checks(STATIC, as_json=False)
    # these wait for the kernel's timers, for programs and for each other two thirds of their time
    tests = _run("--ignore", "tests/vm", "-n", "4", *_FILES)
    # a machine's virtual CPUs are threads of the host: two workers keep two cores busy
    machines = _run("tests/vm", "-n", "2", *_FILES)
    if tests or machines or not static:
        raise typer.Exit(1)


def _run(*words: str) -> int:
    sys.stdout.flush()  # the table comes before what pytest prints, in a log file too
    return subprocess.run([*_PYTEST, *words], cwd=ROOT, check=False).returncode
