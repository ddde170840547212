"""Accuracy of a stream of tracks against a stream of truth, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from amodal_core.errors import InputError
from amodal_core.evaluation import identity, image_level, tracking
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS
from amodal_core.evaluation.sets import ImageRecord, aligned, from_tracks
from amodal_core.frame import Tracks


class StreamAccuracy:
    """Collects truth and tracks of the same images; classes are not compared."""

    def __init__(self) -> None:
        self._truths: list[tuple[ImageRecord, Tracks]] = []
        self._found: list[tuple[ImageRecord, Tracks]] = []
        self.warnings: list[str] = []

    def add(self, stamp: int, truth: Tracks, tracks: Tracks) -> None:
        """Take in one image.

        Args:
            stamp: nanoseconds.
            truth: what is there.
            tracks: what was found.
        """
        number = len(self._truths)
        height, width = tracks.size
        image = ImageRecord(number + 1, height, width, f"{number:06d}", "stream", number, stamp)
        self._truths.append((image, truth))
        self._found.append((image, tracks.numpy()))

    def values(self) -> dict[str, float]:
        """Amodal and visible AP, HOTA and kept identities; empty where there was no truth."""
        if not any(len(t) for _, t in self._truths):
            return {}
        truth = from_tracks(self._truths, _enough(self._truths))
        truth = replace(truth, classes=("object",), class_ids=np.zeros(len(truth), np.int64))
        found = from_tracks(self._found, _enough(self._found))
        predictions = aligned(truth, found, class_agnostic=True)
        values: dict[str, float] = {}
        for kind in ("amodal", "visible"):
            scores = image_level.evaluate(truth, predictions, kind, IMAGE_PROTOCOLS["coco"])
            values.update({f"{kind}_{k}": v for k, v in scores.values.items()})
        try:
            values.update(tracking.evaluate(truth, predictions, class_agnostic=True)["all"])
        except InputError as error:
            self.warnings.append(str(error))
        values["identity_kept"] = identity.evaluate(truth, predictions).kept
        return {k: round(float(v), 4) for k, v in values.items() if np.isfinite(v)}


def _enough(frames: Sequence[tuple[ImageRecord, Tracks]]) -> list[str]:
    """A name for each class id that occurs."""
    top = max((int(t.class_ids.max()) for _, t in frames if len(t)), default=0)
    return [f"class {k}" for k in range(top + 1)]
