"""Layers as the kernel has them: each mounted once, so that containers share what was read of it.

To the kernel each mount of an EROFS file is a file system of its own, with its own pages of every program in it
(fs/erofs/super.c, get_tree_nodev): a hundred containers of an image would have a hundred copies.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from core0.linux import mounts

_ATTRIBUTES = mounts.ATTR_RDONLY | mounts.ATTR_NODEV | mounts.ATTR_NOSUID


def mount_layer(source: str, place: Path) -> None:
    """Mount the EROFS file of a layer at a place, which is made. Raises OSError."""
    descriptor = mounts.create("erofs", {"source": source}, _ATTRIBUTES)
    try:
        place.mkdir(exist_ok=True)
        mounts.attach(descriptor, str(place))
    finally:
        os.close(descriptor)


def unmount_layer(place: Path) -> None:
    """Mount a layer no more, if it is; who has a copy keeps it."""
    if os.path.ismount(place):
        mounts.unmount(str(place))
        place.rmdir()


class MountedLayers:
    """Mounts of layers in memory below a folder, by the names of their files; a new node daemon finds them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def copy(self, file: Path) -> int:
        """A detached mount of a layer's file, which the caller closes. Raises OSError."""
        place = self._folder / file.stem
        if not os.path.ismount(place):
            mount_layer(str(file), place)
        return mounts.clone_tree(str(place))

    def drop(self, files: Iterable[Path]) -> None:
        """Mount some no more; who has a copy keeps it."""
        for file in files:
            unmount_layer(self._folder / file.stem)
