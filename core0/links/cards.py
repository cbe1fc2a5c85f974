"""Which network card a selector means. Pure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from core0.links.model import SeenLink

if TYPE_CHECKING:
    from core0.wire.link_config import LinkSelector


def fitting(selector: "LinkSelector", landscape: Iterable[SeenLink]) -> tuple[SeenLink, ...]:
    """The cards that have all that the selector says."""
    return tuple(link for link in landscape if link.is_card and _fits(selector, link))


def _fits(selector: "LinkSelector", link: SeenLink) -> bool:
    return (
        selector.mac in (None, link.hardware)
        and selector.driver in (None, link.driver)
        and selector.path in (None, link.path)
    )
