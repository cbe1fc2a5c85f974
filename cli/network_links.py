"""`zn network links` and `zn network link`: the node's own links."""

import typer

from cli.connect import call
from cli.output import Json, print_rows
from core0.wire.links import Dhcp, Lacp, Link


def links(ctx: typer.Context, as_json: Json = False) -> None:
    """List the node's own links, each with what it is used for, or why not and what to do.

    Example: zn network links
    """
    found = call(ctx.obj, lambda client: client.links())
    rows = [
        (one.name, one.state, _driver(one), one.pci or "-", next(iter(one.addresses), "-"), one.why)
        for one in found
    ]
    print_rows(found, ("link", "state", "driver", "pci", "address", "why"), rows, "no links", as_json=as_json)


def link(ctx: typer.Context, name: str, as_json: Json = False) -> None:
    """Show one link, by name or PCI address.

    Example: zn network link eth0
    """
    found = call(ctx.obj, lambda client: client.link(name))
    print_rows(found, ("link", ""), _rows(found), as_json=as_json)


def _driver(link: Link) -> str:
    """Its driver, or what the config had made."""
    return link.driver or ("-" if link.kind == "card" else link.kind)


def _rows(link: Link) -> list[tuple[str, object]]:
    place = f"{link.pci} ({link.pci_id})" if link.pci else "-"
    speed = f"{link.speed_mbps} Mbit/s" if link.speed_mbps else "not told"
    return [
        ("name", link.name),
        *([("also", ", ".join(link.other_names))] if link.other_names else []),
        ("state", link.state),
        ("why", link.why),
        ("hardware address", link.mac or "-"),
        ("pci", place),
        ("driver", link.driver or "none"),
        *([("vlan", f"{link.vlan} of {link.parent}")] if link.vlan else []),
        *([("members", ", ".join(link.members) or "none")] if link.kind in ("bond", "bridge") else []),
        *([("lacp", _agreement(link.lacp))] if link.lacp else []),
        *([("member of", link.master)] if link.master else []),
        ("firmware", link.firmware or "not told"),
        ("mtu", link.mtu or "-"),
        ("carrier", f"yes, {speed}" if link.carrier else "no"),
        ("addresses", ", ".join(link.addresses) or "none"),
        ("dhcp", _in_words(link.dhcp) if link.dhcp else "-"),
    ]


def _agreement(lacp: Lacp) -> str:
    return f"partner {lacp.partner or 'none'}, serving: {', '.join(lacp.members) or 'none'}"


def _in_words(dhcp: Dhcp) -> str:
    told = [dhcp.state if dhcp.for_seconds is None else f"{dhcp.state} for {dhcp.for_seconds:.0f} s"]
    told += [f"{dhcp.address} from {dhcp.server}"] if dhcp.address else []
    told += [dhcp.cause] if dhcp.cause else []
    told += [] if dhcp.ends_in_seconds is None else [f"the lease ends in {dhcp.ends_in_seconds:.0f} s"]
    told += [] if dhcp.next_try_in_seconds is None else [f"asks again in {dhcp.next_try_in_seconds:.0f} s"]
    return ", ".join(told)
