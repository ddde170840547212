"""Cut SAIL-VOS into clips of one shot each (SAIL-VOS-cut), and per-video ground truth.

A frame's score is the mean over hue, saturation and value of the mean absolute difference to the
frame before. The published cut passed RGB where OpenCV was told BGR; that is reproduced, since the
clips would differ otherwise. Clip "<video>__<f>" ends before frame f, the last one with the video.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from amodal_core.datasets.base import Dataset, link
from amodal_core.datasets.coco_like import xywh
from amodal_core.datasets.image_files import read_image, write_image
from amodal_core.datasets.json_write import JsonWriter
from amodal_core.datasets.sailvos import KINDS, SailVos, annotation_of
from amodal_core.datasets.segmentation import to_dictionary
from amodal_core.errors import InputError, foreign
from amodal_core.files import inside
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.validate import SegmentationError, to_rle

THRESHOLD = 27.0
_SHORTEST = 5
# More of an object hidden than this is left out of the published training and test files.
_MOST_HIDDEN = 0.75


class Shot(NamedTuple):
    """Frames `begin` to `end` (exclusive) of a video, by their turn in it."""

    name: str
    begin: int
    end: int


def frame_score(image: np.ndarray, before: np.ndarray) -> float:
    """How much an image (H, W, 3) uint8 RGB differs from the one before."""
    a, b = (cv2.cvtColor(i, cv2.COLOR_BGR2HSV).astype(np.int32) for i in (image, before))
    return float(np.abs(a - b).mean(axis=(0, 1)).mean())


def cuts(images: Iterable[np.ndarray], count: int) -> list[int]:
    """The frames that begin a new shot; at least 5 frames apart and more than 5 before the end.

    Args:
        images: the video's frames in order, (H, W, 3) uint8 RGB; read one at a time.
        count: how many there are.
    """
    at: list[int] = []
    before: np.ndarray | None = None
    for k, image in enumerate(images):
        if before is not None and k < count - 1:
            far = k - (at[-1] if at else 0) >= _SHORTEST and count - 1 - k > _SHORTEST
            if frame_score(image, before) >= THRESHOLD and far:
                at.append(k)
        before = image
    return at


def clips_of(video: str, count: int, at: Sequence[int]) -> list[Shot]:
    """Named clips of a video of `count` frames, cut before the frames `at`."""
    begins, ends = [0, *at], [*at, count]
    names = [*at, count - 1]
    return [
        Shot(f"{video}__{n}", b, e) for n, b, e in zip(names, begins, ends, strict=True) if e > b
    ]


def read_structure(path: str | Path) -> dict[str, list[str]]:
    """The files of each clip of a published structure, without uncut rests and empty clips.

    Raises:
        InputError: it is no JSON object of lists of file names.
    """
    with foreign(path, "no structure of clips"):
        value = json.loads(Path(path).read_bytes())
        return {
            str(name): [str(f) for f in files]
            for name, files in value.items()
            if "__" in name and files
        }


def cut(
    data: SailVos,
    out: str | Path,
    structure: Mapping[str, Sequence[str]] | None = None,
    kinds: Sequence[str] = KINDS,
) -> Iterator[str]:
    """Write SAIL-VOS-cut: images by clip, and one JSON for each variant; yields each clip's name.

    Image ids stay, frame ids begin at 0 in every clip, instance ids are unique to a clip's object,
    categories are numbered from 1. The originals stay where they are: .bmp images are converted to
    .png, others linked. A run that was stopped goes on where it was with its images.

    Args:
        data: the released JSON, opened.
        out: a folder.
        structure: the files of each clip; the images decide when None.
        kinds: which variants to write.

    Raises:
        InputError: an image of an uncut video cannot be read, or a clip names a missing file.
    """
    out = Path(out)
    if any((out / f"{kind}.json").exists() for kind in kinds):
        raise InputError("exists already", str(out), "name another place or remove it first")
    numbers = {c: k for k, c in enumerate(data.category_ids, 1)}
    writers = {kind: JsonWriter(out / f"{kind}.json") for kind in kinds}
    with ExitStack() as stack:
        opened = [stack.enter_context(writer) for writer in writers.values()]
        for writer in opened:
            writer.categories(dict(enumerate(data.classes, 1)))
            writer.extend("videos", [])
            writer.extend("images", [])
        objects = 0
        for number, (clip, indices) in enumerate(_clips(data, structure), 1):
            instances: dict[int, int] = {}
            size = data.size(indices[0])
            video = {"id": number, "name": clip, "width": size[1], "height": size[0]}
            for writer in opened:
                writer.add("videos", {**video, "num_frames": len(indices)})
            for frame_id, index in enumerate(indices):
                image = _put_image(data, index, clip, out)
                image |= {"video_id": number, "frame_id": frame_id}
                for writer in opened:
                    writer.add("images", image)
                for annotation in data.annotations(index):
                    masks = _masks(data, annotation, data.size(index))
                    if masks is None or data.category(annotation) is None:
                        continue
                    instance = data.instance_id(annotation)
                    if instance not in instances:
                        objects += 1
                        instances[instance] = objects
                    head = {
                        "id": annotation["id"],
                        "video_id": number,
                        "image_id": image["id"],
                        "category_id": numbers[annotation["category_id"]],
                        "instance_id": instances[instance],
                        "iscrowd": annotation.get("iscrowd", 0),
                    }
                    for key in ("obj_id", "model_id", "occlu_depth"):
                        if key in annotation:
                            head[key] = annotation[key]
                    for kind, writer in writers.items():
                        writer.annotation(head | annotation_of(kind, *masks))
            yield clip


def _clips(
    data: SailVos, structure: Mapping[str, Sequence[str]] | None
) -> Iterator[tuple[str, list[int]]]:
    """Each clip's name and its samples."""
    for video in data.videos:
        indices = data.in_video(video)
        if structure is None:
            images = (read_image(data.image_path(i)) for i in indices)
            for clip in clips_of(video, len(indices), cuts(images, len(indices))):
                yield clip.name, indices[clip.begin : clip.end]
            continue
        stems = {Path(data.images[i]["file_name"]).stem: i for i in indices}
        named = {n: f for n, f in structure.items() if n.rpartition("__")[0] == video}
        for name in sorted(named, key=lambda n: int(n.rpartition("__")[2])):
            files = [Path(f).stem for f in named[name]]
            missing = [f for f in files if f not in stems]
            if missing:
                raise InputError(
                    f"clip {name} names {missing[0]}, which is not in the file",
                    str(data.path),
                    "use the structure that belongs to this file",
                )
            yield name, [stems[f] for f in files]


def _put_image(data: SailVos, index: int, clip: str, out: Path) -> dict[str, Any]:
    source = data.image_path(index)
    target = inside(out, clip) / "images" / f"{source.stem}.png"
    if source.suffix == ".png":
        link(source, target)
    elif not target.exists():
        write_image(target, read_image(source))
    height, width = data.size(index)
    return {
        "id": data.images[index]["id"],
        "file_name": str(target.relative_to(out)),
        "width": width,
        "height": height,
    }


def _masks(
    data: SailVos, annotation: dict[str, Any], size: tuple[int, int]
) -> tuple[RleMasks, RleMasks] | None:
    """An object's masks; None where it is unreadable, invisible or too far hidden."""
    try:
        amodal = RleMasks(size, [to_rle(data.amodal(annotation), size)])
        visible = RleMasks(size, [to_rle(data.visible(annotation), size)]) & amodal
    except SegmentationError:
        return None
    amodal_area, visible_area = int(amodal.areas()[0]), int(visible.areas()[0])
    if not visible_area or 1 - visible_area / amodal_area > _MOST_HIDDEN:
        return None
    return amodal, visible


def write_video_truth(path: str | Path, data: Dataset, masks: str = "amodal") -> Iterator[str]:
    """Ground truth for video-level evaluation; yields each video's name.

    One annotation an object, with lists as long as its video of `segmentations`, `bboxes`, `areas`
    and `occlude_rate`, None in frames where it is not. Memory holds one video at a time.

    Args:
        path: the JSON file to write.
        data: any data set of videos.
        masks: "amodal" or "visible".

    Raises:
        InputError: the data set has no videos, or an annotation cannot be read.
    """
    if not data.sequential:
        raise InputError("single images, no videos", str(data.path))
    last = 0
    with JsonWriter(path) as writer:
        writer.extend("categories", [{"id": k, "name": n} for k, n in enumerate(data.classes, 1)])
        writer.extend("videos", [])
        for number, video in enumerate(data.videos, 1):
            indices = data.in_video(video)
            objects: dict[int, dict[str, Any]] = {}
            height, width = data.size(indices[0])
            for turn, index in enumerate(indices):
                truth = data.truth(index)
                for k in range(0 if truth is None else len(truth)):
                    assert truth is not None
                    entry = objects.setdefault(
                        int(truth.ids[k]), _empty(len(indices), int(truth.class_ids[k]) + 1)
                    )
                    chosen = (truth.amodal if masks == "amodal" else truth.visible).rle()[[k]]
                    area = int(chosen.areas()[0])
                    if not area:
                        continue
                    entry["segmentations"][turn] = to_dictionary(chosen.counts[0], chosen.size)
                    entry["bboxes"][turn] = xywh(chosen)
                    entry["areas"][turn] = area
                    entry["occlude_rate"][turn] = float(truth.occlusion_rates[k])
                    if truth.ignore is not None:
                        entry["iscrowd"] |= int(truth.ignore[k])
            names = [f"{data.place(i).name}" for i in indices]
            head = {"id": number, "name": video, "width": width, "height": height}
            writer.add("videos", {**head, "length": len(indices), "file_names": names})
            for instance, entry in objects.items():
                last += 1
                writer.annotation(
                    {"id": last, "video_id": number, "instance_id": instance, **entry}
                )
            yield video


def _empty(frames: int, category: int) -> dict[str, Any]:
    lists = ("segmentations", "bboxes", "areas", "occlude_rate")
    return {"category_id": category, "iscrowd": 0} | {n: [None] * frames for n in lists}
