"""Entry point of the `amodal` command: finds the subcommand and reports errors in one line."""

from __future__ import annotations

import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from amodal_core import __version__
from amodal_core.errors import InputError
from amodal_core.extras import missing_extra
from amodal_core.files import full_disk

_LATER = 0.02  # seconds until a signal that came at a bad moment is heard again

# Modules of amodal_ros.cli, in the order of `amodal --help`, and how the help of each begins: one
# with an `app` is a group of commands, any other holds one function `command`.
COMMANDS = {
    "demo": "See it work: masks, tracks, an overlay video and a report of a sample drive.",
    "convert": "Turn a data set into a rosbag2 bag with the topics that the nodes listen to.",
    "data": "Check, count, show and convert data sets.",
    "synth": "Make drives through procedural streets with exact truth: masks, depth, boxes, "
    "identities.",
    "train": "Train a model; started again, it goes on exactly where it was stopped.",
    "codebook": "Collect the shapes of the training data into the codebook of a VRSP-Net "
    "checkpoint.",
    "infer": "Run a model over a data set and write COCO results, ready for `amodal eval`.",
    "export": "Export a trained model as ONNX and compare it with onnxruntime.",
    "replay": "Replay a bag offline: tracks.mcap, metrics.json, overlay.mp4 and report.html.",
    "eval": "Evaluate: AP by occlusion and size, HOTA, occluded IoU, latency; compare runs.",
    "launch": "Run the nodes as processes over DDS.",
    "doctor": "Check this machine: ROS 2, DDS, GPU, codecs, EGL.",
    "weights": "Make checkpoints of published weights, and of other checkpoints.",
    "models": "List the models by name, or the settings of one: type, default, range and meaning.",
}
# Without panels: at 80 columns those cut names of options, and words, in two.
_SETTINGS: dict[str, Any] = {"rich_markup_mode": None, "add_completion": False}


def load(name: str) -> Any:
    """The click command of a subcommand; its module is imported here, and not before."""
    module = import_module(f"amodal_ros.cli.{name}")
    if hasattr(module, "app"):
        module.app.info.name = name
        module.app.rich_markup_mode, module.app._add_completion = None, False
        group = typer.main.get_group(module.app)
        for command in group.commands.values():
            # The first paragraph as it is; without this it would be cut to one line.
            command.short_help = " ".join((command.help or "").split("\n\n")[0].split())
        return group
    alone = typer.Typer(**_SETTINGS)
    alone.command(name)(module.command)
    return typer.main.get_command(alone)


class Subcommands(TyperGroup):
    """The subcommands; lists them without importing any, imports the one that is to run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {
            name: TyperCommand(name, help=line, short_help=line, rich_markup_mode=None)
            for name, line in COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The subcommand that the arguments name, and its arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load(name), rest


app = typer.Typer(
    name="amodal",
    cls=Subcommands,
    help="Amodal instance segmentation for vehicles: what is seen, what is hidden, and by what.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    **_SETTINGS,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"amodal {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="The version, and end."),
    ] = False,
) -> None:
    """Options of `amodal` itself."""


def main() -> None:
    """Run the command line; bad input ends with one line on stderr and exit code 2.

    A mistake of our own ends with its traceback, a line that asks to report it, and exit code 1.
    SIGTERM, of systemd, slurm or `docker stop`, and SIGHUP end a command as Ctrl-C does: what was
    begun is taken away or kept for the next run.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        # Whoever lets a signal be ignored, such as nohup, has decided.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)
    try:
        app()
    except InputError as error:
        _refuse(error)
    except Exception as error:
        if isinstance(error, SystemError):  # of compiled code that a signal came in between
            _end_as_asked(error)
        line = full_disk(error, Path()) if isinstance(error, OSError) else None
        if line is not None:
            _refuse(line)
        if isinstance(error, ModuleNotFoundError):
            wanted = " ".join(["amodal", *sys.argv[1:2]])
            missing = error if error.name == "cyclonedds" else missing_extra(error, wanted)
            if missing is not None:
                _refuse(missing)
        # Input cannot do this: every reader turns what is wrong in it into an InputError.
        traceback.print_exc()
        text = "this is a mistake of amodal_ros, not yours: report it with the lines above"
        Console(stderr=True).print(f"[red bold]bug[/] {text}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _end(number: int, frame: FrameType | None) -> None:
    if _called_back(frame):
        signal.signal(signal.SIGALRM, lambda _, later: _end(number, later))
        signal.setitimer(signal.ITIMER_REAL, _LATER)
        return
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    # Only once, so that what is cleaned up at the end is not cut short by a second signal.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _called_back(frame: FrameType | None) -> bool:
    """Whether LLVM has called Python, which loses what is raised there, and crashes without it."""
    while frame is not None:
        if "/llvmlite/" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _end_as_asked(error: BaseException | None) -> None:
    """End where a signal lies beneath an error; compiled code within compiled code wraps twice."""
    while error is not None:
        if isinstance(error, SystemExit):
            raise error from None
        if isinstance(error, KeyboardInterrupt):
            sys.exit(128 + signal.SIGINT)
        error = error.__cause__ or error.__context__


def _refuse(error: Exception) -> NoReturn:
    line = f"[red bold]error[/] {escape(str(error))}"
    Console(stderr=True).print(line, highlight=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
