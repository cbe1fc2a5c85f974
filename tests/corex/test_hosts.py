"""The names that Core-X goes by; who asks for another one is misdirected."""

from typing import Any

import aiohttp
import pytest

from corex.http.hosts import Hosts


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.0.0.5:9001", "[::1]", "[2001:db8::5]:9001"),
        *("localhost", "localhost:1", "demo", "Demo:9001", "demo.default.internal.", "Shop.Example:443"),
    ],
)
def test_own_names_and_addresses_are_right(host: str) -> None:
    assert Hosts(("demo", "demo.default.internal", "shop.example.", ""))(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", ":", ":80", "evil.example", "demo.evil.example", "xdemo", "127.0.0.1.evil.example", "0x7f.1"),
        *(
            "127.1",
            "::1",
            "[::1",
            "[::1]x",
            "[demo]",
            "demo:x",
            "demo:80:80",
            "demo..",
            "[::1]:",
            "user@demo",
        ),
        *("demo\0", "[::1%lo]", "1", "localhost.evil.example"),
    ],
)
def test_others_are_not(host: str) -> None:
    assert not Hosts(("demo",))(host)


@pytest.mark.root
async def test_a_request_for_somebody_else_is_misdirected(browser: aiohttp.ClientSession) -> None:
    for path in ("/v1/health", "/v1/processes", "/nothing"):
        async with browser.get(path, headers={"Host": "evil.example"}) as answer:
            found = await answer.json(content_type="application/problem+json")
            assert (answer.status, found["type"]) == (421, "urn:zeronode:problem:misdirected")
            assert found["detail"].startswith("cannot answer for 'evil.example'")
    async with browser.get("/v1/processes", headers={"Host": "TEST:1"}) as answer:
        assert answer.status == 200


@pytest.mark.root
async def test_a_page_of_a_rebound_name_gets_no_websocket(core: Any, browser: aiohttp.ClientSession) -> None:
    headers = {"Host": "evil.example", "Origin": "https://evil.example"}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await browser.ws_connect("/v1/exec?command=id", headers=headers, protocols=["v5.channel.k8s.io"])
    assert refused.value.status == 421
