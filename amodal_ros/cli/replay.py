"""`amodal replay`: a bag through the pipeline, offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        str,
        typer.Option(help="motion, quasi_dense, quasi_dense_sailvos or quasi_dense_published."),
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
    image_topic: Annotated[
        list[str] | None,
        typer.Option(
            "--image-topic",
            "--image",
            help="Where the bag has several cameras; repeatable, with commas, or all: each camera "
            "has its own tracks.",
        ),
    ] = None,
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

    amodal replay drive --out out --image /front/image_raw --image /left/image_raw
    """
    from amodal_core.replay import ReplayOptions
    from amodal_core.settings import parse_rules
    from amodal_core.tracking import make_tracker

    topics = _cameras(bag, image_topic or [])
    rules = parse_rules(tracker_settings or [], "--tracker-set")
    records = run(
        bag,
        out,
        make_model(model, device, checkpoint, settings or []),
        ReplayOptions(max_frames, video, depth, track_points, "", points_topic, odom_topic, drive),
        {topic: make_tracker(tracker, rules, "--tracker-set") for topic in topics},
    )
    summarise(records, out)


def _cameras(bag: Path, given: Sequence[str]) -> list[str]:
    """The image topics that are named; "" finds the only one."""
    from amodal_core.bags.reader import BagReader
    from amodal_core.drive.cameras import camera_names
    from amodal_core.drive.topics import cameras_in

    topics = [topic.strip() for text in given for topic in text.split(",") if topic.strip()]
    if topics != ["all"]:
        camera_names(topics or [""])  # refuses a camera that is named twice
        return topics or [""]
    with BagReader(bag) as opened:
        return cameras_in(opened) or [""]


def run(
    bag: Path,
    out: Path,
    model: Model,
    options: ReplayOptions,
    trackers: Mapping[str, CoastingTracker | None],
) -> list[Record]:
    """Replay with a progress bar; `trackers` are of the cameras, by image topic."""
    from amodal_core.models.completing import stream_of
    from amodal_core.pipeline import Pipeline
    from amodal_core.replay import replay_cameras

    models = [model, *(stream_of(model) for _ in list(trackers)[1:])]
    pipelines = {
        topic: Pipeline(one, tracker)
        for one, (topic, tracker) in zip(models, trackers.items(), strict=True)
    }
    with bar("replaying") as progress:
        return replay_cameras(bag, out, pipelines, options, progress)


def summarise(records: Sequence[Record], out: Path) -> None:
    """Print headline figures of each camera and where the results lie."""
    from amodal_core import replay as core

    for record in records:
        _print(record)
    videos = sorted(path.name for path in out.glob("overlay*.mp4"))
    for name in (core.REPORT, *videos, core.TRACKS_BAG, core.METRICS):
        typer.echo(out / name)


def _print(record: Record) -> None:
    from amodal_core.pipeline import STAGES
    from amodal_core.views.report.record import TOTAL

    warn(record.warnings)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    if record.camera:
        table.add_row("camera", record.camera)
    table.add_row("frames", f"{record.frames}, {record.duration:.1f} s of driving")
    frames = max(record.frames, 1)
    table.add_row("tracks", f"{len(record.track_ids)}, {len(record.rows) / frames:.1f} a frame")
    table.add_row("speed", f"{record.fps:.1f} frames a second")
    for stage in (*STAGES, TOTAL):
        p = record.percentiles().get(stage)
        if p:
            table.add_row(stage, f"p50 {p['p50_ms']:.1f} ms, p95 {p['p95_ms']:.1f} ms")
    for tile in record.headlines:
        table.add_row(tile.label, f"{tile.value} %, {tile.says}" if tile.value != "-" else "-")
    stderr.print(table)
    stderr.print(record.summary, soft_wrap=True)
