#!/usr/bin/python3.13 -ISB
"""Makes on a booted node what is in the way of a container, and takes it away again.

make link NAME        a link of that name
make element TEXT     elements of the node's packet filter, as nft writes them
make port NUMBER      nothing: `hold` does
take link NAME, take element TEXT
"""

import os
import sys

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]

from core0.linux import netlink
from core0.linux.netlink import End, Netlink
from core0.linux.nftables import Nftables


def main() -> None:
    """Obey."""
    os.chroot("/saboteur.d/proc/1/root")
    verb, kind, *words = sys.argv[1:]
    if kind == "element":
        Nftables().run(f"{'add' if verb == 'make' else 'delete'} element inet zeronode {' '.join(words)}")
    else:
        make_link(*words)
    print("done")


def make_link(name: str) -> None:
    """Make a pair of links, one of that name."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    with Netlink() as here:
        here.apply([netlink.add_veth(End(name), End(f"{name}x"), own)])


if __name__ == "__main__":
    main()
