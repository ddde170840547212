"""`amodal demo`: the main job on the drive that comes with the project."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from amodal_core.errors import InputError
from amodal_core.replay import REPORT, VIDEO, ReplayOptions
from amodal_ros.cli._progress import stderr
from amodal_ros.cli.replay import make_model, run, summarise

_SAMPLE = "sample_drive"


def sample_drive() -> Path:
    """The bag that comes with the project: in the checkout, or where pip installs it.

    Raises:
        InputError: it is in neither place.
    """
    checkout = Path(__file__).resolve().parents[2] / "data" / _SAMPLE
    installed = Path(sys.prefix) / "share" / "amodal_ros" / _SAMPLE
    for place in (checkout, installed):
        bags = [place, *sorted(place.glob("*.mcap"))]
        for bag in bags:
            if (bag / "metadata.yaml").exists() or bag.suffix == ".mcap":
                return bag
    raise InputError("the sample drive is missing", str(checkout), "name a bag: amodal demo BAG")


def command(
    bag: Annotated[
        Path | None, typer.Argument(help="A bag to use instead of the sample drive.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("build/demo"),
) -> None:
    """See it work: masks, tracks, an overlay video and a report of a sample drive.

    [bold]Examples[/]

    amodal demo

    amodal demo my_drive.mcap --out build/my_drive
    """
    bag = bag or sample_drive()
    stderr.print(f"replaying [bold]{bag}[/] with the geometric model, which needs no weights")
    record = run(bag, out, make_model("geometric", "cpu", None), ReplayOptions())
    summarise(record, out, video=True)
    stderr.print(
        f"\nThe video is [bold]{out / VIDEO}[/], the report [bold]{out / REPORT}[/]: "
        "open them in a browser.",
        soft_wrap=True,
    )
