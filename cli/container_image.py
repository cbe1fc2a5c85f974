"""`zn container image`: the images that a node has for its containers."""

from pathlib import Path
from typing import Annotated

import typer

from cli.connect import call
from cli.frame import Settings
from cli.operation import Detach, follow
from cli.operator import KEY_FILE
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_json, print_line, print_rows, print_table
from cli.sizes import size
from cli.transfer import load_image
from core0.client.credentials import load_key
from core0.wire.image_store import Collected, NodeImage, NodeImages
from image.errors import ImageError
from image.signing import sign_layout

app = typer.Typer(
    no_args_is_help=True, help="The images that containers are made of.\n\nExample: zn container image ls"
)

Which = Annotated[
    str, typer.Argument(help="A reference that it was pulled by, its digest, or how that begins.")
]


@app.command("ls")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the images of containers.

    Example: zn container image ls
    """
    found = call(ctx.obj, lambda client: client.images())
    rows = [
        (
            _short(one.digest),
            size(one.bytes),
            ", ".join(one.containers) or "-",
            ", ".join(one.references) or "-",
        )
        for one in found.images
    ]
    print_rows(found, ("image", "size", "containers", "references"), rows, "no images", as_json=as_json)


@app.command()
def pull(
    ctx: typer.Context,
    image: Annotated[str, typer.Argument(help="As in a container's spec.")],
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Pull an image, also if the node has one of that name; containers take it when they are made anew.

    Example: zn container image pull http://10.0.2.2:8080/demo:latest
    """
    follow(ctx.obj, lambda client: client.pull_image(image), detach, as_json)


@app.command()
def load(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A tar of an OCI layout; '-' is the input.")],
    name: Annotated[str, typer.Option(help="What it shall be called; containers name it local:NAME.")],
    image: Annotated[str, typer.Option(help="Which of several, by its name or digest.")] = "",
    as_json: Json = False,
) -> None:
    """Give an image to the node as a tar, as `skopeo copy … oci-archive:FILE` and `docker save` of today write it.

    Example: zn container image load demo.tar --name demo:1
    """
    if str(file) != "-" and not file.is_file():
        raise Failure(f"cannot read {file}: there is no such file", ExitCode.USAGE)
    loaded = load_image(ctx.obj, name, image, file)
    if as_json:
        print_json(loaded)
        return
    print_line(f"local:{name} is here: {loaded.digest}")


@app.command()
def inspect(ctx: typer.Context, image: Which, as_json: Json = False) -> None:
    """Show one image.

    Example: zn container image inspect http://10.0.2.2:8080/demo:latest
    """
    found = _find(ctx.obj, image)
    if as_json:
        print_json(found)
        return
    rows = [
        ("digest", found.digest),
        ("references", ", ".join(found.references) or "-"),
        ("size", size(found.bytes)),
        ("containers", ", ".join(found.containers) or "-"),
        ("entrypoint", " ".join(found.entrypoint) or "-"),
        ("command", " ".join(found.command) or "-"),
        ("user", found.user or "root"),
        ("folder", found.folder or "/"),
    ]
    rows += [("layer", f"{one.diff_id} {size(one.bytes)}, of {one.images} images") for one in found.layers]
    print_table(("image", ""), rows)


@app.command()
def rm(ctx: typer.Context, image: Which, as_json: Json = False) -> None:
    """Remove an image that no container has.

    Example: zn container image rm sha256:2c26b46b
    """
    digest = _find(ctx.obj, image).digest
    _print(call(ctx.obj, lambda client: client.delete_image(digest)), as_json)


@app.command()
def sign(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="An OCI layout.", exists=True, file_okay=False)],
    repository: Annotated[
        str,
        typer.Option("--as", help="Where it may be had by that signature; anywhere if this is not given."),
    ] = "",
) -> None:
    """Sign the images of an OCI layout with the operator's key; the signatures lie in the layout, as cosign's do.

    Example: zn container image sign oci/demo --as registry.example.com/team/demo
    """
    key = load_key(ctx.obj.contexts.parent / KEY_FILE)
    try:
        digests = sign_layout(folder, key.sign, repository)
    except ImageError as error:
        raise Failure(str(error), ExitCode.USAGE) from None
    for digest in digests:
        print_line(f"signed {digest}{f' as {repository}' if repository else ''}")


@app.command()
def gc(ctx: typer.Context, as_json: Json = False) -> None:
    """Remove every image that no container has.

    Example: zn container image gc
    """
    _print(call(ctx.obj, lambda client: client.collect_images()), as_json)


def _print(removed: Collected, as_json: bool) -> None:
    if as_json:
        print_json(removed)
        return
    print_line(f"removed {len(removed.images)} images; {size(removed.bytes)} are free by that")


def _find(settings: Settings, which: str) -> NodeImage:
    """The image that somebody means. Raises Failure: none, or several."""
    found = _meant(call(settings, lambda client: client.images()), which)
    if len(found) != 1:
        why = "the node has none" if not found else f"{len(found)} of them begin so"
        said = f"cannot find image {which}: {why}; see 'zn container image ls'"
        raise Failure(said, ExitCode.REFUSED)
    return found[0]


def _meant(images: NodeImages, which: str) -> list[NodeImage]:
    named = [one for one in images.images if which in one.references]
    short = which.removeprefix("sha256:")
    return named or [one for one in images.images if short and one.digest[len("sha256:") :].startswith(short)]


def _short(digest: str) -> str:
    return digest[: len("sha256:") + 12]
