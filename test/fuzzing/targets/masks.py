"""Masks, results and what an evaluation keeps of them."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from datasets_scenes import CLASSES, SIZE

from amodal_core.evaluation import results
from amodal_core.evaluation.formats import read_predictions
from amodal_core.evaluation.matching import Matches
from amodal_core.evaluation.sets import ImageRecord, empty_set
from amodal_core.evaluation.truth import Truth
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.runs import Runs
from amodal_core.masks.validate import SegmentationError, to_rle
from fuzzing import mutations as spoil

from .base import SAMPLES, add, file_of


def _segmentation(data: bytes, _: Path) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    size = SIZE
    if isinstance(value, dict) and isinstance(value.get("size"), list):
        with suppress(ValueError, TypeError, OverflowError):
            size = tuple(map(int, value["size"]))[:2]  # type: ignore[assignment]
    with suppress(SegmentationError):
        if len(size) == 2:
            to_rle(value, size)


def _rle(data: bytes, _: Path) -> None:
    with suppress(ValueError):
        RleMasks(SIZE, [data]).check()
    with suppress(ValueError):
        Runs.parse([data], np.array([SIZE[0]]), np.array([SIZE[1]]))


_truth = SAMPLES[0].truth
assert _truth is not None
_COUNTS = [c for m in (_truth.amodal, _truth.visible) for c in m.rle().counts]
_SEGMENTATIONS: list[Any] = [
    [[40, 20, 70, 20, 70, 50, 40, 50], [1, 1, 5, 1, 5, 5]],
    {"size": list(SIZE), "counts": _COUNTS[0].decode()},
    {"size": list(SIZE), "counts": [100, 50, SIZE[0] * SIZE[1] - 150]},
]
add("segmentation", [json.dumps(s).encode() for s in _SEGMENTATIONS], spoil.of_json, _segmentation)
add("rle", _COUNTS, spoil.of_bytes, _rle)

_IMAGES = [ImageRecord(k + 1, *SIZE, f"{k}", "v", k) for k in range(2)]
_TRUTH = Truth(empty_set(_IMAGES, CLASSES), {k + 1: k for k in range(3)}, {1: "v"})
_ROW = {
    "image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 2, 30, 40], "id": 3,
    "segmentation": _SEGMENTATIONS[1], "instance_id": 4, "occlusion_rate": 0.5, "depth": 9.0,
}  # fmt: skip
_YTVIS = {"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [_SEGMENTATIONS[1], None]}
_BOTH = _ROW | {"inmodal_seg": _SEGMENTATIONS[1], "inmodal_bbox": [1, 2, 3, 4]}


def _predictions(path: Path) -> None:
    predictions = read_predictions(path, _TRUTH)
    for kind in ("visible", "amodal"):
        if predictions.has(kind):
            predictions.areas(kind)


add("results", [json.dumps([r, r]).encode() for r in (_ROW, _YTVIS, _BOTH)], spoil.of_json,
     file_of("r.json", _predictions))  # fmt: skip


def _evaluation() -> list[bytes]:
    names = {"images": [1, 2], "classes": ["car"], "score": [0.5], "image": [0], "class_id": [0]}
    arrays = {k: np.array(v) for k, v in names.items()} | {"rank": np.zeros(1, np.int16)}
    hits = {k: np.zeros((1, 10), bool) for k in ("hit", "ignored")}
    file = io.BytesIO()
    np.savez(file, **arrays, **hits, truth=np.ones((2, 1), np.int32))
    return [file.getvalue()]


add("matches", _evaluation(), spoil.of_zip(spoil.of_npy), file_of("m.npz", Matches.load))


def _compared(path: Path) -> None:
    path.with_name("matches_amodal.npz").write_bytes(_evaluation()[0])
    run = results.read(path.parent)
    results.compare_runs([run, run], draws=10)


_METRICS = {"level": "image", "protocol": "coco", "scores": {"amodal": {}}, "inputs": {"gt": "a"}}
add("metrics", [json.dumps(_METRICS).encode()], spoil.of_json, file_of("metrics.json", _compared))
