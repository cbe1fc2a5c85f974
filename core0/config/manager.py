"""Keeps the node's config: fetched until it could be once, or given over the API and kept in the node's state."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from core0.config.fetch import Fetched
from core0.linux.unprivileged import ask_unprivileged
from core0.wire import config as wire
from core0.wire.config import ConfigStatus, NodeConfig, key_id, parse_signature
from core0.wire.control import Refusal, RefusedError, Report
from core0.wire.storage import StorageConfig, public

_SECTION = "config"
_FIRST_DELAY, _LONGEST_DELAY, _DEADLINE = 1.0, 60.0, 60.0


class Keep(Protocol):
    """Where the node's state is kept."""

    def get(self, section: str) -> bytes | None:
        """A section of the state."""

    async def put(self, section: str, value: bytes) -> None:
        """Write a section; returns when every copy has it."""


# Whether these 64 bytes are the signature of a document by a public key.
Verify = Callable[[bytes, bytes, bytes], bool]


class ConfigError(Exception):
    """A config that is not taken: the message has cause and remedy."""


class Configs:
    """The node's config.

    Args:
        keep: the node's state.
        report: where to tell what happened.
        apply: takes a config that is in force from now on.
        verify: checks a signature.
        fetch: reads a config and its signature from an address.
        address: where the command line says that the config is, if it does.
        operator: the operator's public key.
    """

    def __init__(
        self,
        keep: Keep,
        report: Report,
        apply: Callable[[NodeConfig], None],
        verify: Verify,
        fetch: Callable[[str], Awaitable[Fetched]],
        address: str | None,
        operator: bytes | None,
    ) -> None:
        self._keep = keep
        self._report = report
        self._apply = apply
        self._verify = verify
        self._fetch = fetch
        self._address = address
        self._operator = operator
        self._status = ConfigStatus("none", "", "there is none; 'zn config apply' gives one", NodeConfig())

    def status(self) -> ConfigStatus:
        """The config in force."""
        return self._status

    async def run(self) -> None:
        """Apply what is kept; fetch what the command line names, until it is applied."""
        if not self._address:
            self._use_kept()
            return
        delay = _FIRST_DELAY
        self._status = ConfigStatus("fetching", self._address, "it is being fetched", NodeConfig())
        while not await self._fetched(self._address):
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    def _use_kept(self) -> None:
        kept = self._keep.get(_SECTION)
        if kept is None:
            return
        try:
            config = msgspec.json.decode(kept, type=NodeConfig)
        except msgspec.ValidationError as error:
            from core0.wire.state import NEWER_IMAGE

            said = (
                f"this image does not understand the config that the node remembers: {error}; {NEWER_IMAGE}"
            )
            self._report("config", "api", f"Alert: it is not in force: {said}")
            self._status = ConfigStatus("refused", "api", said, NodeConfig())
        else:
            self._use(config, "api", "as it was given over the API")

    async def _fetched(self, address: str) -> bool:
        try:
            config = self._checked(address, await self._fetch(address))
        except (ConfigError, OSError) as error:
            if str(error) != self._status.why:
                self._report("config", address, f"{error}")
            self._status = ConfigStatus("refused", address, str(error), NodeConfig())
            return False
        self._use(config, address, "its signature is the operator's")
        return True

    def _checked(self, address: str, found: Fetched) -> NodeConfig:
        """The config, once its signature is known to be the operator's."""
        if found.error:
            raise ConfigError(found.error)
        if self._operator is None:
            raise ConfigError(f"cannot use {address}: the node knows no operator; boot it with zn.operator")
        try:
            signature = parse_signature(found.signature.decode("ascii", "replace"))
        except wire.SignatureError as error:
            raise ConfigError(f"cannot use {address}: {error}") from None
        own = key_id(self._operator)
        if not self._verify(self._operator, signature.data, found.document):
            said = (
                f"it was signed by key {signature.key}, and the operator's is {own}"
                if signature.key != own
                else f"its signature by key {own} does not fit it: it was changed after it was signed"
            )
            raise ConfigError(f"cannot use {address}: {said}; sign it with 'zn config sign'")
        try:
            return wire.parse(found.document.decode())
        except ValueError as error:
            raise ConfigError(f"cannot use {address}: {error}; 'zn config check' checks it") from None

    async def put(self, config: NodeConfig) -> ConfigStatus:
        """Take a config from the operator.

        Raises:
            RefusedError: if the command line names another place for it.
        """
        if self._address:
            detail = f"cannot set the config: it comes from {self._address} (zn.config)"
            raise RefusedError(Refusal(409, "conflict", detail, "change it there and reboot the node"))
        await self._keep.put(_SECTION, msgspec.json.encode(without_secrets(config)))
        self._use(config, "api", "as it was given over the API")
        return self._status

    def _use(self, config: NodeConfig, source: str, why: str) -> None:
        self._status = ConfigStatus("applied", source, why, without_secrets(config))
        self._report("config", source, f"Applied: {why}")
        self._apply(config)


def without_secrets(config: NodeConfig) -> NodeConfig:
    """A config without passphrases: what is shown, and what is kept on disks."""
    pools = {name: public(spec) for name, spec in config.storage.pools.items()}
    storage: StorageConfig = msgspec.structs.replace(config.storage, pools=pools)
    return msgspec.structs.replace(config, storage=storage)


async def fetch(address: str) -> Fetched:
    """Run the fetcher as its own user; its answer is checked like a stranger's."""
    try:
        said, code = await ask_unprivileged("fetch", address.encode(), _DEADLINE)
    except TimeoutError:
        raise ConfigError(f"cannot fetch {address}: not done after {_DEADLINE:.0f} s") from None
    try:
        return msgspec.json.decode(said, type=Fetched)
    except msgspec.DecodeError:
        raise ConfigError(f"cannot fetch {address}: the fetcher ended with {code}") from None
