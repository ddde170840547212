"""A made-up frame that takes a pipeline through its usual work before the first real one comes.

Kernels are compiled and memory is allocated by the first frame; on a fresh machine that takes
seconds, for which a vehicle would be blind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from amodal_core.frame import Calibration, Frame, Instances
from amodal_core.masks.mask_set import RleMasks
from amodal_core.progress import announce_compiling
from amodal_core.tracking import CoastingTracker, Tracker

_GROUND = -1.73  # metres, of a LiDAR on a car's roof
# Two cars, a truck and a pedestrian: the distance of the surface that faces the LiDAR, its reach to
# the right and left, and its upper edge, metres.
_SURFACES = (
    (9.0, -1.0, 0.9, -0.2),
    (15.0, 2.0, 3.9, -0.1),
    (30.0, 11.0, 13.3, 1.0),
    (24.0, -9.0, -8.4, 0.0),
)


def warm_up_frame(height: int = 375, width: int = 1242) -> Frame:
    """A road with four objects, as a 64-beam LiDAR sees it; the image is grey.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
    """
    announce_compiling()
    azimuth = np.radians(np.arange(-45, 45, 0.18))
    elevation = np.radians(np.linspace(-24.8, 2.0, 64))
    up, around = np.meshgrid(elevation, azimuth, indexing="ij")
    rays = np.stack(
        [np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], axis=-1
    ).reshape(-1, 3)
    with np.errstate(divide="ignore"):
        ranges = np.where(rays[:, 2] < 0, _GROUND / rays[:, 2], np.inf)
    for x, right, left, top in _SURFACES:
        at = x / rays[:, 0]
        y, z = at * rays[:, 1], at * rays[:, 2]
        hit = (y > right) & (y < left) & (z > _GROUND) & (z < top)
        ranges = np.where(hit, np.minimum(ranges, at), ranges)
    within = ranges < 80
    points = np.zeros((int(within.sum()), 4), np.float32)
    points[:, :3] = rays[within] * ranges[within, None]
    focal = 0.58 * width
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    camera_from_lidar = np.eye(4)
    camera_from_lidar[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    return Frame(
        stamp=1,
        image=np.full((height, width, 3), 128, np.uint8),
        points=points,
        calibration=Calibration(K, camera_from_lidar, width, height),
        points_stamp=1,
    )


def warm_up_tracker(tracker: CoastingTracker | None = None) -> None:
    """Take a tracker through detections, an occlusion and an empty frame; it forgets them.

    Args:
        tracker: one of its own where none is given.
    """
    announce_compiling()
    tracker = tracker or Tracker()
    size = (60, 100)
    view = replace(warm_up_frame(*size), depth=np.zeros(size, np.float32))
    near, far = (20, 10, 60, 50), (30, 20, 80, 45)
    for k, boxes in enumerate([(near, far)] * 3 + [(near,)] * 2 + [()]):
        stamp = 1 + k * 100_000_000
        tracker.step(_rectangles(size, boxes), stamp, replace(view, stamp=stamp))
    tracker.reset()


def _rectangles(size: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]]) -> Instances:
    """Objects that fill boxes, the first one nearest."""
    n = len(boxes)
    amodal = np.zeros((n, *size), bool)
    for mask, (x0, y0, x1, y1) in zip(amodal, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    visible = amodal.copy()
    for k in range(1, n):
        visible[k] &= ~visible[:k].any(axis=0)
    xyxy = np.array(boxes, np.float32).reshape(n, 4)
    rates = 1 - visible.sum(axis=(1, 2)) / np.maximum(amodal.sum(axis=(1, 2)), 1)
    return Instances(
        size=size,
        amodal_boxes=xyxy,
        visible_boxes=xyxy,
        scores=np.full(n, 0.9, np.float32),
        class_ids=np.zeros(n, np.int64),
        amodal=RleMasks.from_dense(amodal),
        visible=RleMasks.from_dense(visible),
        occlusion_rates=rates.astype(np.float32),
        depths=10 + 5 * np.arange(n, dtype=np.float32),
        occluders=np.tri(n, k=-1, dtype=bool),
        embeddings=np.eye(n, 8, dtype=np.float32),
    )
