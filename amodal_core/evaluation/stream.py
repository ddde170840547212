"""Accuracy of a stream of tracks against a stream of truth, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from amodal_core.errors import InputError
from amodal_core.evaluation import identity, image_level, tracking
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS, VIDEO_PROTOCOLS
from amodal_core.evaluation.run import Evaluation, evaluate
from amodal_core.evaluation.sets import AnnotationSet, ImageRecord, aligned, from_tracks
from amodal_core.evaluation.truth import Truth, with_classes_of
from amodal_core.frame import FrameWarning, Tracks

# Numbers that are no shares of 1.
COUNTS = frozenset(
    {
        *(name.replace(" ", "_") for name in tracking.COUNTS),
        "occlusions",
        "occlusions_of_tracks",
        "occlusions_survived",
    }
)


class StreamAccuracy:
    """Collects truth and tracks of the same images.

    Args:
        name: of the stream, the video's name in reports.
    """

    def __init__(self, name: str = "stream") -> None:
        self.name = name
        self._truths: list[tuple[ImageRecord, Tracks]] = []
        self._tracks: list[tuple[ImageRecord, Tracks]] = []
        self.warnings: list[FrameWarning] = []

    def __bool__(self) -> bool:
        """Whether there is any truth to compare with."""
        return any(len(t) for _, t in self._truths)

    def add(self, stamp: int, truth: Tracks, tracks: Tracks) -> None:
        """Take in one image.

        Args:
            stamp: nanoseconds.
            truth: what is there.
            tracks: what was found.
        """
        number = len(self._truths)
        height, width = tracks.size
        image = ImageRecord(number + 1, height, width, f"{number:06d}", self.name, number, stamp)
        self._truths.append((image, truth))
        self._tracks.append((image, tracks.numpy()))

    def values(self) -> dict[str, float]:
        """Amodal and visible AP, HOTA and kept identities; empty where there was no truth.

        Full occlusions are counted, too: all, those of objects that had been tracked before, and
        those of them after which the identity was the same.
        Classes are not compared: a stream need not say what its class ids mean.
        """
        if not self:
            return {}
        truth, tracks = (
            replace(side, classes=("object",), class_ids=np.zeros(len(side), np.int64))
            for side in (from_tracks(frames, ()) for frames in (self._truths, self._tracks))
        )
        predictions = aligned(truth, tracks)
        values: dict[str, float] = {}
        for kind in ("amodal", "visible"):
            scores = image_level.evaluate(truth, predictions, kind, IMAGE_PROTOCOLS["coco"])
            values.update({f"{kind}_{k}": v for k, v in scores.values.items()})
        try:
            values.update(tracking.evaluate(truth, predictions, class_agnostic=True)["all"])
        except InputError as error:
            self.warnings.append(FrameWarning("accuracy", str(error)))
        identities = identity.evaluate(truth, predictions)
        values["identity_kept"] = identities.kept
        values["occlusions"] = len(identities.occlusions)
        values["occlusions_of_tracks"] = identities.reappearances
        values["occlusions_survived"] = sum(o.kept for o in identities.occlusions)
        return {
            k.replace(" ", "_"): round(float(v), 4) for k, v in values.items() if np.isfinite(v)
        }

    def evaluation(
        self, truth_classes: dict[int, str], classes: Sequence[str]
    ) -> tuple[Evaluation, Truth, AnnotationSet]:
        """Everything that `amodal eval bag` computes, by class.

        Args:
            truth_classes: name by class id of the truth.
            classes: names of the tracks' class ids.

        Returns:
            The numbers, and the two sides for `results.write`.

        Raises:
            InputError: there was no truth, or masks of another size.
        """
        truth = Truth(from_tracks(self._truths, _names(self._truths, truth_classes)), {})
        predictions = from_tracks(self._tracks, classes)
        truth, absent = with_classes_of(truth, predictions)
        result = evaluate(truth.set, predictions, VIDEO_PROTOCOLS["default"], "video")
        if absent:
            result.notes.append(f"classes that the bag never shows, in no AP: {', '.join(absent)}")
        return result, truth, predictions


def _names(frames: Sequence[tuple[ImageRecord, Tracks]], names: dict[int, str]) -> list[str]:
    """A name for each class id that occurs."""
    top = max((int(t.class_ids.max()) for _, t in frames if len(t)), default=0)
    return [names.get(k, f"class {k}") for k in range(max(top, *names, 0) + 1)]
