"""Small scenes with exact truth, for the tests of the data sets."""

from __future__ import annotations

import cv2
import numpy as np

from amodal_core.datasets.base import BEGIN, PERIOD
from amodal_core.datasets.truth import make_truth
from amodal_core.frame import Calibration, Frame, Sample, Tracks
from amodal_core.masks.mask_set import RleMasks

CLASSES = ("car", "pedestrian", "truck")
SIZE = (60, 100)


def ellipses(rng: np.random.Generator, count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(count, H, W) bool; some hang over the border, some have a hole."""
    masks = np.zeros((count, *size), np.uint8)
    for k, mask in enumerate(masks):
        centre = int(rng.integers(0, size[1])), int(rng.integers(0, size[0]))
        axes = int(rng.integers(5, 25)), int(rng.integers(4, 15))
        cv2.ellipse(mask, centre, axes, float(rng.integers(0, 180)), 0, 360, 1, -1)
        if k % 3 == 2:
            cv2.circle(mask, centre, 3, 0, -1)
    return masks.astype(bool)


def calibration(size: tuple[int, int] = SIZE) -> Calibration:
    K = np.array([[80.0, 0, size[1] / 2], [0, 80.0, size[0] / 2], [0, 0, 1]])
    T = np.array([[0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, -0.3], [0, 0, 0, 1.0]])
    return Calibration(K, T, size[1], size[0])


def truth(rng: np.random.Generator, count: int = 6, size: tuple[int, int] = SIZE) -> Tracks:
    """Objects that lie on each other, the first in front; boxes in 3D for all but the last."""
    masks = ellipses(rng, count, size)
    masks = masks[masks.any(axis=(1, 2))]
    amodal = RleMasks.from_dense(masks)
    visible = amodal.layered(np.arange(len(amodal)))
    n = len(amodal)
    boxes = np.array([[8 + 3 * k, k - 2, -0.5, 4, 2, 1.5, 0.4 * k] for k in range(n)], np.float32)
    boxes[-1] = np.nan
    return make_truth(
        amodal, visible, rng.integers(0, len(CLASSES), n), rng.permutation(50)[:n], boxes3d=boxes
    )


def sample(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> Sample:
    """A single image with scan and camera."""
    image = cv2.GaussianBlur(rng.integers(0, 255, (*size, 3), np.uint8), (0, 0), 4)
    points = np.column_stack(
        [rng.uniform(5, 30, 80), rng.uniform(-5, 5, 80), rng.uniform(-2, 2, 80), rng.random(80)]
    ).astype(np.float32)
    frame = Frame(BEGIN, image=image, points=points, calibration=calibration(size))
    return Sample(frame, truth(rng, size=size), "single")


def drive(rng: np.random.Generator, frames: int = 6, video: str = "drive") -> list[Sample]:
    """A video: a car passes wholly behind a truck and comes out again, a pedestrian stands."""
    size = SIZE
    samples = []
    for turn in range(frames):
        masks = np.zeros((3, *size), bool)
        masks[0, 20:50, 40:70] = True
        left = 5 + 15 * turn
        masks[1, 30:45, left : left + 20] = True
        masks[2, 25:45, 85:92] = True
        there = masks.any(axis=(1, 2))
        amodal = RleMasks.from_dense(masks[there])
        visible = amodal.layered(np.arange(len(amodal)))
        numbers, classes = np.array([11, 4, 7])[there], np.array([2, 0, 1])[there]
        boxes = np.array(
            [[10, 0, 0, 6, 2.5, 3, 0.1], [14, 2, 0, 4, 2, 1.5, 1.2], [9, -3, 0, 0.6, 0.6, 1.8, 0]],
            np.float32,
        )[there]
        frame = sample(rng).frame
        frame.stamp = frame.points_stamp = BEGIN + turn * PERIOD
        drawn = make_truth(amodal, visible, classes, numbers, boxes3d=boxes)
        samples.append(Sample(frame, drawn, f"{video}/{turn:04d}", video, turn))
    return samples


def same_masks(a: Tracks, b: Tracks) -> None:
    """Both describe the same objects bit for bit, whatever their order is."""
    assert a.size == b.size
    assert len(a) == len(b)
    order_a, order_b = _order(a), _order(b)
    a, b = a[order_a], b[order_b]
    assert a.amodal.counts == b.amodal.counts
    assert a.visible.counts == b.visible.counts
    assert np.array_equal(a.occlusion_rates, b.occlusion_rates)
    assert np.array_equal(a.occluders, b.occluders)
    assert np.array_equal(a.amodal_boxes, b.amodal_boxes)
    assert np.array_equal(a.visible_boxes, b.visible_boxes)


def _order(tracks: Tracks) -> np.ndarray:
    keys = list(zip(tracks.amodal.counts, tracks.visible.counts, strict=True))
    return np.array(sorted(range(len(keys)), key=lambda k: keys[k]), int)
