"""`amodal demo`: the main job on the drive that comes with the project."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from amodal_ros.cli._progress import bar, stderr

_SAMPLE = "sample_drive"
_FRAMES = 24


def sample_drive() -> Path | None:
    """The bag that comes with the project: in the checkout, or where pip installs it."""
    checkout = Path(__file__).resolve().parents[2] / "data" / _SAMPLE
    installed = Path(sys.prefix) / "share" / "amodal_ros" / _SAMPLE
    for place in (checkout, installed):
        if (place / "metadata.yaml").exists():
            return place
        files = sorted(place.glob("*.mcap"))
        if files:
            return files[0]
    return None


def make_drive(out: Path) -> Path:
    """Render a short drive; a drive that an earlier demo made is used again.

    Raises:
        InputError: this machine cannot render, or `out` cannot be written.
    """
    from amodal_core.synthetic.generate import RunOptions, generate

    if not out.exists():
        stderr.print("no sample drive came with this installation: rendering a short one")
        with bar("rendering") as progress:
            generate(out, RunOptions(frames=_FRAMES, length=_FRAMES, seed=1), progress=progress)
    return out


def command(
    bag: Annotated[
        Path | None, typer.Argument(help="A bag to use instead of the sample drive.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("build/demo"),
) -> None:
    """See it work: masks, tracks, an overlay video and a report of a sample drive.

    For example:

    amodal demo

    amodal demo my_drive.mcap --out build/my_drive
    """
    from amodal_core.models.registry import DEFAULT
    from amodal_core.replay import REPORT, VIDEO
    from amodal_core.replays import ReplayPlan
    from amodal_core.tracking import Tracker
    from amodal_ros.cli._models import make_model
    from amodal_ros.cli.replay import run, summarise

    bag = bag or sample_drive() or make_drive(out.parent / f"{_SAMPLE}.mcap")
    stderr.print(f"replaying [bold]{bag}[/] with the model '{DEFAULT}'")
    records = run(bag, out, ReplayPlan(partial(make_model, DEFAULT, "cpu", None), Tracker))
    summarise(records, out)
    stderr.print(
        f"\nThe video is [bold]{out / VIDEO}[/], the report [bold]{out / REPORT}[/]: "
        "open them in a browser.",
        soft_wrap=True,
    )
