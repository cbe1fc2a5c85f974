"""Debian's archive: which mirror, and what apt resolves from it in a root of its own.

apt runs with its own state, cache and sources below one folder, so nothing of the machine changes, and it
checks the archive's signature with the machine's debian-archive-keyring.
"""

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote

from image import fetch
from image.errors import ImageError
from image.lock import DebFile

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Archive name, as it stands in locks and at the end of every mirror's URL, and the suites it carries.
SUITES: Mapping[str, tuple[str, ...]] = {
    "debian": ("{suite}", "{suite}-updates"),
    "debian-security": ("{suite}-security",),
}


class AptError(ImageError):
    """apt could not do its part; the message carries apt's own words."""


@dataclass(frozen=True)
class Mirror:
    """Where the archives are: archive name → URL without a trailing slash."""

    urls: Mapping[str, str]

    def url(self, archive: str, path: str) -> str:
        """The address of a file of an archive."""
        return f"{self.urls[archive]}/{path}"


def machine_mirror() -> Mirror:
    """The mirror that this machine's own apt uses. Raises AptError if it uses none."""
    targets = _run(
        ["apt-get", "indextargets", "--format", "$(CREATED_BY) $(REPO_URI)", "Created-By: Packages"]
    )
    uris = [line.split()[1].rstrip("/") for line in targets.splitlines() if line]
    found = {uri.rsplit("/", 1)[-1]: uri for uri in reversed(uris)}
    if "debian" not in found:
        raise AptError("cannot find Debian's archive in this machine's apt sources; name one with --mirror")
    return with_security(found["debian"], found.get("debian-security"))


def named_mirror(url: str) -> Mirror:
    """The mirror at a URL: of its main archive, or with `{archive}` where the archive's name belongs."""
    if "{archive}" in url:
        return Mirror({archive: url.rstrip("/").format(archive=archive) for archive in SUITES})
    return with_security(url)


def with_security(main: str, security: str | None = None) -> Mirror:
    """A mirror from the URL of its main archive; the security archive is its sibling if none is named."""
    main = main.rstrip("/")
    return Mirror({"debian": main, "debian-security": security or f"{main}-security"})


def served(mirror: Mirror, suite: str) -> Mirror:
    """The part of a mirror that really answers; the main archive must."""

    def answers(archive: str) -> bool:
        first = SUITES[archive][0].format(suite=suite)
        return fetch.serves(mirror.url(archive, f"dists/{first}/InRelease"))

    urls = {archive: url for archive, url in mirror.urls.items() if answers(archive)}
    if "debian" not in urls:
        raise AptError(f"cannot use mirror {mirror.urls['debian']}: it does not serve {suite}; try --mirror")
    return Mirror(urls)


@dataclass(frozen=True)
class Apt:
    """apt in a private root below `folder`, for one suite and architecture of one mirror."""

    folder: Path
    mirror: Mirror
    suite: str
    arch: str

    def update(self, assume: Sequence[str]) -> None:
        """Write the private root and fetch the signed indexes."""
        _require_keyring()
        for name in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "state/status").write_text("".join(map(self._installed, assume)))
        (self.folder / "etc/sources.list").write_text(self._sources())
        (self.folder / "apt.conf").write_text(self._configuration())
        self._apt("apt-get", "update", "-q", "--error-on=any")

    def resolve(self, wanted: Sequence[str]) -> tuple[DebFile, ...]:
        """The files of the wanted packages and all that they depend on, by name."""
        lines = self._apt("apt-get", "install", "-q", "-y", "--print-uris", *wanted).splitlines()
        places = [self._place(line.split("'")[1]) for line in lines if line.startswith("'")]
        names = {unquote(path.rsplit("/", 1)[-1]).split("_")[0] for _, path in places}
        records = self._records(sorted(names))
        files = [_locked(records[path], archive) for archive, path in places]
        return tuple(sorted(files, key=lambda file: file.name))

    def epoch(self) -> int:
        """The newest date that the archives' signed Release files bear, seconds since 1970."""
        dates = [
            line.removeprefix("Date: ")
            for release in sorted((self.folder / "state/lists").glob("*_InRelease"))
            for line in release.read_text(encoding="utf-8").splitlines()
            if line.startswith("Date: ")
        ]
        return max(int(parsedate_to_datetime(date).timestamp()) for date in dates)

    def _place(self, uri: str) -> tuple[str, str]:
        for archive, url in self.mirror.urls.items():
            if uri.startswith(f"{url}/"):
                return archive, unquote(uri.removeprefix(f"{url}/"))
        raise AptError(f"cannot place {uri}: it is in none of the mirror's archives")

    def _records(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        text = self._apt("apt-cache", "show", *names)
        records = [dict(_fields(block)) for block in text.split("\n\n") if block.strip()]
        return {record["Filename"]: record for record in records}

    def _sources(self) -> str:
        options = f"[arch={self.arch} signed-by={KEYRING}]"
        return "".join(
            f"deb {options} {url} {suite.format(suite=self.suite)} main\n"
            for archive, url in self.mirror.urls.items()
            for suite in SUITES[archive]
        )

    def _installed(self, name: str) -> str:
        """A dpkg status record that makes apt take a package as there ("at least" constraints hold)."""
        return (
            f"Package: {name}\nStatus: install ok installed\nVersion: 9999:0\n"
            f"Architecture: {self.arch}\nMulti-Arch: foreign\nMaintainer: none\nDescription: assumed\n\n"
        )

    def _configuration(self) -> str:
        return f"""\
Dir "{self.folder}";
Dir::State "state";
Dir::State::status "{self.folder}/state/status";
Dir::Cache "cache";
Dir::Log "log";
Dir::Etc "etc";
Dir::Etc::sourcelist "sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::parts "-";
APT::Architecture "{self.arch}";
APT::Architectures {{ "{self.arch}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
{_machine_proxies()}
"""

    def _apt(self, *command: str) -> str:
        return _run(command, {"APT_CONFIG": str(self.folder / "apt.conf")})


def _machine_proxies() -> str:
    """What this machine's apt is told about ways to its mirror, such as Acquire::http::Proxy."""
    lines = _run(["apt-config", "dump"]).splitlines()
    return "\n".join(line for line in lines if line.startswith(("Acquire::http::", "Acquire::https::")))


def _locked(record: Mapping[str, str], archive: str) -> DebFile:
    return DebFile(
        name=record["Package"],
        version=record["Version"],
        arch=record["Architecture"],
        archive=archive,
        path=record["Filename"],
        size=int(record["Size"]),
        sha256=record["SHA256"],
    )


def _fields(block: str) -> Iterable[tuple[str, str]]:
    for line in block.splitlines():
        if line and not line[0].isspace():
            key, _, value = line.partition(":")
            yield key, value.strip()


def _require_keyring() -> None:
    if not KEYRING.exists():
        raise AptError(f"cannot check signatures: no {KEYRING}; install the package debian-archive-keyring")


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, env={**kept, **clean, **(environment or {})}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise AptError(f"cannot run {command[0]}: not found; the lock is made on a Debian machine") from error
    if done.returncode:
        raise AptError(_explain(command, done.stdout, done.stderr))
    return done.stdout


def _explain(command: Sequence[str], stdout: str, stderr: str) -> str:
    """One line out of apt's many; it tells unmet dependencies on standard output."""
    causes = [line.removeprefix("E: ").rstrip(".") for line in stderr.splitlines() if line.startswith("E: ")]
    cause = "; ".join(causes) or stderr.strip()
    if "unmet dependencies" in stdout:
        unmet = stdout.split("unmet dependencies:")[1].split("\n")
        cause += ": " + "; ".join(" ".join(line.split()) for line in unmet if line.startswith(" "))
    if "NO_PUBKEY" in stderr:
        cause += "; the keys are in a newer package debian-archive-keyring: upgrade it"
    return f"cannot run {command[0]} {command[1]}: {cause}"
