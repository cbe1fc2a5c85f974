"""The frame of `zn`: its nouns and verbs, each imported only when used, and the options before them.

A module of `cli/` offers its Typer `app`; the table here mounts it. `zn --help` and the shell's completion
read only the table, so they stay fast however heavy the modules get.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from cli.context import default_path


@dataclass(frozen=True)
class Mount:
    """A noun or verb: the module that has its application, one line for the help, the application's name there."""

    module: str
    help: str
    app: str = "app"


MOUNTS = MappingProxyType(
    {
        "up": Mount("cli.up", "From source to a running container: build, serve, boot, deploy."),
        "down": Mount("cli.down", "Stop everything that `zn up` started."),
        "image": Mount("cli.image", "Build the images that nodes boot."),
        "vm": Mount("cli.vm", "Run machines under QEMU."),
        "node": Mount("cli.node", "See and steer a node."),
        "container": Mount("cli.container", "Manage the containers of a node."),
        "secret": Mount("cli.secret", "Give containers of a node what only they shall know."),
        "config": Mount("cli.config", "Check, sign, apply and show the config of a node."),
        "disk": Mount("cli.disk", "See, claim and adopt the disks of a node."),
        "pool": Mount("cli.pool", "Make and see the pools of a node."),
        "volume": Mount("cli.volume", "Make, copy and see the volumes of a node."),
        "network": Mount(
            "cli.network", "See the links of a node; make and see the networks of its containers."
        ),
        "operation": Mount("cli.operation", "Follow the long work of a node."),
        "process": Mount("cli.process", "Manage the processes inside a container."),
        "exec": Mount("cli.process", "Run a command inside a container.", "exec_app"),
        "attach": Mount("cli.terminal", "Attach to a process's terminal, or to a session.", "attach_app"),
        "logs": Mount("cli.logs", "Print what the processes of a container wrote."),
        "file": Mount("cli.files", "See and change the files of a container."),
        "cp": Mount("cli.files", "Copy files into a container, and out of one.", "cp_app"),
        "bench": Mount("cli.bench", "Measure: medians of at least five, ratios within one run."),
        "test": Mount("cli.testing", "Run every test, the QEMU ones included."),
        "check": Mount("cli.check", "Format, lint, types, import rules and the fast tests."),
    }
)


_COMPLETION = ("install_completion", "show_completion")


@dataclass(frozen=True)
class Settings:
    """What was given before the noun; commands find it as `ctx.obj`.

    Attributes:
        contexts: the contexts file.
        context: the chosen context's name, None for the file's current one.
    """

    contexts: Path
    context: str | None


class LazyGroup(TyperGroup):
    """A group whose commands are modules that are not imported before one of them runs."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Help and completion need names and one line each: these stand in for the real commands.
        self.commands = {
            name: TyperCommand(name, help=mount.help, callback=None) for name, mount in MOUNTS.items()
        }

    def list_commands(self, ctx: Any) -> list[str]:
        """The nouns and verbs in the order of the table."""
        return list(MOUNTS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command behind the first word, imported now."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else command, rest


def load(name: str) -> Any:
    """The command of a noun or verb, from its module."""
    mount = MOUNTS[name]
    command = typer.main.get_command(getattr(importlib.import_module(mount.module), mount.app))
    command.name = name
    # the frame offers completion once, for all of them
    command.params = [option for option in command.params if option.name not in _COMPLETION]
    return command


app = typer.Typer(
    cls=LazyGroup,
    name="zn",
    help="Build, serve, boot and operate Zeronode.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def settings(
    ctx: typer.Context,
    contexts: Annotated[
        Path | None,
        typer.Option(help="The contexts file.", show_default="$XDG_CONFIG_HOME/zeronode/contexts.toml"),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="The context to use instead of the file's current one.")
    ] = None,
) -> None:
    """Keep what was given before the noun."""
    ctx.obj = Settings(contexts or default_path(), context)
