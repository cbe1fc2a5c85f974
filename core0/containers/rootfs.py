"""A container's root: the image's layers, id-mapped and read-only, under a small writable layer in memory."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from core0.linux import mounts, tools

_MODULES = ("overlay", "erofs")
_FLAGS = mounts.ATTR_NOSUID | mounts.ATTR_NODEV


def load_modules() -> None:
    """What mounting a root needs of the kernel."""
    tools.load_modules(_MODULES)


class Root(NamedTuple):
    """A container's root: its detached mount, and a folder by which its writable layer is reached again.

    That is the overlay's own one (workdir): only the node's root may enter it, so who holds it can do nothing by it.
    """

    mount: int
    work: int


@contextlib.contextmanager
def build(folder: Path, layers: Sequence[int], users: int, first: int, size_mib: int) -> Iterator[Root]:
    """An overlay of the layers with a writable layer of limited size; its descriptors are closed in the end.

    The overlay keeps its own references: the places it was put together at are empty again in the end. Nobody has to
    wait for that who has the overlay.

    Args:
        folder: the container's own folder, for the time of the block.
        layers: detached mounts, lowest first; the caller's.
        users: the container's user namespace, by which the layers' owners are mapped.
        first: the node's id of the container's root, who owns the writable layer.
        size_mib: the writable layer's size.

    Raises:
        OSError: naming the mount that failed.
    """
    with contextlib.ExitStack() as undo:
        place = _writable(folder, size_mib, undo)
        lower = [_place_layer(place, number, layer, users) for number, layer in enumerate(layers)]
        upper, work = place / "upper", place / "work"
        upper.mkdir(mode=0o755)
        work.mkdir(mode=0o700)
        os.chown(upper, first, first)
        held = os.open(work, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(os.close, held)
        options: dict[str, str | None] = {
            "lowerdir": ":".join(reversed(lower)),
            "upperdir": str(upper),
            "workdir": str(work),
            "index": "off",
            "metacopy": "off",
            "redirect_dir": "nofollow",
            "xino": "off",
            "volatile": None,
        }
        mount = mounts.create("overlay", options, _FLAGS)
        undo.callback(os.close, mount)
        yield Root(mount, held)


def build_lower(folder: Path, layers: Sequence[int], users: int) -> int:
    """The layers alone, as overlayfs shows them; returns their detached mount. Arguments and errors as of `build`."""
    if len(layers) == 1:
        mounts.set_attributes(layers[0], mounts.ATTR_IDMAP, user_namespace=users)
        return os.dup(layers[0])
    with contextlib.ExitStack() as undo:
        place = _writable(folder, 1, undo)
        lower = [_place_layer(place, number, layer, users) for number, layer in enumerate(layers)]
        options: dict[str, str | None] = {"lowerdir": ":".join(reversed(lower)), "xino": "off"}
        return mounts.create("overlay", options, _FLAGS | mounts.ATTR_RDONLY)


def _place_layer(place: Path, number: int, layer: int, users: int) -> str:
    """Overlay takes layers by path only (before Linux 6.15 they must lie in the mount namespace)."""
    own = place / f"layer{number}"
    own.mkdir()
    mounts.set_attributes(layer, mounts.ATTR_IDMAP, user_namespace=users)
    mounts.attach(layer, str(own))
    return str(own)


def _writable(folder: Path, size_mib: int, undo: contextlib.ExitStack) -> Path:
    """A tmpfs for the writable layer, so that one container cannot fill another's; `undo` empties the place again.

    The image's layers are put below it: one unmount takes all of them along, and each waits for all processors to
    have noticed (kernel: fs/namespace.c, namespace_unlock), a millisecond or two.
    """
    place = folder / "writable"
    place.mkdir(exist_ok=True)
    options: dict[str, str | None] = {"size": f"{size_mib}m", "mode": "0755"}
    descriptor = mounts.create("tmpfs", options, _FLAGS)
    try:
        mounts.attach(descriptor, str(place))
    finally:
        os.close(descriptor)
    undo.callback(_clear, place)
    return place


def _clear(place: Path) -> None:
    mounts.unmount(str(place))
    place.rmdir()
