"""docs/corex.md shows what the code has: the life's diagram, every route, every specification field."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corex.http.openapi import document
from corex.process.model import EVENTS, STATES, TABLE
from corex.rest import access, api
from corex.wire.process import ProcessSpec

PAGE = Path(__file__).parents[2] / "docs/corex.md"
_LIFE = re.compile(r"(?<=change it there -->\n).*?(?=<!-- end of life -->)", re.DOTALL)


def life() -> str:
    """The diagram and its two tables, from the life table."""
    arrows = [
        f"    {state} --> {after}: {event}" for (state, event), after in TABLE.items() if state != after
    ]
    states = [f"| `{state}` | {meaning} |" for state, meaning in STATES.items()]
    events = [f"| `{event}` | {meaning} |" for event, meaning in EVENTS.items()]
    lines = [
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> stopped",
        *arrows,
        "```",
        "",
        *["| state | meaning |", "|---|---|", *states],
        "",
        *["| event | meaning |", "|---|---|", *events],
    ]
    return "\n" + "\n".join(lines) + "\n\n"


def test_the_diagram_is_the_table(request: pytest.FixtureRequest) -> None:
    page = PAGE.read_text()
    if request.config.getoption("--update-golden"):
        page = _LIFE.sub(lambda _: life(), page)
        PAGE.write_text(page)
    shown = _LIFE.search(page)
    assert shown is not None
    assert shown[0] == life(), "if the table is right: pytest --update-golden"


def test_every_route_has_its_curl_example() -> None:
    page = PAGE.read_text()
    for route in api.routes():
        name = "shop" if route.path.startswith("/v1/layers") else "web"
        path = route.path.replace("{name}", name).replace("{id}", "$ID")
        method = "" if route.method == "GET" else f"-X {route.method} "
        assert re.search(rf'{re.escape(method)}"?\$C{re.escape(path)}["? \n]', page), f"{route.method} {path}"


def test_every_field_of_a_specification_is_explained() -> None:
    page = PAGE.read_text()
    for field in msgspec.structs.fields(ProcessSpec):
        assert f"`{field.name}`" in page


@pytest.mark.root
async def test_the_example_in_python_prints_what_the_page_says(
    core: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"```python\n(?P<code>.*?)```\n\n```\n(?P<said>.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(compile(found["code"], str(PAGE), "exec"), names)  # the page is ours
    await names["main"](core.endpoint.address, core.endpoint.fingerprint, core.endpoint.token)
    assert capsys.readouterr().out == found["said"]


def test_the_openapi_document_changes_by_intent_only(golden: object) -> None:
    text = json.dumps(document(api.routes(), "Core-X", api.VERSION, access.SCHEME), indent=1, sort_keys=True)
    golden("openapi.json", text + "\n")  # type: ignore[operator]
