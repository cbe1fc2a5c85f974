"""What containers have of the node: its ports, numbers in networks, volumes, secrets. Looked up, not looked for.

A thousand containers that are wanted one after the other would have each of them look at all before it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from core0.wire.network import packed
from core0.wire.types import PublishedPort

K = TypeVar("K")
V = TypeVar("V")


class Index(Generic[K, V]):
    """Who has what, and of what kind it is."""

    def __init__(self) -> None:
        self._users: dict[K, dict[str, V]] = {}
        self._keys: dict[str, tuple[K, ...]] = {}

    def note(self, name: str, has: Mapping[K, V]) -> None:
        """Know what a container has from now on, which may be nothing."""
        for key in self._keys.pop(name, ()):
            del self._users[key][name]
            if not self._users[key]:
                del self._users[key]
        for key, value in has.items():
            self._users.setdefault(key, {})[name] = value
        if has:
            self._keys[name] = (*has,)

    def users(self, key: K) -> Mapping[str, V]:
        """Which containers have something."""
        return self._users.get(key, {})


class Claims:
    """The claims of all containers."""

    def __init__(self) -> None:
        self._ports: Index[tuple[str, int], list[PublishedPort]] = Index()
        self._hosts: Index[str, int] = Index()
        self._volumes: Index[str, None] = Index()
        self._secrets: Index[str, None] = Index()

    def note(
        self,
        name: str,
        ports: Iterable[PublishedPort] = (),
        hosts: Mapping[str, int] | None = None,
        volumes: Iterable[str] = (),
        secrets: Iterable[str] = (),
    ) -> None:
        """Know what a container has from now on, which may be nothing.

        Args:
            name: the container's.
            ports: of the node.
            hosts: its number in each network that it has one in.
            volumes: by their names.
            secrets: the same.
        """
        by_key: dict[tuple[str, int], list[PublishedPort]] = {}
        for port in ports:
            by_key.setdefault(_key(port), []).append(port)
        self._ports.note(name, by_key)
        self._hosts.note(name, hosts or {})
        self._volumes.note(name, dict.fromkeys(volumes))
        self._secrets.note(name, dict.fromkeys(secrets))

    def users_of(self, port: PublishedPort) -> Iterator[str]:
        """Which containers have a port of the node, at an address that this one is published at, too."""
        for name, ports in self._ports.users(_key(port)).items():
            if any(_meet(port.address, one.address) for one in ports):
                yield name

    def hosts(self, network: str) -> Mapping[str, int]:
        """The containers that have a number in a network, and their numbers there."""
        return self._hosts.users(network)

    def users_of_volume(self, volume: str) -> tuple[str, ...]:
        """Which containers have a volume, by name."""
        return tuple(sorted(self._volumes.users(volume)))

    def users_of_secret(self, secret: str) -> tuple[str, ...]:
        """Which containers have a secret, by name."""
        return tuple(sorted(self._secrets.users(secret)))


def _key(port: PublishedPort) -> tuple[str, int]:
    return port.protocol, port.node


def _meet(one: str | None, other: str | None) -> bool:
    """Whether there is an address that both mean; None is all of them."""
    return one is None or other is None or packed(one) == packed(other)
