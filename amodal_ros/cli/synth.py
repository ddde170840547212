"""`amodal synth`: synthetic drives with exact truth."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from amodal_core.errors import InputError
from amodal_ros.cli._progress import bar, stderr


class Format(str, Enum):
    """What is written."""

    bag = "bag"
    kins = "kins"
    asd = "asd"
    kitti = "kitti"


class Camera(str, Enum):
    """Whose camera."""

    kitti = "kitti"
    asd = "asd"


class Street(str, Enum):
    """Kind of street."""

    urban = "urban"
    residential = "residential"
    arterial = "arterial"


class Weather(str, Enum):
    """Light of the day."""

    sun = "sun"
    overcast = "overcast"
    dusk = "dusk"


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(v) for v in text.lower().split("x"))
    except ValueError:
        raise InputError(f"'{text}' is no size", "--size", "write it like 621x188") from None
    return width, height


def command(
    out: Annotated[Path, typer.Argument(help="New folder (or a new .mcap file for one bag).")],
    frames: Annotated[int, typer.Option(min=1, help="Frames in all.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same bytes.")] = 0,
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.bag,
    size: Annotated[
        str | None, typer.Option(help="WxH in pixels, such as 621x188; else the camera's own.")
    ] = None,
    camera: Annotated[
        Camera, typer.Option(help="KITTI (1242x375, f 721.5) or AmodalSynthDrive (1920x1080).")
    ] = Camera.kitti,
    focal: Annotated[
        float | None,
        typer.Option(min=1.0, help="Focal length in pixels, instead of the camera's own."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one a core when not given.")
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Frames of a sequence (10 a second).")] = 50,
    street: Annotated[Street | None, typer.Option(help="Only this kind of street.")] = None,
    weather: Annotated[Weather | None, typer.Option(help="Only this light.")] = None,
    randomise: Annotated[
        bool,
        typer.Option("--randomise", help="Domain randomisation: colours beyond what streets show."),
    ] = False,
    structures: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of the sequences with bridges, gantries, shelters, containers and walls.",
        ),
    ] = 0.0,
    riders: Annotated[
        float, typer.Option(min=0, max=20, help="Times as many cyclists as streets have.")
    ] = 1.0,
    rolling: Annotated[
        bool,
        typer.Option("--rolling", help="The LiDAR turns while the car drives (rolling shutter)."),
    ] = False,
    columns: Annotated[
        int, typer.Option(min=16, help="LiDAR measurements of a beam in a turn.")
    ] = 2048,
    fov: Annotated[
        float,
        typer.Option(min=10, max=360, help="Degrees ahead that the LiDAR's points are kept in."),
    ] = 360.0,
    grain: Annotated[
        float,
        typer.Option(min=0.0005, max=0.1, help="Metres that LiDAR coordinates are rounded to."),
    ] = 0.001,
    noise: Annotated[float, typer.Option(min=0.0, help="Factor on the camera's noise.")] = 1.0,
) -> None:
    """Make drives through procedural streets with exact truth: masks, depth, boxes, identities.

    A killed run continues when the same command is given again.

    For example:

    amodal synth build/drive --frames 50 --seed 1

    amodal synth build/train --frames 10000 --format kins --workers 16
    """
    from amodal_core.synthetic.camera import CameraOptions
    from amodal_core.synthetic.generate import RunOptions, generate
    from amodal_core.synthetic.lidar import LidarOptions

    options = RunOptions(
        frames=frames,
        seed=seed,
        format=format.value,
        camera=camera.value,
        size=_size(size) if size else None,
        focal=focal,
        length=length,
        street=street.value if street else None,
        weather=weather.value if weather else None,
        randomise=randomise,
        structures=structures,
        riders=riders,
        lens=CameraOptions(noise=noise),
        lidar=LidarOptions(columns=columns, fov=fov, grain=grain, rolling=rolling),
    )
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with bar("rendering") as progress:
        statistics = generate(out, options, workers or cores, progress)
    table = Table(
        "hidden",
        "instances",
        "share",
        title=f"{statistics.frames} frames, {statistics.tracks} tracks",
    )
    names = ("under 5 %", "5-25 %", "25-50 %", "50-75 %", "over 75 %", "wholly")
    for name, count in zip(names, statistics.bins, strict=True):
        table.add_row(name, str(count), f"{count / max(statistics.instances, 1):.1%}")
    stderr.print(table)
    stderr.print(
        f"over 25 %: {statistics.share_over(0.25):.1%}, "
        f"over 50 %: {statistics.share_over(0.5):.1%}; "
        f"{statistics.reappearances} full occlusions followed by reappearance"
    )
    stderr.print(f"wrote {out}", markup=False, soft_wrap=True)
