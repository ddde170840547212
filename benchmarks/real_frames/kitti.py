"""Models on six real KITTI frames whose objects were drawn by hand, hidden parts included.

    PYTHONPATH=. python benchmarks/real_frames/kitti.py FOLDER geometric blind=flagship,scans=no

FOLDER holds frames 8, 14 and 30 of a raw drive and the three first ones of the object benchmark,
under the paths that `kitti.json` names; no pixel of them is kept here. A model is given as to
`camvid.py`, and scans=no hides the scans from it. OUT=... as first argument writes overlays.

`kitti.json` lists a frame's objects from the nearest on, each a polygon of the whole object as it
must be; an object shows where none before it in the list lies. Regions of `ignore` hold objects
under 20 pixels of height, parked bicycles and a trailer: detections that show there do not count.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from camvid import GROUPS, SCORE, model_of

from amodal_core.datasets.kitti import KittiObject, KittiRaw
from amodal_core.frame import Frame, Report, Tracks
from amodal_core.inference import tracks_of
from amodal_core.models.base import Model

LABELS = Path(__file__).parent / "kitti.json"
IOU = 0.5  # of amodal masks, from which on an object is detected
HIDDEN = 0.1  # share of an object from which on its hidden part is compared
COLUMNS = ("recall", "precision", "visible mIoU", "amodal mIoU", "hidden IoU")


@dataclass(frozen=True)
class Labelled:
    """A frame and what was drawn on it.

    Attributes:
        name: path below the data's folder.
        frame: with its scan.
        groups: (N,) name of each object's group, as in `camvid.GROUPS`.
        amodal: (N, H, W) bool.
        visible: (N, H, W) bool.
        ignore: (H, W) bool.
    """

    name: str
    frame: Frame
    groups: np.ndarray
    amodal: np.ndarray
    visible: np.ndarray
    ignore: np.ndarray


def group_of(name: str) -> str:
    """The group of a class, "" for one that nobody drew."""
    return next((g for g, (_, names) in GROUPS.items() if name in names), "")


def labelled(root: Path) -> list[Labelled]:
    """All frames that were drawn on."""
    result = []
    for name, content in json.loads(LABELS.read_text()).items():
        path = root / name
        parents = path.parents
        data = (KittiRaw if "kitti_raw" in name else KittiObject)(parents[2])
        index = next(k for k in range(len(data)) if data.files(k).image == path)
        groups, amodal, visible, ignore = drawn(content)
        result.append(Labelled(name, data.frame(index), groups, amodal, visible, ignore))
    return result


def drawn(content: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A frame's groups, whole and visible masks and ignored region, from its entry in the file."""
    width, height = content["size"]
    objects = content["objects"]
    amodal = np.array([_drawn([o["amodal"]], (height, width)) for o in objects])
    visible = amodal.copy()
    visible[1:] &= ~np.logical_or.accumulate(amodal)[:-1]
    ignore = _drawn(content["ignore"], (height, width))
    return np.array([group_of(o["class"]) for o in objects]), amodal, visible, ignore


def _drawn(polygons: list[list[list[int]]], size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.array(polygon, np.int32)], 1)
    return mask.astype(bool)


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M) IoU of (N, H, W) and (M, H, W) masks; 0 where both are empty."""
    a, b = (m.reshape(len(m), m.shape[1] * m.shape[2]).astype(np.float32) for m in (first, second))
    shared = a @ b.T
    return np.asarray(shared / np.maximum(a.sum(1)[:, None] + b.sum(1)[None] - shared, 1))


def compare(frame: Labelled, detections: Tracks, classes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What became of each object of a frame, and of each detection.

    Detections take objects of their group one by one, best score first, by the IoU of whole masks.

    Returns:
        "visible", "amodal": (N,) IoU of each object's detection, 0 where it has none; "hidden":
        likewise of the hidden parts, NaN of objects that are not hidden; "correct": (M,) 1, 0 or
        NaN, for detections that do not count.
    """
    n, m = len(frame.groups), len(detections)
    amodal = detections.amodal.rle().dense() if m else np.zeros((0, *frame.ignore.shape), bool)
    visible = detections.visible.rle().dense() if m else amodal
    groups = np.array([group_of(classes[c]) for c in detections.class_ids], dtype=object)
    iou = overlaps(amodal, frame.amodal) * (groups[:, None] == frame.groups[None])
    values = {k: np.zeros(n) for k in ("visible", "amodal", "hidden")}
    shown = frame.visible.reshape(n, -1).sum(1) / frame.amodal.reshape(n, -1).sum(1)
    values["hidden"][1 - shown < HIDDEN] = np.nan
    correct = np.zeros(m)
    for k in np.argsort(-np.asarray(detections.scores), kind="stable"):
        best = int(iou[k].argmax())
        if iou[k, best] < IOU:
            area = visible[k].sum()
            if area and (visible[k] & frame.ignore).sum() > 0.5 * area:
                correct[k] = np.nan
            continue
        correct[k] = 1
        values["amodal"][best] = iou[k, best]
        values["visible"][best] = _iou(visible[k], frame.visible[best])
        if not np.isnan(values["hidden"][best]):
            behind = frame.amodal[best] & ~frame.visible[best]
            values["hidden"][best] = _iou(amodal[k] & ~visible[k], behind)
        iou[:, best] = 0
    return values | {"correct": correct}


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / max((first | second).sum(), 1))


def scores(
    model: Model, frames: list[Labelled], scans: bool = True, score: float = SCORE
) -> tuple[dict[str, float], list[Tracks]]:
    """The columns of the table, 0-1, and the detections of each frame."""
    rows, results = [], []
    for one in frames:
        frame = one.frame if scans else replace(one.frame, points=None)
        (detections,) = tracks_of(model, [frame], Report())
        detections = detections[np.asarray(detections.scores) >= score]
        results.append(detections)
        rows.append(compare(one, detections, model.classes))
    every = {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}
    counted = every["correct"][~np.isnan(every["correct"])]
    values = (
        (every["amodal"] > 0).mean(),
        counted.mean() if len(counted) else 0.0,
        every["visible"].mean(),
        every["amodal"].mean(),
        np.nanmean(every["hidden"]),
    )
    return dict(zip(COLUMNS, map(float, values), strict=True)), results


def overlay(frame: Labelled, detections: Tracks, classes: tuple[str, ...]) -> np.ndarray:
    """The image with each detection: what shows filled, the whole outlined; labels in white."""
    assert frame.frame.image is not None
    image = np.ascontiguousarray(frame.frame.image[..., ::-1])
    for mask in frame.amodal:
        edges = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, edges[0], -1, (255, 255, 255), 1)
    for k in range(len(detections)):
        colour = tuple(int(v) for v in np.random.default_rng(k).integers(60, 256, 3))
        amodal, visible = (m[k].rle().dense()[0] for m in (detections.amodal, detections.visible))
        image[visible] = (0.6 * image[visible] + 0.4 * np.array(colour)).astype(np.uint8)
        edges = cv2.findContours(amodal.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, edges[0], -1, colour, 2)
        x, y = (int(v) for v in detections.amodal_boxes[k][:2])
        text = f"{classes[detections.class_ids[k]]} {detections.scores[k]:.2f}"
        cv2.putText(image, text, (x, max(y, 10)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1)
    return image


def main(arguments: list[str]) -> None:
    """Print a row a model."""
    out = Path(arguments.pop(0)[4:]) if arguments[0].startswith("OUT=") else None
    frames = labelled(Path(arguments[0]))
    print("| model | " + " | ".join(COLUMNS) + " |")
    for text in arguments[1:]:
        scans = ",scans=no" not in text
        label, model = model_of(text.replace(",scans=no", ""))
        values, results = scores(model, frames, scans)
        print(f"| {label} | " + " | ".join(f"{v:.2f}" for v in values.values()) + " |", flush=True)
        if out is None:
            continue
        out.mkdir(parents=True, exist_ok=True)
        for number, (one, detections) in enumerate(zip(frames, results, strict=True)):
            image = overlay(one, detections, model.classes)
            cv2.imwrite(str(out / f"{label}_{number}.png"), image)


if __name__ == "__main__":
    main(sys.argv[1:])
