"""What `zn container import` does before there is a container: the report, and the root as an image."""

from collections.abc import Iterable
from pathlib import Path

from cli.bundle import Bundle, Line
from cli.outcome import ExitCode, Failure
from cli.output import print_table
from image.rootfs import pack_folder


def print_report(lines: Iterable[Line]) -> None:
    """A line for each field of a config."""
    print_table(("field", "verdict", "how or why"), [(one.field, one.verdict, one.why) for one in lines])


def refuse_losses(bundle: Bundle) -> None:
    """Raise Failure if something of a config is not honoured."""
    if bundle.lost:
        fields = ", ".join(dict.fromkeys(one.field for one in bundle.lost))
        raise Failure(
            f"cannot import it strictly: not honoured are {fields}; change the config, or leave --strict out",
            ExitCode.REFUSED,
        )


def pack_root(bundle: Bundle, folder: Path, output: Path, architecture: str) -> None:
    """Pack the root of a bundle as an image. Raises Failure: it is none of the bundle's own folders."""
    rootfs = (folder / bundle.root).resolve()
    remedy = "pack it yourself, and give --image only"
    if not bundle.root or not rootfs.is_relative_to(folder.resolve()) or rootfs == folder.resolve():
        raise Failure(
            f"cannot pack {bundle.root!r}: it is no folder inside of the bundle; {remedy}",
            ExitCode.USAGE,
        )
    if not rootfs.is_dir():
        raise Failure(f"cannot pack {rootfs}: there is no such folder", ExitCode.USAGE)
    pack_folder(rootfs, output, architecture, {})


def volumes_of(texts: Iterable[str]) -> dict[str, str]:
    """Volumes by the folders that they stand for, as FOLDER=VOLUME. Raises Failure (usage)."""
    found = {}
    for text in texts:
        source, equals, volume = text.rpartition("=")
        if not (source and equals and volume):
            raise Failure(f"cannot use {text!r}: it is not FOLDER=VOLUME", ExitCode.USAGE)
        found[source] = volume
    return found
