"""Which changes bring the node's links from what is seen to what the leases want. Pure."""

from collections.abc import Mapping, Sequence

from core0.links.model import Action, AddAddress, DeleteAddress, Lease, SeenLink, SetUp


def plan(leases: Mapping[int, Lease], seen: Sequence[SeenLink]) -> tuple[Action, ...]:
    """The actions, in order. Planning again after they were applied gives none.

    Args:
        leases: what each link (by index) shall have; a link without one shall have no address.
        seen: the links as they are.
    """
    return tuple(action for link in seen for action in _plan_link(leases.get(link.index), link))


def _plan_link(lease: Lease | None, link: SeenLink) -> list[Action]:
    actions: list[Action] = [] if link.is_up else [SetUp(link)]
    wanted = {lease.address} if lease else set()
    actions += [DeleteAddress(link, address) for address in sorted(link.addresses - wanted)]
    if lease and lease.address not in link.addresses:
        actions.append(AddAddress(link, lease))
    return actions
