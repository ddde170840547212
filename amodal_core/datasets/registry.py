"""Which format a path holds, and its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amodal_core.errors import InputError

if TYPE_CHECKING:
    from amodal_core.datasets.base import Dataset
    from amodal_core.datasets.json_index import JsonIndex

# name -> ("module:class", one line for users)
_FORMATS: dict[str, tuple[str, str]] = {
    "kins": ("kins:Kins", "KINS 2019 and 2020 JSON over KITTI object images"),
    "kitti_raw": ("kitti:KittiRaw", "a KITTI raw drive"),
    "kitti_object": ("kitti:KittiObject", "KITTI's object benchmark"),
    "kitti_tracking": ("kitti:KittiTracking", "KITTI's tracking benchmark"),
    "nuscenes": ("nuscenes:NuScenes", "nuScenes: a camera, the LiDAR, 3D boxes"),
    "av2": ("argoverse:Argoverse2", "Argoverse 2's sensor data set, likewise (extra arrow)"),
    "waymo": ("waymo:Waymo", "Waymo's Open Dataset version 2, likewise (extra arrow)"),
    "amodal_synth_drive": (
        "amodal_synth_drive:AmodalSynthDrive",
        "AmodalSynthDrive in either layout",
    ),
    "sailvos": ("sailvos:SailVos", "SAIL-VOS and SAIL-VOS-cut CocoVID JSON, all variants"),
    "cocoa": ("cocoa:Cocoa", "COCOA JSON"),
    "cocoa_cls": ("cocoa:CocoaCls", "COCOA-cls JSON"),
    "tao_amodal": ("tao_amodal:TaoAmodal", "TAO-Amodal JSON: amodal boxes in videos, no masks"),
    "d2sa": ("d2sa:D2sa", "D2SA JSON"),
    "movi": ("movi:Movi", "MOVi-B and MOVi-D as released with EoRaS"),
    "kins_video": ("kins_video:KinsVideo", "KINS_Video_Car pickles, with EoRaSMissing"),
    "labelme": ("labelme:Labelme", "labelme files"),
    "coco": ("coco:Coco", "COCO JSON, with visible_mask where it is there"),
    "bag": ("bag:BagSet", "a rosbag2 bag with camera, LiDAR and maybe ground truth"),
    "tracks": ("bag:TrackedBag", "tracks.mcap of a replay with --copy: tracks as annotations"),
    "bags": ("bag:BagFolder", "a folder of such bags, one video each"),
    "frames": ("frames:Frames", "a folder of rendered or unpacked frames, as training keeps them"),
}


# Formats that are one JSON file; a folder stands for the only one in it.
_ONE_FILE = ("kins", "sailvos", "cocoa", "cocoa_cls", "d2sa", "coco", "tao_amodal")
# What `convert` writes, with one line for users.
TARGETS: dict[str, str] = {
    "kins": "KINS 2020 with KITTI's folders; masks exact, identities over time lost",
    "kins2019": "KINS 2019, the same with the older fields",
    "cocovid": "CocoVID JSON as SAIL-VOS has it (--kind); everything exact",
    "coco": "COCO JSON with visible_mask, track_id, occluders; everything exact",
    "asd": "AmodalSynthDrive; masks exact, images as JPEG",
    "kitti": "KITTI object; boxes, no masks",
    "labelme": "labelme files; masks exact",
    "cvat": "CVAT for images 1.1; masks exact, visible ones under labels of their own",
    "fiftyone": "what FiftyOne imports as COCODetectionDataset, one file a kind of mask",
    "bag": "one rosbag2 bag a video, with ground truth",
    "sailvos-cut": "SAIL-VOS cut into clips (--structure), all variants",
    "video-truth": "one JSON of per-video ground truth (--kind amodal or visible)",
}


# Targets that `amodal data show` cannot open: others read them, or they are several sets.
NOT_SHOWN = ("cvat", "fiftyone", "sailvos-cut", "video-truth")


def formats() -> dict[str, str]:
    """Names of all formats with one line of description each."""
    return {name: line for name, (_, line) in _FORMATS.items()}


def _reader(format: str) -> Callable[..., Dataset]:
    module, _, attribute = _FORMATS[format][0].partition(":")
    reader: Callable[..., Dataset] = getattr(
        import_module(f"amodal_core.datasets.{module}"), attribute
    )
    return reader


def options_of(format: str) -> tuple[str, ...]:
    """Names of a reader's options beside the path; () for an unknown format."""
    return tuple(signature(_reader(format)).parameters)[1:] if format in _FORMATS else ()


def open_dataset(
    path: str | Path, format: str = "", images: str | Path = "", **options: Any
) -> Dataset:
    """Open a data set.

    Args:
        path: its file or folder.
        format: one of `formats()`; recognised when "".
        images: the folder of its images, "" where it is near.
        **options: passed to the reader.

    Raises:
        InputError: the format is not recognised, the path holds several data sets, or the reader
            takes no such option.
    """
    place = Path(path)
    if not place.exists():
        raise InputError("there is no such file or folder", str(path))
    if not format:
        matches = list(recognise(place))
        if not matches:
            raise InputError(
                "no format that is known here",
                str(path),
                f"name one with --format; there are: {', '.join(_FORMATS)}",
            )
        if len(matches) > 1:
            listed = ", ".join(f"{p} ({f})" for f, p in matches)
            raise InputError(f"{len(matches)} data sets", str(path), f"name one of {listed}")
        format, place = matches[0]
    if format not in _FORMATS:
        raise InputError(f"no format '{format}'", str(path), f"there are: {', '.join(_FORMATS)}")
    takes = options_of(format)
    if images:
        name = next((n for n in ("images", "kitti") if n in takes), "")
        if not name:
            raise InputError(f"'{format}' takes no folder of images", str(path), "leave it out")
        options[name] = images
    for name in options:
        if name not in takes:
            cure = f"there are: {', '.join(takes)}" if takes else "leave it out"
            raise InputError(f"'{format}' takes no option '{name}'", str(path), cure)
    if place.is_dir() and format in _ONE_FILE:
        # Of files of other names as many readers' formats look alike: the one asked for counts.
        files = [p for f, p in recognise(place) if f != "labelme" and p.is_file()]
        files = [p for f, p in recognise(place) if f == format] or files
        if len(files) != 1:
            what = f"{len(files)} files of annotations for '{format}' in this folder"
            cure = f"name one of {', '.join(map(str, files))}" if files else "name the JSON file"
            raise InputError(what, str(path), cure)
        place = files[0]
    return _reader(format)(place, **options)


def recognise(path: Path) -> Iterator[tuple[str, Path]]:
    """The formats that a path holds, each with the path to open."""
    if path.is_file():
        name = _file_format(path)
        if name:
            yield name, path
        return
    name = _folder_format(path)
    if name:
        yield name, path
        return
    folders = (path, *(path / n for n in ("annotations", "amodal_annotations", "car_data")))
    files = [p for folder in folders for p in _files(folder)]
    recognised = [(name, p) for p in files if (name := _file_format(p))]
    if recognised and all(name == "labelme" for name, _ in recognised):
        yield "labelme", path
        return
    for name, file in recognised:
        if name != "labelme":
            yield name, file
    if not recognised:
        yield from _benchmarks(path)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix in (".json", ".pkl") and p.is_file())


def _benchmarks(path: Path) -> Iterator[tuple[str, Path]]:
    """KITTI's benchmarks, which KINS' files may lie beside."""
    splits = [path / "training", path / "testing", path]
    if any((s / "image_2").is_dir() for s in splits):
        yield "kitti_object", path
    elif any((s / "image_02").is_dir() for s in splits):
        yield "kitti_tracking", path


def _folder_format(path: Path) -> str:
    from amodal_core.bags.reader import is_bag
    from amodal_core.datasets.argoverse import logs_in
    from amodal_core.datasets.bag import bags_in
    from amodal_core.datasets.frames import is_frames
    from amodal_core.datasets.kitti import is_drive
    from amodal_core.datasets.nuscenes import versions_in
    from amodal_core.datasets.waymo import is_version_1, segments_in

    if is_frames(path):
        return "frames"
    if is_bag(path):
        return "bag"
    if bags_in(path):
        return "bags"
    if is_drive(path):
        return "kitti_raw"
    if next(logs_in(path), None) is not None:
        return "av2"
    if segments_in(path) or is_version_1(path):
        return "waymo"
    if (path / "sample_data.json").is_file() or versions_in(path):
        return "nuscenes"
    if (path / "metadata.json").exists() or (path / "instance_list.npy").exists():
        return "movi"
    bases = [path, *(p for p in path.iterdir() if p.is_dir())]
    if any((b / "amodal_instance_seg").is_dir() for b in bases):
        return "amodal_synth_drive"
    return ""


def _file_format(path: Path) -> str:
    if path.suffix == ".mcap":
        return "bag"
    if path.suffix == ".tfrecord":
        return "waymo"  # which says what to give instead
    if path.suffix == ".pkl":
        return "kins_video" if path.name.endswith("_data.pkl") else ""
    if path.suffix != ".json":
        return ""
    from amodal_core.datasets.json_index import JsonIndex

    index = JsonIndex(path)
    if {"shapes", "imagePath"} <= set(index.top):
        return "labelme"
    if not index.count("images"):
        return ""
    return _coco_format(path, index)


def _first(index: JsonIndex, name: str) -> dict[str, Any]:
    """The first element of a list that can be read; the others are the checker's affair."""
    for k in range(min(index.count(name), 100)):
        with suppress(InputError):
            return index.element(name, k)
    return {}


def _coco_format(path: Path, index: JsonIndex) -> str:
    first, image = _first(index, "annotations"), _first(index, "images")
    if "a_segm" in first or "inmodal_seg" in first:
        return "kins"
    if "regions" in first:
        return "cocoa"
    if "amodal_bbox" in first or ("tracks" in index.top and "visibility" in first):
        return "tao_amodal"
    if "videos" in index.top or {"segm_amodal", "segm_visible", "amodal_mask"} & first.keys():
        return "sailvos"
    if "D2S" in path.stem or str(image.get("file_name", "")).startswith("D2S_"):
        return "d2sa"
    if "COCO_amodal" in path.stem:
        return "cocoa_cls"
    return "coco"
