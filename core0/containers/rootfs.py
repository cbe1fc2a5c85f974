"""A container's root: the image's layers, id-mapped and read-only, under a small writable layer in memory."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from core0.linux import mounts, tools

_MODULES = ("overlay", "erofs")
_FLAGS = mounts.ATTR_NOSUID | mounts.ATTR_NODEV


def load_modules() -> None:
    """What mounting a root needs of the kernel."""
    tools.load_modules(_MODULES)


def build(folder: Path, layers: Sequence[int], users: int, first: int, size_mib: int) -> int:
    """An overlay of the layers with a writable layer of limited size; returns its detached mount.

    The overlay keeps its own references: the places it was put together at are empty again afterwards.

    Args:
        folder: the container's own folder, for the time of the call.
        layers: detached mounts, lowest first; closed here.
        users: the container's user namespace, by which the layers' owners are mapped.
        first: the node's id of the container's root, who owns the writable layer.
        size_mib: the writable layer's size.

    Raises:
        OSError: naming the mount that failed.
    """
    with contextlib.ExitStack() as undo:
        for layer in layers:
            undo.callback(os.close, layer)
        lower = [_place_layer(folder, number, layer, users, undo) for number, layer in enumerate(layers)]
        upper, work = _writable(folder, first, size_mib, undo)
        options: dict[str, str | None] = {
            "lowerdir": ":".join(reversed(lower)),
            "upperdir": upper,
            "workdir": work,
            "index": "off",
            "metacopy": "off",
            "redirect_dir": "nofollow",
            "xino": "off",
            "volatile": None,
        }
        return mounts.create("overlay", options, _FLAGS)


def _place_layer(folder: Path, number: int, layer: int, users: int, undo: contextlib.ExitStack) -> str:
    """Overlay takes layers by path only (before Linux 6.15 they must lie in the mount namespace)."""
    place = folder / f"layer{number}"
    place.mkdir(exist_ok=True)
    mounts.set_attributes(layer, mounts.ATTR_IDMAP, user_namespace=users)
    mounts.attach(layer, str(place))
    undo.callback(_clear, place)
    return str(place)


def _writable(folder: Path, first: int, size_mib: int, undo: contextlib.ExitStack) -> tuple[str, str]:
    """The writable layer: a tmpfs of its own, so that one container cannot fill another's."""
    place = folder / "writable"
    place.mkdir(exist_ok=True)
    options: dict[str, str | None] = {"size": f"{size_mib}m", "mode": "0755"}
    descriptor = mounts.create("tmpfs", options, _FLAGS)
    try:
        mounts.attach(descriptor, str(place))
    finally:
        os.close(descriptor)
    undo.callback(_clear, place)
    upper, work = place / "upper", place / "work"
    upper.mkdir(mode=0o755)
    work.mkdir(mode=0o700)
    os.chown(upper, first, first)
    return str(upper), str(work)


def _clear(place: Path) -> None:
    mounts.unmount(str(place))
    place.rmdir()
