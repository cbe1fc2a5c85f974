"""A picture of where the bytes of an image are: a squarified treemap as SVG.

Method: Bruls, Huizing, van Wijk, "Squarified Treemaps" (2000): rows are filled with the next largest item
as long as that makes the worst ratio of sides better.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from image.contents import Contents, Listed

WIDTH, HEIGHT, TITLE = 1200.0, 760.0, 16.0
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#79706e", "#d4a72c")
_MARGIN = 1.5
_LETTER = 7.0
_SMALLEST_LABEL = 36.0


@dataclass(frozen=True)
class Item:
    """Something with a size in bytes."""

    name: str
    size: float


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        """Square pixels."""
        return self.width * self.height

    def within(self, margin: float, top: float = 0.0) -> "Box":
        """The box inside a margin, lower by `top`."""
        width, height = self.width - 2 * margin, self.height - 2 * margin - top
        return Box(self.x + margin, self.y + margin + top, max(width, 0.0), max(height, 0.0))


def squarify(items: Sequence[Item], box: Box) -> list[tuple[Item, Box]]:
    """Divide a box among items in proportion to their sizes; larger ones first, zero sizes left out."""
    rest = sorted((item for item in items if item.size > 0), key=lambda item: (-item.size, item.name))
    total = sum(item.size for item in rest)
    placed: list[tuple[Item, Box]] = []
    scale = box.area / total if total else 0.0
    while rest:
        count = _row_length(rest, min(box.width, box.height), scale)
        row, rest = rest[:count], rest[count:]
        boxes, box = _lay(row, box, scale)
        placed += zip(row, boxes, strict=True)
    return placed


def _row_length(items: Sequence[Item], side: float, scale: float) -> int:
    """How many of the first items make the row whose worst ratio of sides is best."""
    count = 1
    while count < len(items) and _worst(items[: count + 1], side, scale) <= _worst(
        items[:count], side, scale
    ):
        count += 1
    return count


def _worst(row: Sequence[Item], side: float, scale: float) -> float:
    areas = [item.size * scale for item in row]
    total = sum(areas)
    if not total or not side:
        return float("inf")
    return max(side**2 * areas[0] / total**2, total**2 / (side**2 * areas[-1]))


def _lay(row: Sequence[Item], box: Box, scale: float) -> tuple[list[Box], Box]:
    """Place a row along the shorter side; gives its boxes and what is left."""
    total = sum(item.size for item in row) * scale
    upright = box.width >= box.height
    side = box.height if upright else box.width
    depth = total / side if side else 0.0
    boxes, at = [], box.y if upright else box.x
    for item in row:
        length = item.size * scale / depth if depth else 0.0
        boxes.append(Box(box.x, at, depth, length) if upright else Box(at, box.y, length, depth))
        at += length
    if upright:
        return boxes, Box(box.x + depth, box.y, box.width - depth, box.height)
    return boxes, Box(box.x, box.y + depth, box.width, box.height - depth)


def svg(contents: Contents) -> str:
    """The treemap of an image: a coloured box per package, its files inside, bytes before compression."""
    by_origin: dict[str, list[Item]] = {}
    for file in contents.unpacked:
        by_origin.setdefault(_group(file), []).append(Item(f"/{file.path}", file.size))
    groups = [Item(name, sum(item.size for item in items)) for name, items in by_origin.items()]
    whole = Box(0.0, 0.0, WIDTH, HEIGHT)
    shapes = [
        line
        for place, (group, box) in enumerate(squarify(groups, whole))
        for line in _group_shapes(group, by_origin[group.name], box, _COLOURS[place % len(_COLOURS)])
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" '
        'font-family="sans-serif" font-size="11">\n'
        f'<rect width="{WIDTH:.0f}" height="{HEIGHT:.0f}" fill="#fff"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def _group(file: Listed) -> str:
    """Kernel modules stand for themselves, not for the long name of their package."""
    return "kernel modules" if "lib/modules/" in file.path else file.origin


def _group_shapes(group: Item, items: Sequence[Item], box: Box, colour: str) -> Iterable[str]:
    yield _rectangle(box.within(_MARGIN / 2), colour, 0.35, f"{group.name}: {_size(group.size)}")
    titled = box.height > 2 * TITLE
    if titled:
        yield _label(f"{group.name} {_size(group.size)}", box.x + 4, box.y + 12, box.width, bold=True)
    for item, inner in squarify(items, box.within(_MARGIN, TITLE if titled else 0.0)):
        yield _rectangle(inner.within(0.5), colour, 0.85, f"{item.name}: {_size(item.size)}")
        if inner.height > TITLE:
            yield _label(item.name.rsplit("/", 1)[-1], inner.x + 3, inner.y + 12, inner.width, bold=False)


def _rectangle(box: Box, colour: str, opacity: float, title: str) -> str:
    return (
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'fill="{colour}" fill-opacity="{opacity}"><title>{escape(title)}</title></rect>'
    )


def _label(text: str, x: float, y: float, width: float, *, bold: bool) -> str:
    """A text, cut to the width; nothing where too few letters would be left."""
    room = int((width - 8) / _LETTER)
    if width < _SMALLEST_LABEL or room < len(text) // 3:
        return ""
    weight = ' font-weight="bold"' if bold else ""
    shown = text if len(text) <= room else text[: room - 1] + "…"
    return f'<text x="{x:.1f}" y="{y:.1f}"{weight}>{escape(shown)}</text>'


def _size(size: float) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
