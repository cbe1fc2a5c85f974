"""Keeps the node's config: fetched until it could be once, or given over the API and kept in the node's state.

A config may be on trial: its links are in force at once, all else of it waits, and it is written down only when it
is confirmed. Without that the node goes back to the earlier one, so an operator who cut the node off waits, too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from core0.config.fetch import Fetched
from core0.linux.unprivileged import ask_unprivileged
from core0.wire import config as wire
from core0.wire import images
from core0.wire.config import ConfigStatus, NodeConfig, key_id, parse_signature
from core0.wire.control import Refusal, RefusedError, Report, conflict
from core0.wire.link_config import NetworkConfig
from core0.wire.storage import StorageConfig, public

_SECTION = "config"
_FIRST_DELAY, _LONGEST_DELAY, _DEADLINE = 1.0, 60.0, 60.0


class Keep(Protocol):
    """Where the node's state is kept."""

    def get(self, section: str) -> bytes | None:
        """A section of the state."""

    async def put(self, section: str, value: bytes) -> None:
        """Write a section; returns when every copy has it."""


class Network(Protocol):
    """The node's own links; each of these raises RefusedError, and has changed nothing then."""

    async def prepare(self, config: NetworkConfig) -> None:
        """Have at hand what a change to a config needs."""

    def change(self, config: NetworkConfig) -> None:
        """Bring them to a config as a whole, or leave them as they are."""

    def adopt(self, config: NetworkConfig) -> None:
        """Bring them to a config as far as it goes, and on with it for ever."""


class Trial(msgspec.Struct, frozen=True):
    """A config on trial: what goes back, when (`time.monotonic`), and what it goes back to."""

    timer: asyncio.TimerHandle
    ends: float
    config: NodeConfig
    before: ConfigStatus


# Whether these 64 bytes are the signature of a document by a public key.
Verify = Callable[[bytes, bytes, bytes], bool]


class ConfigError(Exception):
    """A config that is not taken: the message has cause and remedy."""


class Configs:
    """The node's config.

    Args:
        keep: the node's state.
        report: where to tell what happened.
        network: the node's links, which may refuse.
        apply: takes a config that is in force from now on, but for its links.
        verify: checks a signature.
        fetch: reads a config and its signature from an address.
        address: where the command line says that the config is, if it does.
        operator: the operator's public key.
    """

    def __init__(
        self,
        keep: Keep,
        report: Report,
        network: Network,
        apply: Callable[[NodeConfig], None],
        verify: Verify,
        fetch: Callable[[str], Awaitable[Fetched]],
        address: str | None,
        operator: bytes | None,
    ) -> None:
        self._keep = keep
        self._report = report
        self._network = network
        self._apply = apply
        self._verify = verify
        self._fetch = fetch
        self._address = address
        self._operator = operator
        self._status = ConfigStatus("none", "", "there is none; 'zn config apply' gives one", NodeConfig())
        self._trial: Trial | None = None
        self._trials = 0
        self._begun = False

    def status(self) -> ConfigStatus:
        """The config in force."""
        left = max(0.0, round(self._trial.ends - time.monotonic(), 1)) if self._trial else None
        return msgspec.structs.replace(self._status, trial=left, trials=self._trials)

    async def run(self) -> None:
        """Apply what is kept; fetch what the command line names, until it is applied."""
        if not self._address:
            self._begin()
            return
        delay = _FIRST_DELAY
        self._status = ConfigStatus("fetching", self._address, "it is being fetched", NodeConfig())
        while not await self._fetched(self._address):
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    def _begin(self) -> None:
        """Use what is kept, once, before anything else is: a trial goes back to it."""
        if not self._begun:
            self._begun = True
            self._use_kept()

    def _use_kept(self) -> None:
        kept = self._keep.get(_SECTION)
        if kept is None:
            self._network.adopt(
                NetworkConfig()
            )  # an earlier node daemon may have ended with a config on trial
            return
        try:
            config = msgspec.json.decode(kept, type=NodeConfig)
            self._network.adopt(config.network)
        except RefusedError as error:
            self._refuse(f"{error.refusal.pointer}: {error}; {error.refusal.remedy}")
        except msgspec.ValidationError as error:
            from core0.wire.state import NEWER_IMAGE

            said = (
                f"this image does not understand the config that the node remembers: {error}; {NEWER_IMAGE}"
            )
            self._refuse(said)
        else:
            self._use(config, "api", "as it was given over the API")

    def _refuse(self, said: str) -> None:
        self._report("config", "api", f"Alert: it is not in force: {said}")
        self._status = ConfigStatus("refused", "api", said, NodeConfig())

    async def _fetched(self, address: str) -> bool:
        try:
            config = self._checked(address, await self._fetch(address))
            self._adopt(address, config.network)
        except (ConfigError, OSError) as error:
            if str(error) != self._status.why:
                self._report("config", address, f"{error}")
            self._status = ConfigStatus("refused", address, str(error), NodeConfig())
            return False
        self._use(config, address, "its signature is the operator's")
        return True

    def _adopt(self, address: str, config: NetworkConfig) -> None:
        try:
            self._network.adopt(config)
        except RefusedError as error:
            said = f"cannot use {address}: {error.refusal.pointer}: {error}; {error.refusal.remedy}"
            raise ConfigError(said) from None

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

    async def put(self, config: NodeConfig, trial: float | None = None) -> ConfigStatus:
        """Take a config from the operator; with `trial` for so many seconds, unless it is confirmed before.

        Raises:
            RefusedError: if the command line names another place for it, or its links cannot be so.
        """
        if self._address:
            detail = f"cannot set the config: it comes from {self._address} (zn.config)"
            raise RefusedError(Refusal(409, "conflict", detail, "change it there and reboot the node"))
        self._begin()
        await self._network.prepare(config.network)
        if trial is not None:
            self._try(config, trial)
            return self.status()
        before = self._status.config.network
        self._network.change(config.network)
        earlier = self._end_trial()
        await self._write(config, earlier.before.config.network if earlier else before)
        return self._status

    async def confirm(self) -> ConfigStatus:
        """Keep the config that is on trial.

        Raises:
            RefusedError: if none is.
        """
        trial = self._end_trial()
        if not trial:
            detail = (
                "cannot confirm the config: none is on trial, or its time was over and the node went back"
            )
            raise conflict(detail, "see 'zn config show', and apply it again")
        await self._write(trial.config, trial.before.config.network)
        return self._status

    async def _write(self, config: NodeConfig, before: NetworkConfig) -> None:
        """Keep a config whose links are in force; if it cannot be kept, the links go back."""
        try:
            await self._keep.put(_SECTION, msgspec.json.encode(without_secrets(config)))
        except (OSError, RefusedError):
            self._network.adopt(before)
            raise
        self._use(config, "api", "as it was given over the API")

    def _try(self, config: NodeConfig, seconds: float) -> None:
        """Put the links of a config in force for a while; of two trials the later goes back behind the first."""
        self._network.change(config.network)
        earlier = self._end_trial()
        before = earlier.before if earlier else self._status
        timer = asyncio.get_running_loop().call_later(seconds, self._go_back)
        self._trials += 1
        self._trial = Trial(timer, time.monotonic() + seconds, config, before)
        why = (
            f"its links are tried for {seconds:.0f} s; 'zn config confirm' keeps it, else the node goes back"
        )
        self._status = ConfigStatus("trying", "api", why, without_secrets(config))
        self._report("config", "api", f"On trial for {seconds:.0f} s")

    def _end_trial(self) -> Trial | None:
        trial, self._trial = self._trial, None
        if trial:
            trial.timer.cancel()
        return trial

    def _go_back(self) -> None:
        """Nobody confirmed the config: perhaps nobody could."""
        trial = self._end_trial()
        if not trial:
            return
        self._network.adopt(trial.before.config.network)
        why = "the config that was tried was not confirmed in time, and the node went back to this one"
        self._status = msgspec.structs.replace(trial.before, why=why)
        self._report(
            "config", "api", "Went back to the earlier one: what was tried was not confirmed in time"
        )

    def _use(self, config: NodeConfig, source: str, why: str) -> None:
        self._status = ConfigStatus("applied", source, why, without_secrets(config))
        self._report("config", source, f"Applied: {why}")
        self._apply(config)


def without_secrets(config: NodeConfig) -> NodeConfig:
    """A config without passphrases and passwords: what is shown, and what is kept on disks."""
    pools = {name: public(spec) for name, spec in config.storage.pools.items()}
    storage: StorageConfig = msgspec.structs.replace(config.storage, pools=pools)
    return msgspec.structs.replace(config, storage=storage, images=images.public(config.images))


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
