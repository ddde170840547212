"""Predictions from and to files: COCO results, KINS' names, YouTube-VIS (GenVIS) lists, bags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.bags.reader import BagReader, is_bag
from amodal_core.errors import InputError
from amodal_core.evaluation.sets import AnnotationSet, ImageRecord
from amodal_core.evaluation.truth import Truth, array_topics, read_bag
from amodal_core.files import write_json
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.rle import RleError
from amodal_core.masks.runs import Runs
from amodal_core.masks.validate import SegmentationError, to_rle
from amodal_core.progress import ProgressBar, no_bar

TRACKS_BAG = "tracks.mcap"  # what `amodal replay` writes into its folder
_RESULT_FILES = {"visible": "visible.json", "amodal": "amodal.json"}
# Fields of files that hold both masks of an object: COCO with visible masks, KINS 2019 and 2020.
_VISIBLE = ("visible_mask", "segm_visible", "inmodal_seg", "i_segm")
_AMODAL = ("segm_amodal", "a_segm", "segmentation")


def check_apart(truth: str | Path, predictions: str | Path) -> None:
    """Refuse a ground truth that is given as its own predictions, before either is read.

    A bag may hold tracks beside its ground truth, and the folder of a data set results: those are
    what is evaluated.

    Raises:
        InputError: both are one path, with no predictions in it.
    """
    path = Path(predictions)
    if not path.exists() or Path(truth).resolve() != path.resolve():
        return
    if path.is_dir() and any((path / n).exists() for n in (TRACKS_BAG, *_RESULT_FILES.values())):
        return
    if is_bag(path):
        with BagReader(path) as bag:
            if array_topics(bag, "tracks"):
                return
    raise InputError(
        "given as ground truth and as predictions, and no predictions are in it",
        str(path),
        "give --dt the --out of `amodal infer` or `amodal replay`",
    )


def read_predictions(
    path: str | Path, truth: Truth, kind: str = "amodal", progress: ProgressBar = no_bar
) -> AnnotationSet:
    """Predictions for the images of a ground truth.

    Args:
        path: a folder with visible.json and amodal.json, one COCO results file, a YouTube-VIS
            result list, a bag with tracks, or the folder that `amodal replay` wrote one into.
        truth: what they will be compared with.
        kind: which masks a single results file holds, "visible" or "amodal".
        progress: wraps an iterable of known length to show progress.

    Raises:
        InputError: the file is none of these, or does not fit the truth.
    """
    path = Path(path)
    if (path / TRACKS_BAG).exists():
        path = path / TRACKS_BAG
    if is_bag(path):
        return _by_stamp(read_bag(path, "tracks", progress), truth, path)
    if path.is_dir():
        rows_by_kind = {
            k: path / name for k, name in _RESULT_FILES.items() if (path / name).is_file()
        }
        if not rows_by_kind:
            raise InputError(
                f"neither visible.json nor amodal.json nor {TRACKS_BAG}",
                str(path),
                "give a folder of results, a results file, a bag or the --out of `amodal replay`",
            )
        return _join({k: _read_json(p) for k, p in rows_by_kind.items()}, truth, path)
    rows = _read_json(path)
    if rows and "segmentations" in rows[0]:
        return _from_videos(rows, truth, kind, path)
    if rows and any(name in rows[0] for name in _VISIBLE):
        return _join(
            {"visible": _field(rows, _VISIBLE), "amodal": _field(rows, _AMODAL)}, truth, path
        )
    return _join({kind: rows}, truth, path)


def _field(rows: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows with the mask under the first of these names as their `segmentation`."""
    name = next((n for n in names if n in rows[0]), names[-1])
    return [{**row, "segmentation": row.get(name)} for row in rows]


def write_results(
    predictions: AnnotationSet, out: str | Path, category_ids: Sequence[int]
) -> list[Path]:
    """Write visible.json and amodal.json in COCO's results format.

    Beside COCO's fields each entry has `id` (the same in both files), `instance_id`,
    `occlusion_rate` and `depth`.

    Args:
        predictions: the predictions.
        out: a folder, made where it is missing.
        category_ids: the category id of each class.

    Returns:
        The files written; a file is left out where the set has no masks of its kind.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, name in _RESULT_FILES.items():
        if not predictions.has(kind):
            continue
        rows = []
        for n, mask in enumerate(predictions.rle(kind)):
            x0, y0, x1, y1 = predictions.boxes[n].tolist()
            rate = predictions.occlusion_rates[n]
            rows.append(
                {
                    "id": n + 1,
                    "image_id": int(predictions.image_ids[n]),
                    "category_id": int(category_ids[predictions.class_ids[n]]),
                    "score": float(predictions.scores[n]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
                    "instance_id": int(predictions.instance_ids[n]),
                    "occlusion_rate": None if np.isnan(rate) else float(rate),
                    "depth": float(predictions.depths[n]),
                }
            )
        write_json(rows, out / name)
        written.append(out / name)
    return written


def write_kins_results(
    predictions: AnnotationSet, path: str | Path, category_ids: Sequence[int]
) -> None:
    """Write one list with both masks of each object, under the names of KINS' annotations.

    Args:
        predictions: predictions with amodal and visible masks.
        path: the file.
        category_ids: the category id of each class.

    Raises:
        InputError: the set lacks one kind of mask.
    """
    visible, rows = predictions.rle("visible"), []
    visible_boxes = predictions.runs("visible").boxes
    for n, mask in enumerate(predictions.rle("amodal")):
        x0, y0, x1, y1 = predictions.boxes[n].tolist()
        u0, v0, u1, v1 = visible_boxes[n].tolist()
        rows.append(
            {
                "image_id": int(predictions.image_ids[n]),
                "category_id": int(category_ids[predictions.class_ids[n]]),
                "score": float(predictions.scores[n]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
                "inmodal_bbox": [u0, v0, u1 - u0, v1 - v0],
                "inmodal_seg": {
                    "size": visible[n]["size"],
                    "counts": visible[n]["counts"].decode(),
                },
            }
        )
    write_json(rows, Path(path))


def write_video_results(
    predictions: AnnotationSet, path: str | Path, kind: str, truth: Truth
) -> None:
    """Write a YouTube-VIS result list: one entry a track with one RLE or null a frame."""
    names = {name: k for k, name in truth.videos.items()}
    images = {i.id: i for i in truth.set.images}
    frames = {video: truth.frames(video) for video in names}
    places = {i.id: n for of_video in frames.values() for n, i in enumerate(of_video)}
    category = {k: c for c, k in truth.category_ids.items()}
    tracks: dict[tuple[str, int], list[int]] = {}
    for n, image_id in enumerate(predictions.image_ids):
        video = images[int(image_id)].video
        tracks.setdefault((video, int(predictions.instance_ids[n])), []).append(n)
    rles, rows = predictions.rle(kind), []
    for (video, _), members in tracks.items():
        segmentations: list[dict[str, Any] | None] = [None] * len(frames[video])
        for n in members:
            mask = rles[n]
            segmentations[places[int(predictions.image_ids[n])]] = {
                "size": mask["size"],
                "counts": mask["counts"].decode(),
            }
        rows.append(
            {
                "video_id": names[video],
                "category_id": category[int(np.bincount(predictions.class_ids[members]).argmax())],
                "score": float(predictions.scores[members].mean()),
                "segmentations": segmentations,
            }
        )
    write_json(rows, Path(path))


def _read_json(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise InputError("there is no such file", str(path), "check the path")
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", str(path), "write it again") from error
    if isinstance(rows, dict) and "annotations" in rows:
        raise InputError(
            "this is a ground truth, not a list of results",
            str(path),
            "give it as --gt, and a list of results as --dt",
        )
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise InputError("not a list of results", str(path), "COCO or YouTube-VIS results")
    return rows


def _mask(segmentation: Any, size: tuple[int, int], where: str) -> bytes:
    """Compressed counts of an RLE (compressed or not) or of polygons; no polygon is no pixel."""
    if segmentation == []:
        return RleMasks.empty(size, 1).counts[0]
    try:
        return to_rle(segmentation, size, walk=False)
    except SegmentationError as error:
        raise InputError(
            f"not a COCO segmentation: {error}", where, "RLE or polygons of the image's own size"
        ) from None


def _category(row: dict[str, Any], truth: Truth, where: str) -> int:
    category = row.get("category_id")
    if not isinstance(category, int) or category not in truth.category_ids:
        in_truth = ", ".join(map(str, sorted(truth.category_ids)))
        raise InputError(
            f"category id {category!s:.40} is not in the ground truth",
            where,
            f"it has {len(truth.category_ids)} categories: {in_truth}; class lists must agree",
        )
    return truth.category_ids[category]


def _number(
    row: dict[str, Any],
    name: str,
    default: float,
    where: str,
    limits: tuple[float, float] = (0.0, 1.0),
) -> float:
    value = row.get(name)
    try:
        number = default if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} is {value!r:.40}, no number", where, "write it again") from None
    if value is not None and not limits[0] <= number <= limits[1]:
        low, high = limits
        raise InputError(
            f"{name} is {number:g}, not in {low:g} to {high:g}", where, "write it again"
        )
    return number


def _score(row: dict[str, Any], where: str) -> float:
    """An entry's score; without one AP would be that of the file's order."""
    if row.get("score") is None:
        raise InputError("no score", where, "give each entry one, 0 to 1")
    return _number(row, "score", 0.0, where)


def _of_one_object(
    rows_by_kind: dict[str, list[dict[str, Any]]], path: Path
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """The rows that lead, and those of each kind of mask in their order: a place is an object."""
    lead = rows_by_kind[list(rows_by_kind)[-1]]  # amodal where there is one: boxes are amodal
    others: dict[str, list[dict[str, Any]]] = {}
    for kind, rows in rows_by_kind.items():
        if len(rows) != len(lead):
            raise InputError(
                f"visible.json and amodal.json have {len(rows_by_kind['visible'])} and "
                f"{len(rows_by_kind['amodal'])} entries",
                str(path),
                "both list the same objects",
            )
        by_id = {str(row["id"]): row for row in rows if "id" in row}
        if len(by_id) == len(lead) and all(str(row.get("id")) in by_id for row in lead):
            rows = [by_id[str(row["id"])] for row in lead]
        elif any(a.get("image_id") != b.get("image_id") for a, b in zip(rows, lead, strict=True)):
            raise InputError(
                "visible.json and amodal.json list different images",
                str(path),
                "give both the same order, or an id to each entry",
            )
        others[kind] = rows
    return lead, others


def _join(rows_by_kind: dict[str, list[dict[str, Any]]], truth: Truth, path: Path) -> AnnotationSet:
    """One set from one result list a kind of mask; entries are joined by `id`, else by order."""
    lead, others = _of_one_object(rows_by_kind, path)
    # Masks, checked one by one, then parsed together.
    sizes = truth.set.sizes()
    masks: dict[str, list[bytes | None]] = {k: [None] * len(lead) for k in ("visible", "amodal")}
    for n, row in enumerate(lead):
        where = f"{path} entry {n}"
        image = row.get("image_id")
        if not isinstance(image, int) or image not in sizes:
            raise InputError(
                f"image id {row.get('image_id')!s:.40} is not in the ground truth",
                where,
                "use the image ids of the ground truth",
            )
        for kind, rows in others.items():
            segmentation = rows[n].get("segmentation")
            if segmentation is not None:
                masks[kind][n] = _mask(segmentation, sizes[row["image_id"]], where)
    wheres = [f"{path} entry {n}" for n in range(len(lead))]
    extent = [sizes[row["image_id"]] for row in lead]
    amodal, visible = (_parsed(masks[k], extent, wheres) for k in ("amodal", "visible"))
    has_amodal, has_visible = (
        np.array([c is not None for c in masks[k]], bool) for k in ("amodal", "visible")
    )
    # Boxes of entries without one: of the amodal mask, else of the visible one.
    boxes = np.where(has_amodal[:, None], amodal.boxes, visible.boxes).astype(np.float64)
    boxes[~has_amodal & ~has_visible] = np.nan
    # Hidden shares of entries without one: by the entry's own two masks.
    rates = 1 - amodal.shared(visible) / np.maximum(amodal.areas, 1)
    rates[amodal.areas == 0] = 0.0
    rates[~has_amodal | ~has_visible] = np.nan

    def numbers(
        name: str, default: float | np.ndarray, limits: tuple[float, float] = (0.0, 1.0)
    ) -> np.ndarray:
        defaults = np.broadcast_to(default, len(lead)).tolist()
        rows = zip(lead, defaults, wheres, strict=True)
        return np.array([_number(row, name, d, where, limits) for row, d, where in rows])

    return AnnotationSet(
        images=truth.set.images,
        classes=truth.set.classes,
        image_ids=np.array([r["image_id"] for r in lead]),
        class_ids=np.array([_category(r, truth, w) for r, w in zip(lead, wheres, strict=True)]),
        instance_ids=numbers("instance_id", -1, (-1, 2**53)),
        scores=np.array([_score(r, w) for r, w in zip(lead, wheres, strict=True)]),
        amodal=masks["amodal"],
        visible=masks["visible"],
        boxes=np.array([_box(r, b, w) for r, b, w in zip(lead, boxes, wheres, strict=True)]),
        occlusion_rates=numbers("occlusion_rate", rates),
        crowd=np.zeros(len(lead), bool),
        depths=numbers("depth", 0.0, (0.0, 1e6)),
    )


def _parsed(
    counts: list[bytes | None], sizes: Sequence[tuple[int, int]], wheres: Sequence[str]
) -> Runs:
    """The masks as runs, empty where there is none."""
    present = [n for n, c in enumerate(counts) if c is not None]
    extent = np.array([sizes[n] for n in present], np.int64).reshape(-1, 2)
    try:
        runs = Runs.parse([c for c in counts if c is not None], extent[:, 0], extent[:, 1])
    except RleError as error:
        raise InputError(
            "not a COCO segmentation: RLE counts that do not fill the image",
            wheres[present[error.index]],
            "write the file again",
        ) from None
    places = np.full(len(counts), -1, np.int64)
    places[present] = np.arange(len(present))
    return runs[places]


def _box(row: dict[str, Any], box: np.ndarray, where: str) -> list[float]:
    """The box of an entry as xyxy: as predicted, else that of its mask."""
    if "bbox" not in row:
        corners: list[float] = box.tolist()
        return corners
    try:
        x, y, w, h = map(float, row["bbox"])
        if not np.isfinite([x, y, w, h]).all():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"bbox is {row['bbox']!r:.80}, not x, y, width, height", where, "write it again"
        ) from None
    return [x, y, x + w, y + h]


def _from_videos(rows: list[dict[str, Any]], truth: Truth, kind: str, path: Path) -> AnnotationSet:
    """A YouTube-VIS list: each entry is a track, `segmentations` one RLE or null a frame."""
    frames = {video: truth.frames(video) for video in truth.videos.values()}
    entries: list[tuple[int, ImageRecord]] = []
    masks: list[bytes | None] = []
    for n, row in enumerate(rows):
        where = f"{path} entry {n}"
        number = row.get("video_id")
        if not isinstance(number, int) or number not in truth.videos:
            raise InputError(
                f"video id {row.get('video_id')!s:.40} is not in the ground truth",
                where,
                f"it has {len(truth.videos)} videos, ids {min(truth.videos, default=0)} to "
                f"{max(truth.videos, default=0)}",
            )
        images = frames[truth.videos[number]]
        if not isinstance(row.get("segmentations"), list):
            raise InputError("no list of segmentations", where, "one RLE or null a frame")
        if len(row["segmentations"]) > len(images):
            raise InputError(
                f"{len(row['segmentations'])} frames, the video has {len(images)}",
                where,
                "one RLE or null for each frame of the ground truth, in order",
            )
        for image, segmentation in zip(images, row["segmentations"], strict=False):
            if segmentation is None:
                continue
            masks.append(_mask(segmentation, (image.height, image.width), where))
            entries.append((n, image))
    sizes = [(image.height, image.width) for _, image in entries]
    runs = _parsed(masks, sizes, [f"{path} entry {n}" for n, _ in entries])
    # GenVIS writes an all-zero mask where the object is not there.
    present = np.flatnonzero(runs.areas)
    entries, masks = [entries[k] for k in present], [masks[k] for k in present]
    none: list[bytes | None] = [None] * len(entries)
    wheres = [f"{path} entry {n}" for n in range(len(rows))]
    classes = [_category(row, truth, where) for row, where in zip(rows, wheres, strict=True)]
    scores = [_score(row, where) for row, where in zip(rows, wheres, strict=True)]
    tracks = np.array([n for n, _ in entries], np.int64)
    return AnnotationSet(
        images=truth.set.images,
        classes=truth.set.classes,
        image_ids=np.array([image.id for _, image in entries]),
        class_ids=np.array(classes, np.int64)[tracks],
        instance_ids=tracks,
        scores=np.array(scores, np.float64)[tracks],
        amodal=masks if kind == "amodal" else none,
        visible=masks if kind == "visible" else none,
        boxes=runs.boxes[present],
        occlusion_rates=np.full(len(entries), np.nan),
        crowd=np.zeros(len(entries), bool),
        depths=np.zeros(len(entries)),
    )


def _by_stamp(predictions: AnnotationSet, truth: Truth, path: Path) -> AnnotationSet:
    """Give a bag's predictions the images of the truth that have the same stamp."""
    images = {i.stamp: i for i in truth.set.images if i.stamp}
    stamps = {i.id: i.stamp for i in predictions.images}
    in_truth = np.array([stamps[int(i)] in images for i in predictions.image_ids], bool)
    if len(predictions) and not in_truth.any():
        raise InputError(
            "no stamp of its tracks is in the ground truth", str(path), "is it the same drive?"
        )
    chosen = predictions.select(in_truth)
    chosen.image_ids = np.array([images[stamps[int(i)]].id for i in chosen.image_ids], np.int64)
    chosen.images = truth.set.images
    return chosen
