"""The kernel command line: every `zn.*` parameter in one table, and the parser for it.

The kernel's own rules hold (Documentation/admin-guide/kernel-parameters.rst): parameters are separated by
white space, double quotes protect white space. Words that are not ours are ignored. A word of ours that is
unknown or malformed becomes a warning, never a failed boot: a node with a typing error stays reachable.

PID 1 imports this module, so it uses the standard library only.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"https?://[!-~]{1,2000}")
_OPERATOR = re.compile(r"[0-9a-f]{64}")


class Parameter(NamedTuple):
    """One `zn.*` parameter: its meaning for people and its check."""

    name: str
    meaning: str
    example: str
    parse: Callable[[str], str]


def _matches(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"not {what}")
        return text

    return parse


def _seconds(text: str) -> str:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 86400:
        raise ValueError("not a number of seconds from 1 to 86400")
    return text


PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        parameter.name: parameter
        for parameter in (
            Parameter(
                "zn.operator",
                "the operator's Ed25519 public key, 32 bytes in hexadecimal; its holder may use the API",
                "zn.operator=" + "9f" * 32,
                _matches(_OPERATOR, "64 hexadecimal digits"),
            ),
            Parameter(
                "zn.hostname",
                "the node's host name, one DNS label; otherwise made from the first link's address",
                "zn.hostname=rack3-node7",
                _matches(_HOSTNAME, "a DNS label of 1 to 63 lower-case letters, digits and hyphens"),
            ),
            Parameter(
                "zn.config",
                "where the node's config is; its signature by the operator's key is beside it, as .sig",
                "zn.config=http://10.0.2.2:8080/node.toml",
                _matches(_ADDRESS, "an http or https address"),
            ),
            Parameter(
                "zn.panic",
                "seconds that a fatal error stays on the console before the node reboots (default 10)",
                "zn.panic=60",
                _seconds,
            ),
        )
    }
)


class CommandLine(NamedTuple):
    """The parsed command line: our parameters by name, and what was wrong with the rest of our words."""

    values: Mapping[str, str] = MappingProxyType({})
    warnings: tuple[str, ...] = ()

    @property
    def operator(self) -> bytes | None:
        """The operator's raw Ed25519 public key (32 bytes), or None if the command line names none."""
        text = self.values.get("zn.operator")
        return bytes.fromhex(text) if text else None

    @property
    def hostname(self) -> str | None:
        """The host name asked for, if any."""
        return self.values.get("zn.hostname")

    @property
    def config(self) -> str | None:
        """Where the node's config is, if the command line says."""
        return self.values.get("zn.config")

    @property
    def panic_seconds(self) -> int:
        """How long a fatal error stays readable before the reboot, in seconds."""
        return int(self.values.get("zn.panic", "10"))


def parse(line: str) -> CommandLine:
    """Parse the text of /proc/cmdline. Never raises: what cannot be used is in `warnings`."""
    values: dict[str, str] = {}
    warnings: list[str] = []
    for word in re.findall(r'(?:[^\s"]|"[^"]*"?)+', line):
        name, separator, value = word.replace('"', "").partition("=")
        if not name.startswith("zn."):
            continue
        parameter = PARAMETERS.get(name)
        if parameter is None:
            known = ", ".join(PARAMETERS)
            warnings.append(f"unknown kernel parameter {name[:64]!a}: ignored (known: {known})")
            continue
        try:
            values[name] = parameter.parse(value if separator else "")
        except ValueError as error:
            warnings.append(
                f"kernel parameter {name}={value[:80]!a} ignored: {error}, as in {parameter.example}"
            )
    return CommandLine(MappingProxyType(values), tuple(warnings))
