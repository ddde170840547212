"""`amodal convert`: data sets to rosbag2 bags."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amodal_ros.cli._progress import bar, stderr, warn

if TYPE_CHECKING:
    from amodal_core.frame import Report

app = typer.Typer(
    help="Turn a data set into a rosbag2 bag with the topics that the nodes listen to.",
    no_args_is_help=True,
)


class Storage(str, Enum):
    """File format of the bag."""

    mcap = "mcap"
    sqlite3 = "sqlite3"


class Split(str, Enum):
    """Part of a KITTI benchmark."""

    training = "training"
    testing = "testing"


Out = Annotated[Path, typer.Argument(help="Folder of the new bag; it must not exist yet.")]
StorageOption = Annotated[Storage, typer.Option(help="File format of the bag.")]
MaxFrames = Annotated[int | None, typer.Option(min=1, help="Stop after so many images.")]
Compress = Annotated[bool, typer.Option("--compress", help="Compress with zstd.")]
SplitOption = Annotated[Split, typer.Option(help="Only `training` has labels.")]
Root = Annotated[Path, typer.Argument(help="The folder that holds training/ and testing/.")]


def _run(convert: Callable[..., Report], src: Path, out: Path, **options: Any) -> None:
    """Convert with a command's own options, and say what the bag holds."""
    from amodal_core.bags.reader import BagReader

    plain = {k: v.value if isinstance(v, Enum) else v for k, v in options.items()}
    with bar("converting", "images") as progress:
        report = convert(src, out, progress=progress, **plain)
    warn(report.warnings)
    with BagReader(out) as bag:
        for topic in sorted(bag.topics.values(), key=lambda t: t.name):
            typer.echo(f"{topic.count:7d}  {topic.name}  {topic.type}")
    following = f"amodal replay {quote(str(out))} --out {quote(f'{out}_out')}"
    stderr.print(f"wrote {out}; next: {following}", markup=False, soft_wrap=True)


def _kitti(name: str, options: dict[str, Any]) -> None:
    """Convert with `kitti_to_bag.convert_NAME`."""
    from amodal_core.datasets import kitti_to_bag

    _run(getattr(kitti_to_bag, f"convert_{name}"), **options)


def _recorded(format: str, options: dict[str, Any]) -> None:
    """Convert a drive of that format; options that are not given are the reader's own."""
    from amodal_core.datasets.to_bag import convert_recorded

    if options.pop("derived_masks"):
        options["masks"] = "derived"
    given = {k: v for k, v in options.items() if v or k == "max_frames"}
    _run(convert_recorded, format=format, **given)


@app.command(
    "kitti-raw",
    epilog="For example: amodal convert kitti-raw 2011_09_26/2011_09_26_drive_0009_sync drive",
)
def kitti_raw(
    src: Annotated[
        Path, typer.Argument(help="A drive's *_sync folder; the calibration lies above it.")
    ],
    out: Out,
    storage: StorageOption = Storage.mcap,
    max_frames: MaxFrames = None,
    compress: Compress = False,
) -> None:
    """A raw drive: left colour camera, LiDAR, and GPS/IMU where it is there."""
    _kitti("raw", locals())


@app.command(
    "kitti-object",
    epilog="For example: amodal convert kitti-object KITTI/object build/object --max-frames 100",
)
def kitti_object(
    src: Root,
    out: Out,
    split: SplitOption = Split.training,
    storage: StorageOption = Storage.mcap,
    max_frames: MaxFrames = None,
    compress: Compress = False,
) -> None:
    """Images of the object benchmark; they are unrelated, so they stand 10 s apart in the bag."""
    _kitti("object", locals())


@app.command(
    "kitti-tracking",
    epilog="For example: amodal convert kitti-tracking KITTI/tracking build/0003 --sequence 3",
)
def kitti_tracking(
    src: Root,
    out: Out,
    sequence: Annotated[int, typer.Option(min=0, help="The sequence's number.")],
    split: SplitOption = Split.training,
    storage: StorageOption = Storage.mcap,
    max_frames: MaxFrames = None,
    compress: Compress = False,
) -> None:
    """A sequence of the tracking benchmark, at its nominal 10 Hz."""
    _kitti("tracking", locals())


CameraOption = Annotated[str, typer.Option(help="The camera; the front one unless named.")]
Derived = Annotated[
    bool,
    typer.Option("--derived-masks", help="Masks from the 3D boxes and the scan; nobody drew them."),
]
Sweeps = Annotated[
    bool, typer.Option("--sweeps", help="Every image, not those of annotated moments alone.")
]


@app.command(
    epilog="For example: amodal convert nuscenes NUSCENES build/scene --scene scene-0061 --sweeps"
)
def nuscenes(
    src: Annotated[Path, typer.Argument(help="The folder that holds samples, sweeps, v1.0-*.")],
    out: Out,
    scene: Annotated[str, typer.Option(help="Such as scene-0061.")] = "",
    version: Annotated[str, typer.Option(help="Such as v1.0-mini, where there are several.")] = "",
    camera: CameraOption = "",
    sweeps: Sweeps = False,
    derived_masks: Derived = False,
    storage: StorageOption = Storage.mcap,
    max_frames: MaxFrames = None,
    compress: Compress = False,
) -> None:
    """A scene of nuScenes: one camera, the LiDAR, the vehicle's poses, and 3D boxes."""
    _recorded("nuscenes", locals())


@app.command(epilog="For example: amodal convert av2 av2/val/0b86f508-5df9-4a46 build/log")
def av2(
    src: Annotated[Path, typer.Argument(help="A log's folder, or one of logs.")],
    out: Out,
    log: Annotated[str, typer.Option(help="The log's name, where there are several.")] = "",
    camera: CameraOption = "",
    sweeps: Sweeps = False,
    derived_masks: Derived = False,
    storage: StorageOption = Storage.mcap,
    max_frames: MaxFrames = None,
    compress: Compress = False,
) -> None:
    """A log of Argoverse 2: one ring camera, the LiDARs, the vehicle's poses, and 3D boxes."""
    _recorded("av2", locals())


@app.command(
    epilog="For example: amodal convert waymo waymo/validation build/segment --segment NAME"
)
def waymo(
    src: Annotated[Path, typer.Argument(help="A split's folder, which holds camera_image.")],
    out: Out,
    segment: Annotated[str, typer.Option(help="Its name, where there are several.")] = "",
    camera: CameraOption = "",
    derived_masks: Derived = False,
    storage: StorageOption = Storage.mcap,
    max_frames: MaxFrames = None,
    compress: Compress = False,
) -> None:
    """A segment of Waymo's version 2: one camera, the top LiDAR, poses, and 3D boxes."""
    _recorded("waymo", locals())
