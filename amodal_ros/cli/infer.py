"""`amodal infer`: any model over any data set, or over given tracks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from amodal_core.errors import InputError
from amodal_ros.cli._progress import bar, stderr, warn

if TYPE_CHECKING:
    from amodal_core.datasets.base import Dataset
    from amodal_core.models.base import Model


def command(
    data: Annotated[Path, typer.Argument(help="A data set, its JSON file, or a bag.")],
    out: Annotated[Path, typer.Option(help="Folder of visible.json and amodal.json.")],
    model: Annotated[str, typer.Option(help="See `amodal models`.")] = "geometric",
    checkpoint: Annotated[Path | None, typer.Option(help="Weights (.safetensors).")] = None,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "cpu",
    format: Annotated[str, typer.Option(help="Of the data; recognised when not given.")] = "",
    batch: Annotated[int, typer.Option(min=1, help="Frames that the model gets at once.")] = 4,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read frames.")] = 2,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Follow the objects through each video, hidden or not.")
    ] = False,
    tracker: Annotated[
        str, typer.Option(help="What follows them: motion, quasi_dense or quasi_dense_sailvos.")
    ] = "motion",
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", help="class of the model=class of the data; repeatable."),
    ] = None,
    tracks: Annotated[
        Path | None,
        typer.Option(help="Complete these: a YouTube-VIS or GenVIS result list, visible masks."),
    ] = None,
    detector: Annotated[
        str, typer.Option(help="Whose visible masks are completed, of models that do so.")
    ] = "",
    detector_checkpoint: Annotated[Path | None, typer.Option(help="Its weights.")] = None,
) -> None:
    """Run a model over a data set and write COCO results, ready for `amodal eval`.

    With --tracks a list of tracks with visible masks becomes one with whole masks, ready for
    `amodal eval video`. A killed run continues when the same command is given again.

    [bold]Examples[/]

    amodal infer kins/update_test_2020.json --model aisformer --checkpoint best.safetensors --out r

    amodal eval image --gt kins/update_test_2020.json --dt r --out build/eval

    amodal infer build/drives --track --out r; amodal eval video --gt build/drives --dt r --out e

    amodal infer drives --model s_amodal --checkpoint best.safetensors --tracks genvis.json --out r
    """
    from amodal_core import inference
    from amodal_core.datasets.bag import BagFolder, BagSet
    from amodal_core.datasets.registry import open_dataset
    from amodal_core.tracking import make_tracker
    from amodal_ros.cli.replay import make_model

    dataset = open_dataset(data, format)
    options = {"detector": detector} if detector else {}
    if detector_checkpoint is not None:
        options["detector_checkpoint"] = str(detector_checkpoint)
    chosen = make_model(model, device, checkpoint, options)
    if tracks is not None:
        if rename or max_frames or track:
            raise InputError(
                "not together with --map, --track or --max-frames", "--tracks", "leave it out"
            )
        _complete(chosen, dataset, tracks, out, _settings(model, checkpoint))
        return
    classes = inference.classes_in(chosen, dataset, _renames(rename or []))
    if classes.dropped:
        warn([f"not in the data, left out: {', '.join(classes.dropped)}"])
    settings = _settings(model, checkpoint) | options
    settings |= {"map": sorted(rename or []), "max_frames": max_frames}
    follower = make_tracker(tracker) if track else None
    work = inference.Run(
        chosen, dataset, out, classes, settings, batch=batch, frames=max_frames, tracker=follower
    )
    # A bag is read from its beginning to its end; several processes would each read all of it.
    parallel = 0 if isinstance(dataset, BagSet | BagFolder) else workers
    with bar(f"{model} on {dataset.name}") as progress:
        written = inference.run(work, parallel, progress)
    warn(work.report.warnings)
    told = _timings(work.report.timings, work.inferred)
    stderr.print(f"{work.count} frames; {told}", soft_wrap=True)
    for path in written:
        typer.echo(path)


def _settings(model: str, checkpoint: Path | None) -> dict[str, Any]:
    stamp = checkpoint.stat().st_mtime_ns if checkpoint else None
    return {"model": model, "checkpoint": str(checkpoint), "stamp": stamp}


def _complete(
    model: Model, data: Dataset, tracks: Path, out: Path, settings: dict[str, Any]
) -> None:
    from amodal_core.track_inference import Follower, complete_tracks

    if not hasattr(model, "follow"):
        raise InputError(f"{model.name} completes no tracks", "--tracks", "take s_amodal")
    stamped = settings | {"tracks_stamp": tracks.stat().st_mtime_ns if tracks.exists() else None}
    with bar(f"{model.name} on {data.name}") as progress:
        written, report = complete_tracks(
            cast(Follower, model), data, tracks, out, stamped, progress
        )
    warn(report.warnings)
    typer.echo(written)


def _renames(rules: Sequence[str]) -> dict[str, str]:
    chosen = {}
    for rule in rules:
        old, equals, new = rule.partition("=")
        if not equals or not old or not new:
            raise InputError(f"'{rule}' is not class=class", "--map", "such as --map truck=bus")
        chosen[old] = new
    return chosen


def _timings(timings: dict[str, float], frames: int) -> str:
    each = (f"{name} {ms / frames:.1f}" for name, ms in timings.items())
    return "ms a frame: " + ", ".join(each) if frames else "all were done before"
