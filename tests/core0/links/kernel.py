"""A model of the kernel's links, as far as the plan relies on what the kernel does by itself."""

from msgspec.structs import replace

from core0.links.model import (
    Action,
    AddRoute,
    AddRule,
    Bond,
    Create,
    DeleteRoute,
    DeleteRule,
    Rule,
    SeenLink,
    SetBond,
    SetDown,
    SetIpv6,
    SetMaster,
    SetMtu,
)
from core0.linux.link_actions import AddAddress, DeleteAddress, DeleteLink, SetUp


class Kernel:
    """Links by name; an action that the kernel would refuse raises AssertionError."""

    def __init__(self, links: tuple[SeenLink, ...]) -> None:
        self.links = {link.name: link for link in links}
        self.touched: set[str] = set()
        self.rules: frozenset[Rule] = frozenset()
        # With which MTU members joined their bonds: the kernel gives it back (bond_main.c, original_mtu).
        self.joined_with = {
            link.name: link.original_mtu or 1500
            for link in links
            if link.master and self.links[link.master].kind == "bond"
        }

    def landscape(self) -> tuple[SeenLink, ...]:
        """Every link."""
        return tuple(self.links.values())

    def set(self, name: str, **changes: object) -> None:
        """Change a link."""
        self.links[name] = replace(self.links[name], **changes)

    def apply(self, actions: tuple[Action, ...]) -> None:
        """Carry out all of them."""
        for action in actions:
            self.touched.add(action.link)
            self.carry_out(action)

    def carry_out(self, action: Action) -> None:
        """Carry out one."""
        if isinstance(action, AddRule | DeleteRule):
            assert (action.rule in self.rules) == isinstance(action, DeleteRule), action
            self.rules ^= {action.rule}
            return
        link = self.links.get(action.link)
        assert isinstance(action, Create) == (link is None), action
        match action:
            case Create():
                self.create(action)
            case DeleteLink(name):
                self.delete(name)
            case SetUp(name):
                self.up(name)
            case SetDown(name):
                self.down(name)
            case DeleteAddress(name, address):
                self.delete_address(name, address)
            case DeleteRoute(name, route):
                self.set(name, routes=self.links[name].routes - {route})
            case _:
                self.change(action, self.links[action.link])

    def change(self, action: Action, link: SeenLink) -> None:
        """Set or add something."""
        match action:
            case SetMaster(name, master, is_bond):
                self.release(name)
                if master:
                    self.join(name, master, is_bond)
            case SetBond(name, bond):
                assert link.bond, action
                assert not bond.primary or self.links[bond.primary].master == name, action
                self.set(name, bond=Bond(link.bond.mode, bond.miimon, bond.primary))
            case SetMtu(name, mtu, is_card, original):
                self.set_mtu(name, mtu)
                if is_card:
                    self.set(name, original_mtu=original)
            case SetIpv6(name, on):
                self.set_ipv6(name, on)
            case AddAddress(name, address):
                assert ":" not in address or link.ipv6, action
                self.set(name, addresses=link.addresses | {address})
            case AddRoute(name, route):
                assert link.is_up, action
                assert ":" not in route.to or link.ipv6, action
                self.set(name, routes=link.routes | {route})

    def set_ipv6(self, name: str, on: bool) -> None:
        """Without it there are no addresses and routes of it; where there is none it cannot be set on."""
        link = self.links[name]
        if link.ipv6 is None:
            assert not on, name
            return
        kept = frozenset(address for address in link.addresses if on or ":" not in address)
        routes = frozenset(route for route in link.routes if on or ":" not in route.to)
        self.set(name, ipv6=on, addresses=kept, routes=routes)

    def create(self, action: Create) -> None:
        """A new link; a VLAN has the MTU of its link."""
        wanted = action.wanted
        mtu = self.links[wanted.parent].mtu if wanted.parent else 1500
        bond = replace(wanted.bond, primary="") if wanted.bond else None
        self.links[action.link] = SeenLink(
            1000 + len(self.touched), action.link, "", False, False, frozenset(), wanted.kind, ours=True,
            mtu=mtu, parent=wanted.parent, vlan=wanted.vlan, bond=bond, ipv6=True if mtu >= 1280 else None,
        )  # fmt: skip

    def delete(self, name: str) -> None:
        """A link goes, with the VLANs on it, and lets its members go."""
        for other in self.landscape():
            if other.name in self.links and other.parent == name:
                assert not other.ours, f"{other.name} had to be deleted before {name}"
                self.delete(other.name)
            elif other.master == name:
                self.release(other.name)
        del self.links[name]

    def release(self, name: str) -> None:
        """A bond's former member is down, with the MTU of before; and the bond forgets that it preferred it."""
        master = self.links[name].master
        if master and self.links[master].kind == "bond":
            self.down(name)
            bond = self.links[master].bond
            if bond and bond.primary == name:
                self.set(master, bond=replace(bond, primary=""))
        self.set(name, master="")
        if name in self.joined_with:
            self.set_mtu(name, self.joined_with.pop(name))

    def join(self, name: str, master: str, is_bond: bool) -> None:
        """A bond sets its members up and gives them its MTU."""
        assert (self.links[master].kind == "bond") == is_bond
        if is_bond:
            self.down(name)
            self.joined_with[name] = self.links[name].mtu
            self.set_mtu(name, self.links[master].mtu)
            self.up(name)
        self.set(name, master=master)

    def up(self, name: str) -> None:
        """VLANs follow."""
        self.set(name, is_up=True)
        for other in self.landscape():
            if other.parent == name:
                self.up(other.name)

    def down(self, name: str) -> None:
        """IPv6 addresses and all routes are lost; VLANs follow."""
        kept = frozenset(address for address in self.links[name].addresses if ":" not in address)
        self.set(name, is_up=False, addresses=kept, routes=frozenset())
        for other in self.landscape():
            if other.parent == name:
                self.down(other.name)

    def set_mtu(self, name: str, mtu: int) -> None:
        """VLANs get smaller with their link, a bond's members have its MTU, and a small one ends IPv6."""
        before = self.links[name]
        assert not before.parent or mtu <= self.links[before.parent].mtu, f"{name} above {before.parent}"
        self.set(name, mtu=mtu)
        if mtu < 1280:
            kept = frozenset(address for address in before.addresses if ":" not in address)
            routes = frozenset(route for route in before.routes if ":" not in route.to)
            self.set(name, ipv6=None, addresses=kept, routes=routes)
        elif before.mtu < 1280:
            self.set(name, ipv6=True)
        for other in self.landscape():
            if (other.parent == name and other.mtu > mtu) or (
                other.master == name and before.kind == "bond" and other.mtu != mtu
            ):
                self.set_mtu(other.name, mtu)

    def delete_address(self, name: str, address: str) -> None:
        """The last IPv4 address takes all IPv4 routes, and any one may take the others of its network.

        One that went already, with others or as its link went down, counts as deleted (core0.links.apply).
        """
        link = self.links[name]
        network = address.rpartition(".")[0]
        left = link.addresses - {address}
        if ":" not in address:
            left = frozenset(other for other in left if ":" in other or other.rpartition(".")[0] != network)
        routes = link.routes
        if ":" not in address and not any(":" not in other for other in left):
            routes = frozenset(route for route in routes if ":" in route.to)
        self.set(name, addresses=left, routes=routes)
