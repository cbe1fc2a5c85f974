"""dnsmasq, the independent DHCP server and router of tests, in the network namespace of who starts it."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IS_THERE = shutil.which("dnsmasq") is not None
REASON = "needs Debian's dnsmasq-base"


def run(*words: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(words, check=True)


def make_cable(address: str) -> None:
    """The links `srv`, with an address, and `cli` with the hardware address 52:54:00:00:00:07, both up."""
    run("ip", "link", "add", "srv", "type", "veth", "peer", "name", "cli", "address", "52:54:00:00:00:07")
    run("ip", "address", "add", address, "dev", "srv", *(["nodad"] if ":" in address else []))
    for link in ("srv", "cli", "lo"):
        run("ip", "link", "set", link, "up")


@contextmanager
def serving(folder: str, *options: str, link: str = "srv", names: int = 0) -> Iterator[None]:
    """Serve on a link as long as this lasts.

    Args:
        folder: for its leases.
        options: of dnsmasq, beside what keeps it to this link and out of this machine's configuration.
        link: where to serve.
        names: the port where names are answered; 0 for none.
    """
    alone = (
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        f"--port={names}",
        "--user=root",
        "--pid-file=",
        "--no-ping",
    )
    own = (f"--interface={link}", "--bind-interfaces", f"--dhcp-leasefile={Path(folder)}/leases")
    process = subprocess.Popen(("dnsmasq", *alone, *own, *options))
    try:
        yield
    finally:
        process.terminate()
        process.wait()
