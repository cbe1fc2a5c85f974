"""Core-X is asked what its OpenAPI document allows, and what it does not: answers are as the document says."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode, checks
from schemathesis.core.failures import FailureGroup

from corex.wire.process import ProcessSpec

pytestmark = pytest.mark.root
EXAMPLES = 6  # of each route and kind
# Refusals that schemathesis does not know: of plain HTTP where a WebSocket is wanted, of another server's Host.
REFUSALS = (HTTPStatus.UPGRADE_REQUIRED, HTTPStatus.MISDIRECTED_REQUEST)
# What every answer must be.
CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)


class Pinned(HTTPAdapter):
    """Trusts one certificate."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, assert_fingerprint=self._fingerprint, **options)


def _ask_all(address: str, fingerprint: str, token: str) -> tuple[list[str], list[str]]:
    """Ask; returns what was asked, and which answers were not as they should be."""
    with requests.Session() as session:
        session.mount("https://", Pinned(fingerprint))
        session.verify, session.trust_env = False, False
        session.headers["Authorization"] = f"Bearer {token}"
        document = session.get(f"https://{address}/v1/openapi.json", timeout=10).json()
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=f"https://{address}")
        operations = [result.ok() for result in schema.get_all_operations()]
        wrong = []
        for operation in operations:
            for mode in GenerationMode:
                try:
                    _ask(operation, mode, session)
                except FailureGroup as failures:
                    wrong.append(f"{operation.label}: {failures}")
                except (
                    Unsatisfiable
                ):  # nothing can be wrong with a request that has neither parameters nor a body
                    assert mode is GenerationMode.NEGATIVE, operation.label
        return [operation.label for operation in operations], wrong


def _ask(operation: Any, mode: GenerationMode, session: requests.Session) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), st.sampled_from(("a", "never-there", None)))
    def ask(case: Any, name: str | None) -> None:
        assume("stop-container" not in str(case.body))  # the container lives on
        if case.query:
            _hurry(case.query)
        if mode is GenerationMode.POSITIVE and name and "name" in (case.path_parameters or {}):
            case.path_parameters["name"] = name
        response = case.call(session=session, verify=False, timeout=10)
        more = () if response.status_code in REFUSALS else (checks.negative_data_rejection,)
        case.validate_response(response, checks=CHECKS + more)

    ask()


def _hurry(query: dict[str, Any]) -> None:
    """Ask for nothing that takes long or has no end; what is wrong stays so."""
    if query.get("follow") in (True, "true", "1"):
        del query["follow"]
    with suppress(TypeError, ValueError):
        if 0 <= float(query.get("wait", "")) <= 300:
            query["wait"] = 0


async def test_every_answer_is_as_the_document_says(core: Any, sh: Callable[..., ProcessSpec]) -> None:
    await core.client.put("a", sh("echo begins; sleep 1000"))
    await core.client.start("a", wait=10)
    endpoint = core.endpoint
    asked, wrong = await asyncio.to_thread(_ask_all, endpoint.address, endpoint.fingerprint, endpoint.token)
    assert not wrong, "\n".join(wrong)
    assert len(asked) > 40
    assert (await core.client.health()).status == "up"
    assert core.imported_late() == []
