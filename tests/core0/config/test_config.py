"""The config: read, signed, fetched, refused, applied, tried."""

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from core0.config.fetch import Fetched
from core0.config.manager import Configs
from core0.linux.openssl import verify
from core0.state.model import Machine
from core0.state.store import StateStore
from core0.wire.config import (
    NodeConfig,
    SignatureError,
    format_signature,
    key_id,
    parse,
    parse_signature,
)
from core0.wire.control import RefusedError, conflict
from core0.wire.link_config import BridgeConfig, LinkConfig, NetworkConfig
from tests.core0.state.model_disks import ModelAreas

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
ADDRESS = "http://10.0.2.2:8080/node.toml"
TEXT = """
[storage.pools.fast]
profile = "raid1"
format_blank = true
[storage.pools.fast.select]
media = ["nvme"]
count = 2
[storage.pools.vault]
select = { serials = ["X"] }
encryption = { key = "config", passphrase = "correct horse" }
[storage.claims]
X = "9f86d081884c7d65"
[images.registries."https://registry.example.com"]
user = "me"
password = "correct horse"
"""


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def signed(text: str, key: Ed25519PrivateKey = KEY) -> Fetched:
    return Fetched(text.encode(), format_signature(raw(key), key.sign(text.encode())).encode())


def test_a_config_is_read_strictly() -> None:
    config = parse(TEXT)
    assert config.storage.pools["fast"].select.count == 2
    assert config.storage.claims == {"X": "9f86d081884c7d65"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("[storage.pool.fast]", "unknown field `pool`", id="unknown key"),
        pytest.param("[storage.pools.fast]", "missing required field `select`", id="no selector"),
        pytest.param(
            "[storage.pools.fast]\nselect={}\nprofile='raid5'", r"Invalid enum value 'raid5'", id="profile"
        ),
        pytest.param("[storage.pools.F]\nselect={}", "matching regex", id="name"),
        pytest.param("[storage.claims]\nX='all'", "matching regex", id="claim of everything"),
        pytest.param("storage = ", "Invalid value", id="no TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text)


@given(st.binary(max_size=64), st.binary(min_size=64, max_size=64), st.binary(max_size=200))
def test_no_other_signature_is_taken(document: bytes, signature: bytes, other: bytes) -> None:
    assert verify(raw(KEY), KEY.sign(document), document)
    assert not verify(raw(KEY), signature, document)
    assert verify(raw(KEY), KEY.sign(document), other) == (document == other)


@given(st.text(max_size=200))
def test_a_signatures_file_is_read_or_refused(text: str) -> None:
    try:
        found = parse_signature(text)
    except SignatureError:
        return
    assert len(found.data) == 64


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a node's state is."""
    monkeypatch.chdir(tmp_path)


class Links:
    """Takes the links of configs, but for one called `never`."""

    def __init__(self) -> None:
        self.taken: list[NetworkConfig] = []
        self.prepared: list[NetworkConfig] = []

    async def prepare(self, config: NetworkConfig) -> None:
        self.prepared.append(config)

    def change(self, config: NetworkConfig) -> None:
        assert config in self.prepared, "no change waits for drivers"
        self.adopt(config)

    def adopt(self, config: NetworkConfig) -> None:
        if "never" in config.links:
            raise conflict("cannot use the config: never", "never", "/network/links/never")
        self.taken.append(config)


class Node:
    """What the keeper of the config works with."""

    def __init__(
        self,
        *answers: Fetched,
        address: str | None = ADDRESS,
        operator: bytes | None = None,
    ) -> None:
        self.answers = list(answers)
        self.applied: list[NodeConfig] = []
        self.said: list[str] = []
        self.links = Links()
        self.kept = StateStore(ModelAreas({}), Machine(), lambda *_: None, "state.json")
        self.configs = Configs(
            self.kept,
            lambda kind, subject, message: self.said.append(message),
            self.links,
            self.applied.append,
            verify,
            self.fetch,
            address,
            operator or raw(KEY),
        )

    async def fetch(self, address: str) -> Fetched:
        return self.answers.pop(0)


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core0.config.manager._FIRST_DELAY", 0.0)


async def test_a_config_with_the_operators_signature_is_applied() -> None:
    node = Node(signed(TEXT))
    await node.configs.run()
    assert node.applied == [parse(TEXT)]
    status = node.configs.status()
    assert (status.state, status.source) == ("applied", ADDRESS)
    assert "correct horse" not in repr(status)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(Fetched(error="cannot fetch it: refused"), "cannot fetch it: refused", id="no server"),
        pytest.param(
            signed(TEXT, OTHER),
            f"signed by key {key_id(raw(OTHER))}, and the operator's is {key_id(raw(KEY))}",
            id="another key",
        ),
        pytest.param(
            Fetched(TEXT.encode() + b"\n", signed(TEXT).signature),
            "it was changed after it was signed",
            id="changed",
        ),
        pytest.param(Fetched(TEXT.encode(), b"\xff\xfe"), "'ed25519 KEY SIGNATURE'", id="no signature"),
        pytest.param(signed("[storage.pool.x]"), "unknown field `pool`", id="not a config"),
    ],
)
async def test_what_is_refused_is_told_and_tried_again(no_delay: None, answer: Fetched, reason: str) -> None:
    node = Node(answer, answer, signed(TEXT))
    await node.configs.run()
    assert reason in node.said[0]
    assert len(node.said) == 2  # the same trouble is told once
    assert node.applied == [parse(TEXT)]


async def test_a_config_over_the_api_is_kept_without_its_secrets() -> None:
    node = Node(address=None)
    await node.configs.put(parse(TEXT))
    assert node.applied == [parse(TEXT)]
    assert b"correct horse" not in (node.kept.get("config") or b"")
    again = Node(address=None)
    await again.configs.run()
    assert again.applied[0].storage.pools["fast"] == parse(TEXT).storage.pools["fast"]


async def test_a_kept_config_of_a_newer_image_is_left_as_it_is_and_told() -> None:
    node = Node(address=None)
    await node.kept.put("config", b'{"storage": {"tiers": {}}}')
    await node.configs.run()
    status = node.configs.status()
    assert (status.state, node.applied) == ("refused", [])
    assert "unknown field `tiers`" in status.why
    assert node.kept.get("config") == b'{"storage": {"tiers": {}}}'


async def test_a_config_over_the_api_is_refused_where_the_command_line_names_one() -> None:
    node = Node(signed(TEXT))
    with pytest.raises(RefusedError, match=r"it comes from http://10\.0\.2\.2"):
        await node.configs.put(parse(TEXT))
    assert node.applied == []


def bridged(name: str) -> NodeConfig:
    """A config with one link."""
    return NodeConfig(network=NetworkConfig({name: LinkConfig(bridge=BridgeConfig())}))


async def test_a_config_whose_links_are_refused_is_neither_kept_nor_applied() -> None:
    node = Node(address=None)
    await node.configs.put(bridged("br0"))
    with pytest.raises(RefusedError, match="never"):
        await node.configs.put(bridged("never"))
    assert node.configs.status().config == bridged("br0")
    assert node.applied == [bridged("br0")]
    assert b"never" not in (node.kept.get("config") or b"")


async def test_a_fetched_config_whose_links_are_refused_says_which() -> None:
    node = Node(signed("[network.links.never]\nbridge = {}"), signed(TEXT))
    assert not await node.configs._fetched(ADDRESS)
    assert node.configs.status().state == "refused"
    assert "/network/links/never: cannot use the config: never" in node.configs.status().why


async def test_a_trial_has_its_links_at_once_and_all_else_when_it_is_confirmed() -> None:
    node = Node(address=None)
    status = await node.configs.put(bridged("br0"), 60.0)
    assert (status.state, node.links.taken[-1], node.applied) == ("trying", bridged("br0").network, [])
    assert 0 < (node.configs.status().trial or 0) <= 60
    assert node.kept.get("config") is None
    status = await node.configs.confirm()
    assert (status.state, status.trial, node.applied) == ("applied", None, [bridged("br0")])
    assert b"br0" in (node.kept.get("config") or b"")


async def test_a_trial_that_nobody_confirms_goes_back_and_says_so() -> None:
    node = Node(address=None)
    await node.configs.put(bridged("br0"))
    await node.configs.put(bridged("br1"), 60.0)
    await node.configs.put(bridged("br2"), 0.01)
    async with asyncio.timeout(10):
        while node.configs.status().state == "trying":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    status = node.configs.status()
    assert (status.state, status.config, status.trials) == ("applied", bridged("br0"), 2)
    assert "not confirmed in time, and the node went back" in status.why
    assert node.links.taken[-1] == bridged("br0").network
    assert node.said[-1].startswith("Went back")
    with pytest.raises(RefusedError, match="none is on trial"):
        await node.configs.confirm()


async def test_a_config_without_a_trial_ends_the_one_that_is_on() -> None:
    node = Node(address=None)
    await node.configs.put(bridged("br0"), 60.0)
    await node.configs.put(bridged("br1"))
    with pytest.raises(RefusedError, match="none is on trial"):
        await node.configs.confirm()
    assert node.configs.status().config == bridged("br1")


async def test_a_node_daemon_that_ended_in_a_trial_starts_with_what_was_kept() -> None:
    node = Node(address=None)
    await node.configs.run()
    assert node.links.taken == [NetworkConfig()]


async def test_a_trial_right_after_the_start_goes_back_to_what_is_kept() -> None:
    node = Node(address=None)
    await node.configs.put(bridged("br0"))
    again = Node(address=None)
    await again.configs.put(bridged("br1"), 0.01)
    async with asyncio.timeout(10):
        while again.configs.status().state == "trying":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await again.configs.run()
    assert again.links.taken == [bridged(name).network for name in ("br0", "br1", "br0")]
    assert again.applied == [bridged("br0")]


async def test_links_go_back_where_the_config_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(address=None)

    async def put(section: str, value: bytes) -> None:
        raise OSError(5, "cannot write")

    monkeypatch.setattr(node.kept, "put", put)
    with pytest.raises(OSError, match="cannot write"):
        await node.configs.put(bridged("br0"))
    assert node.links.taken[-2:] == [bridged("br0").network, NetworkConfig()]
