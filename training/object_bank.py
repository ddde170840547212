"""The annotated objects of a training set with their returns, to be put into other scans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amodal_core import pickles
from amodal_core.errors import foreign
from amodal_core.files import atomic
from amodal_core.geometry.boxes3d import points_in_boxes
from amodal_core.geometry.projection import in_view
from amodal_core.progress import StageProgress

from .sources import Samples


@dataclass(frozen=True, eq=False)
class ObjectBank:
    """M objects.

    Attributes:
        classes: of the model.
        boxes: (M, 7) float32 as in `Instances.boxes3d`, where they stood.
        labels: (M,) int64 class ids.
        first: (M + 1,) int64, where each one's points begin.
        points: (P, 4) float32 x, y, z, intensity, where they lay.
    """

    classes: tuple[str, ...]
    boxes: np.ndarray
    labels: np.ndarray
    first: np.ndarray
    points: np.ndarray

    def of_class(self, label: int) -> np.ndarray:
        """Numbers of the objects of a class."""
        return np.flatnonzero(self.labels == label)

    def points_of(self, number: int) -> np.ndarray:
        """(N, 4) float32, the returns on an object."""
        return self.points[self.first[number] : self.first[number + 1]]


def collect(
    samples: Samples, classes: Sequence[str], least: Mapping[str, int], progress: StageProgress
) -> ObjectBank:
    """The objects that the image shows, that are not too hard and have returns enough.

    Args:
        samples: of the training, annotated with 3D boxes.
        classes: of the model.
        least: returns that an object of a class must have; 1 for classes that are not named.
        progress: told how far it is.
    """
    boxes, labels, points = [], [], []
    for index in range(len(samples)):
        progress("collecting objects", index, len(samples))
        sample = samples[index]
        frame, truth = sample.frame, sample.truth
        if truth is None or truth.boxes3d is None or frame.points is None:
            continue
        scan = frame.points
        if frame.calibration is not None:
            scan = scan[in_view(scan, frame.calibration)]
        solid = np.asarray(truth.boxes3d)
        ready = np.isfinite(solid).all(axis=1) & ~np.asarray(truth.ignore, bool)
        hard = samples.hard(index)
        rows = np.flatnonzero(ready if hard is None else ready & ~hard)
        for row, inside in zip(rows, points_in_boxes(scan, solid[rows]), strict=True):
            label = int(truth.class_ids[row])
            if inside.sum() >= least.get(classes[label], 1):
                boxes.append(solid[row])
                labels.append(label)
                points.append(scan[inside, :4])
    return ObjectBank(
        tuple(classes),
        np.array(boxes, np.float32).reshape(-1, 7),
        np.array(labels, np.int64),
        np.cumsum([0, *map(len, points)]),
        np.concatenate(points or [np.zeros((0, 4))]).astype(np.float32),
    )


def bank_of(
    samples: Samples,
    classes: Sequence[str],
    least: Mapping[str, int],
    cache: Path,
    progress: StageProgress,
) -> ObjectBank:
    """The same, kept in `cache` under a name that follows from samples, classes and limits."""
    sources = [
        (str(Path(data.path).resolve()), [data.place(k).name for k in chosen])
        for data, chosen in samples.sources
    ]
    told = json.dumps([sources, list(classes), dict(least)], sort_keys=True)
    path = cache / f"objects_{hashlib.sha256(told.encode()).hexdigest()[:12]}.npz"
    if not path.exists():
        bank = collect(samples, classes, least, progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part, part.open("wb") as file:
            np.savez(
                file, boxes=bank.boxes, labels=bank.labels, first=bank.first, points=bank.points
            )
        return bank
    with foreign(path, "no objects of scans", "remove it"), pickles.Arrays(path) as stored:
        return ObjectBank(
            tuple(classes), *(stored[n] for n in ("boxes", "labels", "first", "points"))
        )
