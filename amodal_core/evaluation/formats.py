"""Truth and predictions from files: data sets, bags, COCO results, YouTube-VIS (GenVIS) lists."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from amodal_core.bags.messages import class_names, read_tracks
from amodal_core.bags.reader import BagReader
from amodal_core.bags.sensors import stamp_of
from amodal_core.errors import InputError
from amodal_core.evaluation.sets import AnnotationSet, ImageRecord, from_tracks
from amodal_core.frame import Tracks

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
_ARRAY = "amodal_msgs/msg/AmodalInstanceArray"
_RESULT_FILES = {"visible": "visible.json", "amodal": "amodal.json"}


def _silent(items: Iterable[Any], _total: int, _what: str) -> Iterable[Any]:
    return items


@dataclass
class Truth:
    """A ground truth with what result files refer to it by.

    Attributes:
        set: the annotations.
        category_ids: class index by category id of the result files.
        videos: video name by video id of the result files.
        path: where it was read from.
    """

    set: AnnotationSet
    category_ids: dict[int, int]
    videos: dict[int, str] = field(default_factory=dict)
    path: Path = field(default_factory=Path)


def is_bag(path: Path) -> bool:
    """Whether a path looks like a rosbag2 bag."""
    return path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").is_file()


def read_truth(path: str | Path, progress: Progress = _silent) -> Truth:
    """Ground truth of a bag or of a data set, without its images.

    Args:
        path: a bag with a `ground_truth` topic, or what `amodal data check` recognises.
        progress: wraps an iterable of known length to show progress.

    Raises:
        InputError: nothing of the kind is there.
    """
    path = Path(path)
    if is_bag(path):
        found = _read_bag(path, "ground_truth")
        return Truth(found, {k + 1: k for k in range(len(found.classes))}, {1: path.stem}, path)
    from amodal_core.datasets.coco_like import CocoLike
    from amodal_core.datasets.registry import open_dataset

    dataset = open_dataset(path)
    n = len(dataset)
    ids = range(1, n + 1)
    categories = {k + 1: k for k in range(len(dataset.classes))}
    if isinstance(dataset, CocoLike):
        ids = [int(image["id"]) for image in dataset.images]  # type: ignore[assignment]
        categories = dict(dataset.category_ids)

    def annotated() -> Iterable[tuple[ImageRecord, Tracks]]:
        for index in progress(range(n), n, "ground truth"):
            truth = dataset.truth(index)
            if truth is not None:
                place = dataset.place(index)
                height, width = dataset.size(index)
                yield (
                    ImageRecord(ids[index], height, width, place.name, place.video, place.index),
                    truth,
                )

    return Truth(
        from_tracks(annotated(), dataset.classes),
        categories,
        dict(enumerate(dataset.videos, start=1)),
        path,
    )


def read_predictions(path: str | Path, truth: Truth, kind: str = "amodal") -> AnnotationSet:
    """Predictions for the images of a ground truth.

    Args:
        path: a folder with visible.json and amodal.json, one COCO results file, a YouTube-VIS
            result list, or a bag with tracks.
        truth: what they will be compared with.
        kind: which masks a single results file holds, "visible" or "amodal".

    Raises:
        InputError: the file is none of these, or does not fit the truth.
    """
    path = Path(path)
    if is_bag(path):
        return _by_stamp(_read_bag(path, "tracks"), truth, path)
    if path.is_dir():
        parts = {k: path / name for k, name in _RESULT_FILES.items() if (path / name).is_file()}
        if not parts:
            raise InputError(
                "neither visible.json nor amodal.json",
                str(path),
                "give the folder that `amodal infer --out` wrote, a results file or a bag",
            )
        return _join({k: _read_json(p) for k, p in parts.items()}, truth, path)
    rows = _read_json(path)
    if rows and "segmentations" in rows[0]:
        return _from_videos(rows, truth, kind, path)
    return _join({kind: rows}, truth, path)


def write_results(part: AnnotationSet, out: str | Path, category_ids: Sequence[int]) -> list[Path]:
    """Write visible.json and amodal.json in COCO's results format.

    Beside COCO's fields each entry has `id` (the same in both files), `instance_id`,
    `occlusion_rate` and `depth`.

    Args:
        part: the predictions.
        out: a folder, made where it is missing.
        category_ids: the category id of each class.

    Returns:
        The files written; a file is left out where the set has no masks of its kind.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, name in _RESULT_FILES.items():
        if not part.has(kind):
            continue
        rows = []
        for n, mask in enumerate(part.rle(kind)):
            x0, y0, x1, y1 = part.boxes[n].tolist()
            rate = part.occlusion_rates[n]
            rows.append(
                {
                    "id": n + 1,
                    "image_id": int(part.image_ids[n]),
                    "category_id": int(category_ids[part.class_ids[n]]),
                    "score": float(part.scores[n]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
                    "instance_id": int(part.instance_ids[n]),
                    "occlusion_rate": None if np.isnan(rate) else float(rate),
                    "depth": float(part.depths[n]),
                }
            )
        write_json(rows, out / name)
        written.append(out / name)
    return written


def write_video_results(part: AnnotationSet, path: str | Path, kind: str, truth: Truth) -> None:
    """Write a YouTube-VIS result list: one entry a track with one RLE or null a frame."""
    names = {name: k for k, name in truth.videos.items()}
    images = {i.id: i for i in truth.set.images}
    lengths: dict[str, int] = {}
    for image in truth.set.images:
        lengths[image.video] = max(lengths.get(image.video, 0), image.frame + 1)
    category = {k: c for c, k in truth.category_ids.items()}
    tracks: dict[tuple[str, int], list[int]] = {}
    for n, image_id in enumerate(part.image_ids):
        video = images[int(image_id)].video
        tracks.setdefault((video, int(part.instance_ids[n])), []).append(n)
    rles, rows = part.rle(kind), []
    for (video, _), members in tracks.items():
        segmentations: list[dict[str, Any] | None] = [None] * lengths[video]
        for n in members:
            mask = rles[n]
            frame = images[int(part.image_ids[n])].frame
            segmentations[frame] = {"size": mask["size"], "counts": mask["counts"].decode()}
        rows.append(
            {
                "video_id": names[video],
                "category_id": category[int(np.bincount(part.class_ids[members]).argmax())],
                "score": float(part.scores[members].mean()),
                "segmentations": segmentations,
            }
        )
    write_json(rows, Path(path))


def write_json(value: Any, path: Path) -> None:
    """Write JSON to a temporary file, then rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def _read_json(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise InputError("there is no such file", str(path), "check the path")
    try:
        rows = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"not JSON: {error}", str(path), "write it again") from error
    if isinstance(rows, dict) and "annotations" in rows:
        raise InputError(
            "this is a ground truth, not a list of results", str(path), "give it as --gt"
        )
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise InputError("not a list of results", str(path), "COCO or YouTube-VIS results")
    return rows


def _mask(segmentation: Any, size: tuple[int, int], where: str) -> bytes:
    """Compressed counts of an RLE (compressed or not) or of polygons."""
    try:
        if isinstance(segmentation, list):
            parts = coco.frPyObjects(segmentation, *size) if segmentation else []
            rle = coco.merge(parts) if parts else coco.encode(np.zeros(size, np.uint8, order="F"))
        elif isinstance(segmentation["counts"], list):
            rle = coco.frPyObjects(segmentation, *size)
        else:
            rle = segmentation
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError("not a COCO segmentation", where, "RLE or polygons") from error
    if tuple(rle["size"]) != size:
        height, width = rle["size"]
        raise InputError(
            f"a mask of {width}x{height}, the image has {size[1]}x{size[0]}",
            where,
            "predict at the image's own size",
        )
    counts = rle["counts"]
    return counts.encode() if isinstance(counts, str) else counts


def _category(row: dict[str, Any], truth: Truth, where: str) -> int:
    category = int(row.get("category_id", -1))
    if category not in truth.category_ids:
        known = ", ".join(map(str, sorted(truth.category_ids)))
        raise InputError(
            f"category id {category} is not in the ground truth",
            where,
            f"it has {len(truth.category_ids)} categories: {known}; class lists must agree",
        )
    return truth.category_ids[category]


def _join(parts: dict[str, list[dict[str, Any]]], truth: Truth, path: Path) -> AnnotationSet:
    """One set from one result list a kind of mask; entries are joined by `id`, else by order."""
    kinds = list(parts)
    lead = parts[kinds[-1]]  # amodal where there is one: boxes are amodal
    others: dict[str, list[dict[str, Any]]] = {}
    for kind in kinds:
        rows = parts[kind]
        if len(rows) != len(lead):
            raise InputError(
                f"visible.json and amodal.json have {len(parts['visible'])} and "
                f"{len(parts['amodal'])} entries",
                str(path),
                "both list the same objects",
            )
        by_id = {row["id"]: row for row in rows if "id" in row}
        if len(by_id) == len(lead) and all(row.get("id") in by_id for row in lead):
            rows = [by_id[row["id"]] for row in lead]
        elif any(a["image_id"] != b["image_id"] for a, b in zip(rows, lead, strict=True)):
            raise InputError(
                "visible.json and amodal.json list different images",
                str(path),
                "give both the same order, or an id to each entry",
            )
        others[kind] = rows
    sizes = truth.set.sizes()
    masks: dict[str, list[bytes | None]] = {k: [None] * len(lead) for k in ("visible", "amodal")}
    for n, row in enumerate(lead):
        where = f"{path} entry {n}"
        if row.get("image_id") not in sizes:
            raise InputError(
                f"image id {row.get('image_id')} is not in the ground truth",
                where,
                "use the image ids of the ground truth",
            )
        for kind in kinds:
            segmentation = others[kind][n].get("segmentation")
            if segmentation is not None:
                masks[kind][n] = _mask(segmentation, sizes[row["image_id"]], where)
    boxes = [_box(row, masks, n, sizes) for n, row in enumerate(lead)]
    return AnnotationSet(
        images=truth.set.images,
        classes=truth.set.classes,
        image_ids=np.array([r["image_id"] for r in lead]),
        class_ids=np.array([_category(r, truth, f"{path} entry {n}") for n, r in enumerate(lead)]),
        instance_ids=np.array([r.get("instance_id", -1) for r in lead]),
        scores=np.array([float(r.get("score", 1.0)) for r in lead]),
        amodal=masks["amodal"],
        visible=masks["visible"],
        boxes=np.array(boxes, np.float64),
        occlusion_rates=np.array([_rate(r, masks, n, sizes) for n, r in enumerate(lead)]),
        crowd=np.zeros(len(lead), bool),
        depths=np.array([float(r.get("depth") or 0.0) for r in lead]),
    )


def _box(
    row: dict[str, Any],
    masks: dict[str, list[bytes | None]],
    n: int,
    sizes: dict[int, tuple[int, int]],
) -> list[float]:
    if "bbox" in row:
        x, y, w, h = map(float, row["bbox"])
    else:
        counts = masks["amodal"][n] or masks["visible"][n]
        if counts is None:
            return [np.nan] * 4
        x, y, w, h = coco.toBbox({"size": list(sizes[row["image_id"]]), "counts": counts}).tolist()
    return [x, y, x + w, y + h]


def _rate(
    row: dict[str, Any],
    masks: dict[str, list[bytes | None]],
    n: int,
    sizes: dict[int, tuple[int, int]],
) -> float:
    """Hidden share: as predicted, else by the entry's own two masks, else unknown."""
    if row.get("occlusion_rate") is not None:
        return float(row["occlusion_rate"])
    whole, seen = masks["amodal"][n], masks["visible"][n]
    if whole is None or seen is None:
        return float("nan")
    size = list(sizes[row["image_id"]])
    a, v = {"size": size, "counts": whole}, {"size": size, "counts": seen}
    area = float(coco.area(a))
    return 1 - float(coco.area(coco.merge([a, v], intersect=True))) / area if area else 0.0


def _from_videos(rows: list[dict[str, Any]], truth: Truth, kind: str, path: Path) -> AnnotationSet:
    """A YouTube-VIS list: each entry is a track, `segmentations` one RLE or null a frame."""
    by_place = {(i.video, i.frame): i for i in truth.set.images}
    found: list[tuple[int, ImageRecord, dict[str, Any], bytes]] = []
    for n, row in enumerate(rows):
        where = f"{path} entry {n}"
        if row.get("video_id") not in truth.videos:
            raise InputError(
                f"video id {row.get('video_id')} is not in the ground truth",
                where,
                f"it has videos 1 to {len(truth.videos)}",
            )
        video = truth.videos[row["video_id"]]
        for frame, segmentation in enumerate(row["segmentations"]):
            if segmentation is None:
                continue
            image = by_place.get((video, frame))
            if image is None:
                raise InputError(
                    f"frame {frame} of '{video}' is not in the ground truth", where, "check it"
                )
            counts = _mask(segmentation, (image.height, image.width), where)
            # GenVIS writes an all-zero mask where the object is not there.
            if coco.area({"size": [image.height, image.width], "counts": counts}):
                found.append((n, image, row, counts))
    boxes = [
        coco.toBbox({"size": [i.height, i.width], "counts": counts}) for _, i, _, counts in found
    ]
    xywh = np.array(boxes, np.float64).reshape(-1, 4)
    masks: list[bytes | None] = [counts for *_, counts in found]
    none: list[bytes | None] = [None] * len(found)
    return AnnotationSet(
        images=truth.set.images,
        classes=truth.set.classes,
        image_ids=np.array([i.id for _, i, _, _ in found]),
        class_ids=np.array([_category(r, truth, f"{path} entry {n}") for n, _, r, _ in found]),
        instance_ids=np.array([n for n, *_ in found]),
        scores=np.array([float(r.get("score", 1.0)) for _, _, r, _ in found]),
        amodal=masks if kind == "amodal" else none,
        visible=masks if kind == "visible" else none,
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        occlusion_rates=np.full(len(found), np.nan),
        crowd=np.zeros(len(found), bool),
        depths=np.zeros(len(found)),
    )


def _read_bag(path: Path, name: str) -> AnnotationSet:
    """The AmodalInstanceArray topic of that last name, one image a message, ids by order."""
    with BagReader(path) as bag:
        topics = [t.name for t in bag.topics.values() if t.type == _ARRAY]
        chosen = [t for t in topics if t.rsplit("/", 1)[-1] == name]
        if len(chosen) != 1:
            raise InputError(
                f"{len(chosen)} topics named {name}",
                str(path),
                f"AmodalInstanceArray topics there: {', '.join(topics) or 'none'}",
            )
        names: dict[int, str] = {}
        frames: list[tuple[ImageRecord, Tracks]] = []
        for n, (_, _, message) in enumerate(bag.messages(chosen)):
            names.update(class_names(message))
            record = ImageRecord(
                n + 1,
                message.height,
                message.width,
                f"{n:06d}",
                path.stem,
                n,
                stamp_of(message.header),
            )
            frames.append((record, read_tracks(message, f"{path} {chosen[0]} message {n}")))
    count = max(chain(names, [-1])) + 1
    return from_tracks(frames, [names.get(k, f"class {k}") for k in range(count)])


def _by_stamp(predictions: AnnotationSet, truth: Truth, path: Path) -> AnnotationSet:
    """Give a bag's predictions the images of the truth that have the same stamp."""
    images = {i.stamp: i for i in truth.set.images if i.stamp}
    stamps = {i.id: i.stamp for i in predictions.images}
    known = np.array([stamps[int(i)] in images for i in predictions.image_ids], bool)
    if len(predictions) and not known.any():
        raise InputError(
            "no stamp of its tracks is in the ground truth", str(path), "is it the same drive?"
        )
    chosen = predictions.select(known)
    chosen.image_ids = np.array([images[stamps[int(i)]].id for i in chosen.image_ids], np.int64)
    chosen.images = truth.set.images
    return chosen
