"""Building a node image: from a lock to a folder with all that a netboot server offers.

Needs no root, runs no maintainer script. The same lock and sources give the same bytes in every output.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from image import base, console, contents, initramfs, manifest, node, outputs, runtime, sbom, sources
from image.base import Base
from image.contents import Contents
from image.fetch import Cache
from image.files import write_folder
from image.lock import Lock
from image.manifest import NodeManifest
from image.node import Identity
from image.report import Report
from image.sources import Request as Request
from image.sources import Sources
from image.tree import Entry, digest

OWN_LEVEL = 12
VERSION = "0.1.0"


@dataclass(frozen=True)
class _Own:
    """Our part of an image, what it says about itself, and the licences of what else is in it."""

    identity: Identity
    tree: Mapping[str, Entry]
    licences: Mapping[str, str]


def build(request: Request, report: Report) -> Path:
    """Build an image; gives the output folder, which was replaced as a whole. Raises ImageError."""
    wanted = manifest.load_kind(request.manifest, NodeManifest)
    lock = sources.load_lock(request.manifest, wanted, request.arch, request.places.root)
    with report.step("fetch"):
        obtained = sources.obtain(wanted, lock, request.places, report)
    with report.step("base"):
        made = base.make(wanted, obtained.lock, request.places.cache, report)
    with report.step("own part"):
        own = _own(request, wanted, obtained.lock, made)
    with report.step("write"):
        write_folder(request.output, _outputs(wanted, obtained, made, own))
    return request.output


def _own(request: Request, wanted: NodeManifest, locked: Lock, made: Base) -> _Own:
    folder = request.manifest.parent
    own = [
        *node.static_files(folder / wanted.static),
        *node.own_sources(request.places.root, wanted.source, wanted.console.source),
        *node.system_call_filters(folder / wanted.seccomp, locked.arch),
    ]
    archives = sources.contents(locked.npm, Cache(request.places.cache))
    pages = console.files(wanted, locked, archives, request.places.root)
    python = runtime.command(made.runtime, locked.arch, f"python{wanted.python.version}")
    entries = [
        *node.compiled(own, made.runtime, locked.arch, wanted.python.version),
        *console.packed(pages, f"{node.ZERONODE}/{wanted.console.source}", python),
    ]
    identity = Identity(VERSION, locked.arch, wanted.name, _build_id(made, entries), locked.epoch)
    base = (there.path for there in made.listing())
    tree = node.own_tree(entries, base, identity, wanted.python.version)
    return _Own(identity, tree, console.licences(locked, archives))


def _build_id(made: Base, entries: Iterable[Entry]) -> str:
    """The build id comes from the content, never from the time."""
    total = hashlib.sha256(made.segment())
    total.update(made.kernel())
    total.update(digest({entry.path: entry for entry in entries}).encode())
    return total.hexdigest()[:16]


def _outputs(wanted: NodeManifest, obtained: Sources, made: Base, own: _Own) -> dict[str, bytes]:
    """Every file of the build folder by name; each of the later ones describes those before."""
    locked, listing = obtained.lock, made.listing()
    added = node.without_folders_of(own.tree, (there.path for there in listing))
    segment = initramfs.segment(added, locked.epoch, OWN_LEVEL, first_inode=len(listing) + 1)
    boot = {
        "vmlinuz": made.kernel(),
        "initramfs": made.segment() + segment,
        "cmdline": f"{wanted.kernel.cmdline}\n".encode(),
        "boot.ipxe": outputs.ipxe_script(wanted.kernel.cmdline),
    }
    files = (*listing, *contents.listed(added))
    described = Contents(
        name=wanted.name,
        arch=locked.arch,
        version=VERSION,
        build_id=own.identity.build_id,
        epoch=locked.epoch,
        outputs={name: contents.output(content) for name, content in boot.items()},
        packages=contents.packages(locked, (*files, *made.storage()), {**made.licences(), **own.licences}),
        files=files,
        storage=made.storage(),
        substituted=obtained.substituted,
    )
    every = {**boot, "contents.json": contents.encode(described), "sbom.spdx.json": sbom.encode(described)}
    return {**every, outputs.SUMS: outputs.checksums(every)}
