"""`amodal replay`: a bag through the pipeline, offline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from amodal_core.drive.settings import DriveSettings
from amodal_core.errors import InputError
from amodal_core.models.registry import DEFAULT
from amodal_ros.cli._models import Settings, TrackerSettings, make_model
from amodal_ros.cli._options import with_options
from amodal_ros.cli._progress import bar, stderr, warn

if TYPE_CHECKING:
    from amodal_core.replays import ReplayPlan
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
    bags: Annotated[
        list[Path],
        typer.Argument(
            metavar="BAG...",
            help="A rosbag2 folder, or one .mcap or .db3 file; several, or a folder of bags, each "
            "into its own folder in OUT.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the results; old results are replaced.")],
    model: Annotated[str, typer.Option(help="See `amodal models`.")] = DEFAULT,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights (.safetensors).")] = None,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "cpu",
    tracker: Annotated[
        str,
        typer.Option(help="motion, quasi_dense, quasi_dense_sailvos or quasi_dense_published."),
    ] = "motion",
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    video: Annotated[
        bool | None,
        typer.Option(
            "--video/--no-video",
            help="Draw and encode overlay.mp4; when not given, of one bag alone.",
        ),
    ] = None,
    depth: Annotated[
        bool, typer.Option("--depth", help="Write depth images to tracks.mcap, too (large).")
    ] = False,
    track_points: Annotated[
        bool,
        typer.Option("--track-points", help="Write the scans' points on the tracks, coloured."),
    ] = False,
    copy: Annotated[
        bool,
        typer.Option(
            "--copy",
            help="Complete tracks.mcap for Foxglove and Rerun: image, camera_info, scan, "
            "transforms, annotations, scene (config/foxglove.json is a layout).",
        ),
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
    rerun: Annotated[
        Path | None,
        typer.Option(help="Write a recording for Rerun, too (.rrd; the extra `views`)."),
    ] = None,
    view: Annotated[
        bool, typer.Option("--view", help="Open it in Rerun when it is done; OUT/replay.rrd.")
    ] = False,
    settings: Settings = None,
    tracker_settings: TrackerSettings = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Bags at once; one a core when not given.")
    ] = None,
    ray: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Over a Ray cluster (extra `ray`): auto, ray://HOST:10001, or local, a Ray that "
            "is started here.",
        ),
    ] = "",
    *,
    drive: DriveSettings,
) -> None:
    """Replay a bag offline: tracks.mcap, metrics.json, overlay.mp4 and report.html.

    Nothing is dropped, and the same bag gives the same tracks every time. Of several bags those
    that fail are reported and stop no other, all have one report, and the same command goes on
    where it was stopped.

    For example:

    amodal replay build/drive --out build/out

    amodal replay drive.mcap --out out --max-frames 100 --no-video

    amodal replay build/drive --out build/out --tracker-set coast_seconds=5

    amodal replay drive --out out --image /front/image_raw --image /left/image_raw

    amodal replay drives/*.mcap --out build/all --workers 8

    amodal replay build/drive --out build/out --rerun build/drive.rrd
    """
    from amodal_core.bags.reader import is_bag
    from amodal_core.parallel import cores
    from amodal_core.replay import ReplayOptions
    from amodal_core.replays import ReplayPlan
    from amodal_core.settings import parse_rules
    from amodal_core.tracking import make_tracker
    from amodal_core.views import rerun_file

    rules = parse_rules(tracker_settings or [], "--tracker-set")
    several = len(bags) > 1 or bool(ray) or (bags[0].is_dir() and not is_bag(bags[0]))
    if several and (view or rerun is not None):
        option = "--view" if view else "--rerun"
        raise InputError("a recording is of one bag", option, "replay it alone")
    if view:
        rerun_file.check_viewer()
        rerun = rerun or out / rerun_file.RECORDING
    drawn = not several if video is None else video
    options = ReplayOptions(
        max_frames,
        drawn,
        depth,
        track_points,
        points_topic=points_topic,
        odom_topic=odom_topic,
        drive=drive,
        rerun=rerun,
        copy=copy,
    )
    topics = [topic.strip() for text in image_topic or [] for topic in text.split(",")]
    cameras = tuple(topic for topic in topics if topic) or ("",)
    stamp = checkpoint.stat().st_mtime_ns if checkpoint and checkpoint.exists() else None
    decides = {
        "model": [model, device, str(checkpoint), stamp],
        "settings": sorted(settings or []),
        "tracker": [tracker, sorted(tracker_settings or [])],
        "cameras": cameras,
        "options": str(options),
    }
    workers = workers or cores()
    plan = ReplayPlan(
        partial(make_model, model, device, checkpoint, tuple(settings or [])),
        partial(make_tracker, tracker, rules, "--tracker-set"),
        cameras,
        options,
        decides,
        threads=max(1, cores() // workers) if several and not ray else 0,
    )
    if several:
        _run_all(bags, out, plan, workers, ray)
    else:
        summarise(run(bags[0], out, plan), out)
    if rerun is not None:
        typer.echo(rerun)
    if view:
        rerun_file.view(str(rerun))


def run(bag: Path, out: Path, plan: ReplayPlan) -> list[Record]:
    """Replay with a progress bar."""
    from amodal_core.replays import replay_bag

    with bar("replaying", first="preparing the model") as progress:
        return replay_bag(plan, bag, out, progress)


def _run_all(bags: Sequence[Path], out: Path, plan: ReplayPlan, workers: int, ray: str) -> None:
    """Replay many bags; exit code 1 where one failed."""
    from amodal_core.replay import METRICS, REPORT
    from amodal_core.replays import replay_bags

    with bar("replaying", "bags") as progress:
        result = replay_bags(bags, out, plan, workers, ray, progress)
    warn(f"{name} failed: {text}" for name, text in result.failed.items())
    count = len(result.metrics)
    stderr.print(f"{count} of {count + len(result.failed)} bags replayed")
    for name in (REPORT, METRICS):
        typer.echo(out / name)
    if result.failed:
        raise typer.Exit(1)


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
