"""`amodal replay`: a bag through the pipeline, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from amodal_core.drive.settings import DriveSettings
from amodal_core.models.registry import DEFAULT
from amodal_ros.cli._models import Settings, TrackerSettings, make_model
from amodal_ros.cli._options import with_options
from amodal_ros.cli._progress import bar, stderr, warn

if TYPE_CHECKING:
    from amodal_core.models.base import Model
    from amodal_core.replay import ReplayOptions
    from amodal_core.tracking import CoastingTracker
    from amodal_core.views.report.record import Record


@with_options(
    "drive",
    DriveSettings,
    "sync_slop",
    "points_offset",
    "auto_points_offset",
    "minimum_range",
    "extrinsics",
    "calibration",
    "rectify",
    "motion",
    "fixed_frame",
)
def command(
    bag: Annotated[Path, typer.Argument(help="A rosbag2 folder, or one .mcap or .db3 file.")],
    out: Annotated[Path, typer.Option(help="Folder of the results; old results are replaced.")],
    model: Annotated[str, typer.Option(help="See `amodal models`.")] = DEFAULT,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights (.safetensors).")] = None,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "cpu",
    tracker: Annotated[
        str, typer.Option(help="One of motion, quasi_dense, quasi_dense_sailvos.")
    ] = "motion",
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    video: Annotated[bool, typer.Option(help="Draw and encode overlay.mp4.")] = True,
    depth: Annotated[
        bool, typer.Option("--depth", help="Write depth images to tracks.mcap, too (large).")
    ] = False,
    track_points: Annotated[
        bool,
        typer.Option("--track-points", help="Write the scans' points on the tracks, coloured."),
    ] = False,
    image_topic: Annotated[str, typer.Option(help="Where the bag has several cameras.")] = "",
    points_topic: Annotated[
        str, typer.Option(help="Where it has several LiDARs; none: the camera alone.")
    ] = "",
    odom_topic: Annotated[str, typer.Option(help="Where it has several odometries.")] = "",
    settings: Settings = None,
    tracker_settings: TrackerSettings = None,
    *,
    drive: DriveSettings,
) -> None:
    """Replay a bag offline: tracks.mcap, metrics.json, overlay.mp4 and report.html.

    Nothing is dropped, and the same bag gives the same tracks every time.

    [bold]Examples[/]

    amodal replay build/drive --out build/out

    amodal replay drive.mcap --out out --max-frames 100 --no-video

    amodal replay build/drive --out build/out --tracker-set coast_seconds=5
    """
    from amodal_core.replay import ReplayOptions
    from amodal_core.settings import parse_rules
    from amodal_core.tracking import make_tracker

    record = run(
        bag,
        out,
        make_model(model, device, checkpoint, settings or []),
        ReplayOptions(
            max_frames, video, depth, track_points, image_topic, points_topic, odom_topic, drive
        ),
        make_tracker(
            tracker, parse_rules(tracker_settings or [], "--tracker-set"), "--tracker-set"
        ),
    )
    summarise(record, out, video)


def run(
    bag: Path,
    out: Path,
    model: Model,
    options: ReplayOptions,
    tracker: CoastingTracker | None = None,
) -> Record:
    """Replay with a progress bar."""
    from amodal_core.pipeline import Pipeline
    from amodal_core.replay import replay

    with bar("replaying") as progress:
        return replay(bag, out, Pipeline(model, tracker), options, progress)


def summarise(record: Record, out: Path, video: bool) -> None:
    """Print headline figures and where the results lie."""
    from amodal_core import replay as core
    from amodal_core.pipeline import STAGES
    from amodal_core.views.report.record import TOTAL

    warn(record.warnings)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_row("frames", f"{record.frames}, {record.duration:.1f} s of driving")
    table.add_row("tracks", f"{len(record.track_ids)}, {sum(record.instances)} instances")
    table.add_row("speed", f"{record.fps:.1f} frames a second")
    for stage in (*STAGES, TOTAL):
        p = record.percentiles().get(stage)
        if p:
            table.add_row(stage, f"p50 {p['p50_ms']:.1f} ms, p95 {p['p95_ms']:.1f} ms")
    for name in ("amodal_AP", "visible_AP", "HOTA", "identity_kept"):
        if name in record.accuracy:
            table.add_row(name.replace("_", " "), f"{record.accuracy[name]:.3f}")
    stderr.print(table)
    for name in (core.REPORT, *([core.VIDEO] if video else []), core.TRACKS_BAG, core.METRICS):
        typer.echo(out / name)
