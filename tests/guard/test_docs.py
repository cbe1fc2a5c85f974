"""The documentation against the code: packages, parameters, routes and phases are all described."""

import re
from pathlib import Path

import pytest

from core0.api.table import ROUTES
from core0.wire.cmdline import PARAMETERS
from core0.wire.console import PHASES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def packages() -> list[str]:
    tops = ("core0", "corex")
    inner = [
        f"{top}.{path.parent.name}" for top in tops for path in sorted((ROOT / top).glob("*/__init__.py"))
    ]
    return [*inner, "image", "cli", "ci"]


@pytest.mark.parametrize("package", packages())
def test_the_architecture_says_where_each_package_belongs(package):
    assert f"| `{package}` |" in (DOCS / "architecture.md").read_text()


def test_the_architecture_names_no_package_that_is_not_there():
    named = re.findall(
        r"^\| `((?:core0|corex)\.\w+)` \|", (DOCS / "architecture.md").read_text(), re.MULTILINE
    )
    assert sorted(named) == sorted(name for name in packages() if "." in name)


@pytest.mark.parametrize("parameter", PARAMETERS.values(), ids=lambda parameter: parameter.name)
def test_each_kernel_parameter_is_described(parameter):
    assert f"| `{parameter.name}` | {parameter.meaning.split(';')[0]}" in (DOCS / "node.md").read_text()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_each_route_of_the_node_is_described(route):
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    assert f"| `{route.method} {route.path}` |" in pages


@pytest.mark.parametrize("phase", PHASES)
def test_each_boot_phase_is_described(phase):
    assert f"| `{phase}` |" in (DOCS / "node.md").read_text()


def test_each_link_between_pages_leads_somewhere():
    for page in (*DOCS.rglob("*.md"), ROOT / "README.md"):
        for target in re.findall(r"\]\((?!https?://)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
