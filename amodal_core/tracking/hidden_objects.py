"""Adds the hidden objects of a stream to what a model of single frames gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
from scipy.optimize import linear_sum_assignment

from amodal_core.frame import Frame, Instances, Tracks, joined
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import hiding
from amodal_core.tracking.carry import Carrier
from amodal_core.tracking.points import PointTracker

_MIN_IOU = 0.3  # IoU with where an object is expected, from which on it is the same object
_COVERED = 0.5  # share of an amodal mask that others must cover for it to be hidden
_T = TypeVar("_T", bound=Instances)


class HiddenObjects:
    """Adds to the objects of each frame those that are hidden; see `tracking.carry`.

    Args:
        points: follows points.
        seconds: for which a hidden object is remembered; 0 for not at all.
    """

    def __init__(self, points: PointTracker, seconds: float = 3.0) -> None:
        self._carrier = Carrier(points, seconds)
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._carrier.reset()
        self._last: dict[int, Instances] = {}
        self._next = 0

    def add_to_tracks(self, frame: Frame, tracks: Tracks) -> Tracks:
        """The next frame of a stream of known identities.

        Args:
            frame: with its image.
            tracks: those that show, on the host.

        Returns:
            They, then those that do not show, `coasted`, with an empty visible mask.
        """
        assert frame.image is not None
        self._carrier.advance(frame.image, frame.stamp)
        return self._with_hidden(np.asarray(tracks.ids), tracks)[0]

    def add_to_detections(self, frame: Frame, detections: Instances) -> Instances:
        """The next frame of a stream in which objects have no identities.

        An object is the one that is expected where it is. One that is not detected is only given
        out where others cover most of its place: a detector overlooks objects, too.

        Args:
            frame: with its image.
            detections: the objects that show.

        Returns:
            They, then those that are hidden, with an empty visible mask.
        """
        assert frame.image is not None
        detections = detections.numpy()
        expected = self._carrier.advance(frame.image, frame.stamp)
        ids = self._identify(expected, detections)
        result, hidden = self._with_hidden(ids, detections)
        if not hidden:
            return result
        others = detections.visible.rle().union()
        masks = result.amodal.rle()
        covered = masks.intersections(others)[:, 0] / np.maximum(masks.areas(), 1)
        detected = np.arange(len(result)) < len(detections)
        return result[detected | (covered >= _COVERED)]

    def _identify(self, expected: RleMasks, detections: Instances) -> np.ndarray:
        """(N,) int64 identities of the objects that show."""
        ids = np.full(len(detections), -1, np.int64)
        ids_before = self._carrier.ids
        if ids_before and len(detections):
            overlap = expected.iou(detections.amodal.rle())
            classes = np.array([int(self._last[k].class_ids[0]) for k in ids_before])
            overlap[classes[:, None] != np.asarray(detections.class_ids)[None, :]] = 0
            for i, j in zip(*linear_sum_assignment(-overlap), strict=True):
                if overlap[i, j] >= _MIN_IOU:
                    ids[j] = ids_before[i]
        new = ids < 0
        ids[new] = self._next + np.arange(new.sum())
        self._next += int(new.sum())
        return ids

    def _with_hidden(self, ids: np.ndarray, detections: _T) -> tuple[_T, bool]:
        """The objects that show and those that are carried, and whether there are any of these."""
        hidden, masks = self._carrier.settle(ids, detections.amodal.rle(), detections.visible.rle())
        for n, number in enumerate(ids.tolist()):
            self._last[number] = detections[[n]]
        self._last = {k: v for k, v in self._last.items() if k in set(self._carrier.ids)}
        if not len(hidden):
            return detections, False
        # What a stream gives is always of one kind, and so is what it left behind.
        carried = joined([cast(_T, self._last[k]) for k in hidden.tolist()])
        n = len(carried)
        changed: dict[str, Any] = {
            "amodal": masks,
            "amodal_boxes": masks.boxes(),
            "visible": RleMasks.empty(detections.size, n),
            "visible_boxes": np.zeros((n, 4), np.float32),
            "occlusion_rates": np.ones(n, np.float32),
            "boxes3d": None,
        }
        if isinstance(carried, Tracks):
            changed["coasted"] = np.ones(n, bool)
        result = joined([replace(detections, boxes3d=None), replace(carried, **changed)])
        own = np.asarray(detections.occluders, bool)
        occluders = hiding(result.amodal.rle(), result.visible.rle())
        occluders[: len(own), : len(own)] = own
        return replace(result, occluders=occluders), True
