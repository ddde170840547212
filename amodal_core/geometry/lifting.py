"""From masks to 3D: an oriented box for every object that the LiDAR touches, whatever found it.

The returns under an object's visible mask give a footprint, and its class's usual size the rest, as
for the clusters of `geometric`. What the masks know and a cluster does not: on which side something
hides the object, where the image ends it, and how high it reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numba import njit

from amodal_core.frame import BORDER, Calibration, Frame, Instances, Report
from amodal_core.geometry.completion import completed
from amodal_core.geometry.config import DEFAULTS, GeometricConfig, Size
from amodal_core.geometry.context import ClusterContext
from amodal_core.geometry.footprints import measured
from amodal_core.geometry.ground import Ground
from amodal_core.geometry.lshape import Rectangle
from amodal_core.geometry.object_points import returns_of_objects
from amodal_core.geometry.projection import NEAR
from amodal_core.geometry.scalars import median, within
from amodal_core.geometry.scan import Scan, scan_of

PARTS = frozenset({"points", "calibration"})  # of a frame, that boxes need
# The size that completes a class; others are as large as what is seen of them.
_SIZE_OF = {
    "car": "car",
    "van": "van",
    "truck": "truck",
    "bus": "truck",
    "tram": "truck",
    "trailer": "truck",
    "pedestrian": "pedestrian",
    "person": "pedestrian",
    "cyclist": "cyclist",
    "rider": "cyclist",
    "bicycle": "cyclist",
    "motorcycle": "cyclist",
}
_LONG = ("car", "van", "truck")
_LEAST = 3  # returns of one object, fewer tell nothing
_ABOVE = 0.15  # metres above the ground, lower returns are the road under a mask's lower edge
_LENGTHS = np.linspace(0.6, 2.6, 21)  # times the usual, that are tried on the amodal mask
_PRIOR = 0.05  # share of the mask's width by which another box must fit better
_NEARER = 0.1  # the same, for each usual length that it is nearer


def lift(
    instances: Instances,
    frame: Frame,
    classes: Sequence[str],
    report: Report | None = None,
    config: GeometricConfig = DEFAULTS,
) -> Instances:
    """The instances, each with an oriented box where it has none and returns fall on it.

    Args:
        instances: of the frame; boxes that they have are kept.
        frame: with points and calibration; without either the instances stay as they are.
        classes: names of their classes.
        report: gets the time.
        config: sizes, ground and rectangles.

    Returns:
        Instances whose `boxes3d` are (N, 7) float32 in the LiDAR frame, NaN where no box is known.
    """
    calibration = frame.calibration
    if not len(instances) or frame.points is None or calibration is None:
        return instances
    host = instances.numpy()
    boxes = np.full((len(host), 7), np.nan, np.float32)
    if host.boxes3d is not None:
        boxes[:] = host.boxes3d
    missing = np.flatnonzero(~np.isfinite(boxes).all(1))
    if len(missing):
        report = report if report is not None else Report()
        with report.time("lifting"):
            names = [_SIZE_OF.get(classes[k], "other") for k in host.class_ids[missing]]
            scan = scan_of(frame, config, last=True)
            if scan is not None:
                boxes[missing] = _boxes(host[missing], names, scan, calibration, config)
    return replace(host, boxes3d=boxes)


def _boxes(
    instances: Instances,
    names: Sequence[str],
    scan: Scan,
    calibration: Calibration,
    config: GeometricConfig,
) -> np.ndarray:
    """(N, 7) boxes of instances (on the host) of these sizes, NaN where there is none."""
    out = np.full((len(instances), 7), np.nan, np.float32)
    points, heights, ground = scan.points, scan.heights, scan.ground
    pixels, z = scan.pixels, scan.z
    inside = scan.inside[heights[scan.inside] > _ABOVE]
    amodal, visible = np.asarray(instances.amodal_boxes), np.asarray(instances.visible_boxes)
    rays = np.linalg.inv(calibration.K)
    returns = [inside[i] for i in returns_of_objects(instances, pixels[inside], z[inside])]
    chosen = [k for k, index in enumerate(returns) if len(index) >= _LEAST]
    contexts = [_context(amodal[k], visible[k], instances.size) for k in chosen]
    footprints = measured(points, heights, [returns[k] for k in chosen], contexts, config)
    for k, context, footprint in zip(chosen, contexts, footprints, strict=True):
        if footprint is None:
            continue
        top = _top(amodal[k], median(z[returns[k]]), rays, calibration, ground)
        if top is not None:
            footprint = replace(footprint, top=max(footprint.top, top), cut=False)
        box = completed(names[k], footprint, ground)
        if names[k] in _LONG and not context.beyond_left + context.beyond_right:
            size = getattr(config.sizes, names[k])
            box = _fitted(box, size, footprint.rectangle, amodal[k], calibration)
        out[k] = box
    return out


def _context(amodal: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> ClusterContext:
    """On which sides it is hidden, by the share of its width, and where the image ends it."""
    width = max(float(amodal[2] - amodal[0]), 1.0)
    return ClusterContext(
        hidden_left=within((visible[0] - amodal[0]) / width, 0, 1),
        hidden_right=within((amodal[2] - visible[2]) / width, 0, 1),
        beyond_left=float(amodal[0] < BORDER),
        beyond_right=float(amodal[2] > size[1] - BORDER),
    )


def _top(
    amodal: np.ndarray,
    depth: float,
    rays: np.ndarray,
    calibration: Calibration,
    ground: Ground,
) -> float | None:
    """Metres above the ground that the amodal mask reaches at a depth; None above the image."""
    if amodal[1] < BORDER:
        return None
    pixel = np.array([(amodal[0] + amodal[2]) / 2, amodal[1], 1.0])
    T = calibration.camera_from_lidar
    top = T[:3, :3].T @ (rays @ pixel * depth - T[:3, 3])
    return float(top[2] - ground.under(top[0], top[1]))


def _fitted(
    box: np.ndarray,
    size: Size,
    rectangle: Rectangle,
    amodal: np.ndarray,
    calibration: Calibration,
) -> np.ndarray:
    """The box, or one that covers the width of the amodal mask clearly better.

    What was seen stays inside; either side of it may be the length, of any size that the class has,
    and go on at either end.

    Args:
        box: (7,) as completed by the class's usual size.
        size: what the class measures.
        rectangle: around the returns.
        amodal: (4,) box of the mask, xyxy in pixels.
        calibration: of the camera.
    """
    view = np.concatenate(
        [calibration.camera_from_lidar[[0, 2]].ravel(), calibration.K[0, [0, 2]], amodal[[0, 2]]]
    )
    return _best_box(
        np.asarray(box, np.float64),
        np.array([rectangle.yaw, *rectangle.low, *rectangle.high]),
        _lengths(size),
        np.array([size.length[0], size.width[0], size.width[2]]),
        view,
    )


@lru_cache(maxsize=16)
def _lengths(size: Size) -> np.ndarray:
    """Metres, rising: what is tried of a class's length."""
    return np.unique(np.clip(_LENGTHS * size.length[0], *size.length[1:]))


@njit(cache=True)
def _best_box(
    box: np.ndarray, rectangle: np.ndarray, lengths: np.ndarray, size: np.ndarray, view: np.ndarray
) -> np.ndarray:
    """The first of the cheapest boxes; the one given where none is before the camera."""
    yaw, low, high = rectangle[0], rectangle[1:3], rectangle[3:5]
    c, s = np.cos(yaw), np.sin(yaw)
    best, result = np.inf, box
    cost = _cost(box, box, size, view)
    if cost < best:
        best = cost
    for side in range(2):
        across = 1 - side
        width = max(high[across] - low[across], size[1])
        if width > size[2]:
            continue
        for end in (-1, 1):
            for length in lengths:
                if length < high[side] - low[side]:
                    continue
                at = (low + high) / 2
                # Across, it goes on away from the sensor.
                at[across] += np.sign(at[across]) * (width - (high[across] - low[across])) / 2
                at[side] += end * (length - (high[side] - low[side])) / 2
                tried = box.copy()
                tried[0], tried[1] = c * at[0] - s * at[1], s * at[0] + c * at[1]
                tried[3], tried[4], tried[6] = length, width, yaw + side * np.pi / 2
                cost = _cost(tried, box, size, view)
                cost += _PRIOR + _PRIOR * abs(np.log(length / size[0]))
                if cost < best:
                    best, result = cost, tried
    return result


@njit(cache=True)
def _cost(tried: np.ndarray, box: np.ndarray, size: np.ndarray, view: np.ndarray) -> float:
    """How badly a box covers the width of a mask, in such widths; inf where it is too near."""
    left, right = np.inf, -np.inf
    c, s = np.cos(tried[6]), np.sin(tried[6])
    for corner in range(8):
        along = (0.5 if corner & 1 else -0.5) * tried[3]
        aside = (0.5 if corner & 2 else -0.5) * tried[4]
        x, y = c * along - s * aside + tried[0], s * along + c * aside + tried[1]
        z = (0.5 if corner & 4 else -0.5) * tried[5] + tried[2]
        depth = view[4] * x + view[5] * y + view[6] * z + view[7]
        if depth < NEAR:
            return np.inf
        u = (view[0] * x + view[1] * y + view[2] * z + view[3]) / depth
        left, right = min(left, u), max(right, u)
    left, right = left * view[8] + view[9] + 0.5, right * view[8] + view[9] + 0.5
    cost = (abs(left - view[10]) + abs(right - view[11])) / max(view[11] - view[10], 1.0)
    # What would stand between the sensor and what was seen of it would have been seen, too.
    nearer = np.hypot(box[0], box[1]) - np.hypot(tried[0], tried[1])
    return cost + _NEARER * max(nearer, 0.0) / size[0]
