"""Filled boxes as a perfect detector and tracker would give them, and models that find two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amodal_core.frame import Calibration, Instances, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_order, occlusion_rates

Box = tuple[int, int, int, int]
# Of images of 400 x 200 pixels.
CALIBRATION = Calibration(
    np.array([[200.0, 0, 200], [0, 200, 100], [0, 0, 1]]),
    # The LiDAR a metre behind the camera, x forward, y left, z up.
    np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, -1], [0, 0, 0, 1]]),
    400,
    200,
)


def boxes_seen(size: tuple[int, int], boxes: Sequence[Box], depths: Sequence[float]) -> Instances:
    """Filled boxes as a detector would find them, the nearer before the farther."""
    n = len(boxes)
    amodal = RleMasks.from_boxes(np.array(boxes, float).reshape(n, 4), size)
    far = np.array(depths, np.float32).reshape(n)
    visible = amodal.layered(np.argsort(far, kind="stable"))
    return Instances(
        size=size,
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        scores=np.full(n, 0.9, np.float32),
        class_ids=np.zeros(n, np.int64),
        amodal=amodal,
        visible=visible,
        occlusion_rates=occlusion_rates(amodal, visible),
        depths=far,
        occluders=occlusion_order(far, amodal, visible),
    )


def tracks_seen(
    size: tuple[int, int],
    boxes: Sequence[Box],
    depths: Sequence[float],
    ids: Sequence[int] | None = None,
    coasted: Sequence[int] = (),
) -> Tracks:
    """The same as tracks, numbered from 0 without `ids`; `coasted` are indices."""
    n = len(boxes)
    return Tracks(
        **vars(boxes_seen(size, boxes, depths)),
        ids=np.arange(n) if ids is None else np.array(ids),
        ages=np.ones(n, np.int64),
        coasted=np.isin(np.arange(n), coasted),
    )


# The nearer one hides half of the farther one.
PAIR = tracks_seen((40, 60), [(10, 10, 30, 30), (20, 10, 40, 30)], [8.0, 16.0], [3, 65_536 + 4])


class StubModel:
    """Finds two boxes that move a pixel to the right with every frame."""

    name = "stub"
    inputs = frozenset({"points", "calibration"})
    classes = ("car", "truck")

    def __init__(self):
        self.frames = 0

    def infer(self, frames, report=None):
        results = []
        for frame in frames:
            k = self.frames
            boxes = [(5 + k, 10, 25 + k, 30), (15 + k, 5, 40 + k, 25)]
            results.append(boxes_seen(frame.size, boxes, [10.0, 20.0]))
            self.frames += 1
        return results

    def reset(self):
        self.frames = 0


BOX = (9.0, 1.0, 0.5, 4.0, 2.0, 1.5, 0.5)


class BoxedModel(StubModel):
    """The stub's objects; the nearer one has a 3D box."""

    def infer(self, frames, report=None):
        results = super().infer(frames, report)
        for result in results:
            result.boxes3d = np.array([BOX, [np.nan] * 7], np.float32)
        return results
