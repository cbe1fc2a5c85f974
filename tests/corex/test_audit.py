"""Audit events: who did what, from where, and nothing that is secret."""

import hashlib
from typing import Any

import aiohttp
import msgspec
import pytest

from corex.client.client import Client, Endpoint, RefusedError
from corex.http.routes import NOBODY, Identity
from corex.rest.auditing import KEPT, Audit
from corex.wire.identities import IdentitySpec


class Raw:
    """As much of a request as an event may have."""

    def __init__(self, method: str = "GET", path: str = "/v1/processes", remote: str = "192.0.2.1") -> None:
        self.method, self.path, self.remote = method, path, remote

    def octets(self, _name: str) -> bytes:
        return b""


def test_a_flood_of_refusals_hides_nothing_that_was_done() -> None:
    now = [1000.0]
    audit = Audit(lambda: now[0])
    audit.note("sys_startup")
    for number in range(KEPT * 3):
        audit(Raw(remote=f"address {number}"), NOBODY, None, 401)  # type: ignore[arg-type]
    page = audit.after(0, 10_000)
    assert (page.events[0].event, len(page.events)) == ("sys_startup", KEPT + 1)
    assert page.lost + len(page.events) == page.next == KEPT * 3 + 1


def test_the_same_refusal_counts_up_for_a_minute() -> None:
    now = [1000.0]
    audit = Audit(lambda: now[0])
    who = Identity("web", frozenset())
    for seconds, identity in ((0, NOBODY), (1, who), (30, NOBODY), (59, who), (61, NOBODY)):
        now[0] = 1000.0 + seconds
        audit(Raw(), identity, None, 403)  # type: ignore[arg-type]
    assert [(one.who, one.times) for one in audit.after(0, 10).events] == [("", 2), ("web", 2), ("", 1)]


def test_pages_cover_all_events_once() -> None:
    audit = Audit(lambda: 0.0)
    for _ in range(25):
        audit.note("sys_startup")
    seen, after = [], 0
    while page := audit.after(after, 10):
        if page.next == after:
            break
        seen += [one.seq for one in page.events]
        after = page.next
    assert seen == list(range(1, 26))


@pytest.mark.root
async def test_what_people_do_is_told_to_admins(core: Any, browser: aiohttp.ClientSession, sh: Any) -> None:
    token = "theirs" * 8
    spec = IdentitySpec("viewer", hashlib.sha256(token.encode()).hexdigest())
    await core.client.put_identity("web", spec)
    await core.client.put_identity("web", spec)
    await core.client.put("a", sh("exit 0"))
    await core.client.start("a", 5)
    await core.client.apply(dry_run=True)
    await core.client.write_file("/tmp/audit", b"secret content")
    async with Client(Endpoint(core.endpoint.address, core.endpoint.fingerprint, token)) as theirs:
        with pytest.raises(RefusedError, match="needs the role admin"):
            await theirs.audit()
        await theirs.processes()
    async with browser.get(
        "/v1/processes?token=secret", headers={"Authorization": "Bearer secret"}
    ) as answer:
        assert answer.status == 401
    async with browser.put("/v1/processes/b", json={"argv": "secret"}) as answer:
        assert answer.status == 422
    await core.client.delete_identity("web")
    page = await core.client.audit()
    assert [(one.event, one.who, one.action, one.status) for one in page.events] == [
        ("sys_startup", "", "", 0),
        ("user_created", "owner", "PUT /v1/identities/web", 201),
        ("user_updated", "owner", "PUT /v1/identities/web", 200),
        ("sensitive_create", "owner", "PUT /v1/processes/a", 201),
        ("sensitive_update", "owner", "POST /v1/processes/a/start", 200),
        ("sensitive_create", "owner", "PUT /v1/fs/file", 201),
        ("authz_fail", "web", "GET /v1/audit", 403),
        ("authn_login_fail", "", "GET /v1/processes", 401),
        ("input_validation_fail", "owner", "PUT /v1/processes/b", 422),
        ("user_deleted", "owner", "DELETE /v1/identities/web", 204),
    ]
    assert {one.source for one in page.events[1:]} == {"127.0.0.1"}
    assert page.events[5].subject == "/tmp/audit"
    assert b"secret" not in msgspec.json.encode(page)
