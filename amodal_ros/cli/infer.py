"""`amodal infer`: any model over any data set, or over given tracks."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amodal_core.drive.settings import DriveSettings
from amodal_core.errors import InputError
from amodal_core.models.registry import DEFAULT
from amodal_ros.cli._models import Settings, TrackerSettings, make_model
from amodal_ros.cli._options import with_options
from amodal_ros.cli._progress import bar, stderr, warn

if TYPE_CHECKING:
    from amodal_core.datasets.base import Dataset
    from amodal_core.models.base import Completer


class Boxes(str, Enum):
    """Where boxes, visible masks and identities come from."""

    model = "model"
    truth = "truth"


@with_options(
    "drive",
    DriveSettings,
    "minimum_range",
    "extrinsics",
    "calibration",
    "rectify",
    "motion",
    "fixed_frame",
)
def command(
    data: Annotated[Path, typer.Argument(help="A data set, its JSON file, or a bag.")],
    out: Annotated[Path, typer.Option(help="Folder of visible.json and amodal.json.")],
    model: Annotated[str, typer.Option(help="See `amodal models`.")] = DEFAULT,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights (.safetensors).")] = None,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "cpu",
    format: Annotated[str, typer.Option(help="Of the data; recognised when not given.")] = "",
    images: Annotated[
        Path | None, typer.Option(help="The folder of the data's images, where they are not near.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Frames that the model gets at once.")] = 4,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read frames.")] = 2,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Follow the objects through each video, hidden or not.")
    ] = False,
    tracker: Annotated[
        str,
        typer.Option(
            help="What follows them: motion, quasi_dense, quasi_dense_sailvos or "
            "quasi_dense_published."
        ),
    ] = "motion",
    boxes: Annotated[
        Boxes, typer.Option(help="Who says where the objects are: the model, or the truth.")
    ] = Boxes.model,
    tracks: Annotated[
        Path | None,
        typer.Option(help="Complete these: a YouTube-VIS or GenVIS result list, visible masks."),
    ] = None,
    every_class: Annotated[
        bool,
        typer.Option(
            "--every-class",
            help="An object once for each class that it may be of, as AP by class takes "
            "detections; else once.",
        ),
    ] = False,
    settings: Settings = None,
    tracker_settings: TrackerSettings = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", help="class of the model=class of the data; repeatable."),
    ] = None,
    *,
    drive: DriveSettings,
) -> None:
    """Run a model over a data set and write COCO results, ready for `amodal eval`.

    With --tracks a list of tracks with visible masks becomes one with whole masks, ready for
    `amodal eval video`. A killed run continues when the same command is given again.

    For example:

    amodal infer kins/update_test_2020.json --model aisformer --checkpoint best.safetensors --out r

    amodal eval image --gt kins/update_test_2020.json --dt r --out build/eval

    amodal infer build/drives --track --out r; amodal eval video --gt build/drives --dt r --out e

    amodal infer movi_b/test --model eoras --checkpoint best.safetensors --boxes truth --out r

    amodal infer drives --model s_amodal --checkpoint best.safetensors --tracks genvis.json --out r
    """
    from amodal_core import inference
    from amodal_core.classes import ClassMap, parse_renames
    from amodal_core.datasets.bag import BagFolder, BagSet
    from amodal_core.datasets.registry import open_dataset
    from amodal_core.files import out_folder
    from amodal_core.models.base import Completer
    from amodal_core.settings import parse_rules
    from amodal_core.tracking import make_tracker

    given = boxes is Boxes.truth
    if every_class and track:
        raise InputError("an object with an identity is one", "--every-class", "leave out --track")
    by = "--tracks" if tracks is not None else "--boxes truth" if given else ""
    if by:
        others = {"--map": bool(rename), "--track": track, "--every-class": every_class}
        if tracks is not None:
            others |= {"--max-frames": max_frames is not None, "--boxes truth": given}
        _alone(by, others)
    if (tracker != "motion" or tracker_settings) and not track:
        option = "--tracker-set" if tracker_settings else f"--tracker {tracker}"
        raise InputError("nothing is followed", option, "add --track")
    follower = make_tracker(
        tracker, parse_rules(tracker_settings or [], "--tracker-set"), "--tracker-set"
    )
    options: dict[str, Any] = {} if drive == DriveSettings() else {"drive": drive}  # for bags alone
    dataset = open_dataset(data, format, images or "", **options)
    chosen = make_model(model, device, checkpoint, settings or [], given_by=by)
    stamp = checkpoint.stat().st_mtime_ns if checkpoint else None
    decides: dict[str, Any] = {"model": model, "checkpoint": str(checkpoint), "stamp": stamp}
    decides["images"] = str(images)
    decides |= {name: str(value) for name, value in options.items()}
    decides["settings"] = sorted(settings or [])
    if tracks is not None:
        assert isinstance(chosen, Completer)
        _complete(chosen, dataset, tracks, out, decides)
        return
    if given:
        classes = ClassMap.exact(dataset.classes, dataset.classes)
    else:
        classes = inference.classes_in(chosen, dataset, parse_renames(rename or [], "--map"))
    if classes.missing:
        warn([f"not in the data, left out: {', '.join(classes.missing)}"])
    # A bag is read from its beginning to its end; several processes would each read all of it.
    parallel = 0 if isinstance(dataset, BagSet | BagFolder) else workers
    with out_folder(out):
        work = inference.Inference(
            chosen,
            dataset,
            out,
            classes,
            decides | {"map": sorted(rename or []), "max_frames": max_frames},
            batch=batch,
            frames=max_frames,
            tracker=follower if track else None,
            given=given,
            every_class=every_class,
        )
        with bar(f"{model} on {dataset.name}") as progress:
            written = inference.run(work, parallel, progress)
    warn(work.report.warnings)
    timings = _timings(work.report.timings, work.inferred)
    stderr.print(f"{work.count} frames; {timings}", soft_wrap=True)
    for path in written:
        typer.echo(path)


def _alone(option: str, others: dict[str, bool]) -> None:
    """Refuse options that mean nothing beside another one."""
    excluded = [name for name, given in others.items() if given]
    if excluded:
        raise InputError(f"not together with {', '.join(excluded)}", option, "leave one out")


def _complete(
    model: Completer, data: Dataset, tracks: Path, out: Path, settings: dict[str, Any]
) -> None:
    from amodal_core.files import out_folder
    from amodal_core.track_inference import complete_tracks

    stamped = settings | {"tracks_stamp": tracks.stat().st_mtime_ns if tracks.exists() else None}
    with out_folder(out), bar(f"{model.name} on {data.name}") as progress:
        written, report = complete_tracks(model, data, tracks, out, stamped, progress)
    warn(report.warnings)
    typer.echo(written)


def _timings(timings: dict[str, float], frames: int) -> str:
    each = (f"{name} {ms / frames:.1f}" for name, ms in timings.items())
    return "ms a frame: " + ", ".join(each) if frames else "all were done before"
