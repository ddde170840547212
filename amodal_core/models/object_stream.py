"""A detector's objects of a stream with identities, and what a model remembers of each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from amodal_core.frame import Frame, Instances, Report, joined
from amodal_core.tracking import Tracker, TrackerConfig


@dataclass
class Present:
    """The objects of a frame.

    Attributes:
        instances: N, on the host: what was detected, then what is hidden.
        boxes: (N, 4) float32 xyxy, where to look: the visible box, the whole one of objects that
            show nothing.
        ids: (N,) int64 identities in the stream, -1 where a detection was too faint for one.
    """

    instances: Instances
    boxes: np.ndarray
    ids: np.ndarray


class ObjectStream:
    """Follows a detector's objects; what is kept of an object ends with its track.

    A track ends after 3 s unseen at the latest (see `TrackerConfig`), so that the memory is bounded
    by the objects of the last seconds. Time that jumps back ends all of them.
    """

    def __init__(self) -> None:
        # An object is remembered from its first sight; who uses the result confirms it.
        self._tracker = Tracker(TrackerConfig(min_hits=1))
        self._memory: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        """Objects that are remembered."""
        return len(self._memory)

    def reset(self) -> None:
        """Forget all."""
        self._tracker.reset()
        self._memory.clear()

    def follow(self, detections: Instances, frame: Frame, report: Report) -> Present:
        """Give the next frame's detections their identities, and add the objects that are hidden.

        Hidden is an object that no detection explains while something nearer lies over its place;
        it stands where its motion takes it, its visible mask empty.
        """
        tracks = self._tracker.step(detections, frame.stamp, frame, report)
        origins = self._tracker.origins
        ids = np.full(len(detections), -1, np.int64)
        matched = origins >= 0
        ids[origins[matched]] = tracks.ids[matched]
        unmatched = np.flatnonzero(~matched & (tracks.visible.rle().areas() == 0))
        self._memory = {k: self._memory[k] for k in tracks.ids.tolist() if k in self._memory}
        instances = joined([detections, tracks[unmatched]]) if len(unmatched) else detections
        shown = np.asarray(instances.visible_boxes, np.float32)
        some = np.all(shown[:, 2:] > shown[:, :2], axis=1)
        boxes = np.where(some[:, None], shown, np.asarray(instances.amodal_boxes, np.float32))
        return Present(instances, boxes, np.concatenate([ids, tracks.ids[unmatched]]))

    def recall(self, ids: np.ndarray, begin: torch.Tensor) -> torch.Tensor:
        """(N, ...): what was kept of each object, its row of `begin` (N, ...) where nothing was."""
        if not len(ids):
            return begin
        states = (self._memory.get(k) for k in ids.tolist())
        return torch.stack([b if m is None else m for m, b in zip(states, begin, strict=True)])

    def keep(self, ids: np.ndarray, values: torch.Tensor) -> None:
        """Keep a value (N, ...) of each object that has an identity."""
        for k, value in zip(ids.tolist(), values, strict=True):
            if k >= 0:
                self._memory[k] = value
