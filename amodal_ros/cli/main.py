"""Entry point of the `amodal` command: collects the subcommands and reports errors in one line."""

from __future__ import annotations

import sys
from importlib import import_module

import typer
from rich.console import Console

from amodal_core.errors import InputError

app = typer.Typer(
    name="amodal",
    help="Amodal instance segmentation for vehicles: what is seen, what is hidden, and by what.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Modules of amodal_ros.cli, in the order of `amodal --help`: one with an `app` is a group of
# commands, any other holds one function `command`.
COMMANDS = (
    "demo",
    "convert",
    "data",
    "synth",
    "train",
    "codebook",
    "infer",
    "export",
    "replay",
    "eval",
    "launch",
    "doctor",
    "models",
)

for _name in COMMANDS:
    _module = import_module(f"amodal_ros.cli.{_name}")
    if hasattr(_module, "app"):
        app.add_typer(_module.app, name=_name)
    else:
        app.command(_name)(_module.command)


def main() -> None:
    """Run the command line; bad input ends with one line on stderr and exit code 2."""
    try:
        app()
    except InputError as error:
        Console(stderr=True).print(f"[red bold]error[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
