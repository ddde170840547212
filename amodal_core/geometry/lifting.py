"""From masks to 3D: an oriented box for every object that the LiDAR touches, whatever found it.

The returns under an object's visible mask give a footprint, and its class's usual size the rest, as
for the clusters of `geometric`. What the masks know and a cluster does not: on which side something
hides the object, where the image ends it, and how high it reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from amodal_core.frame import Calibration, Frame, Instances, Report
from amodal_core.geometry.boxes3d import corners
from amodal_core.geometry.completion import completed, measured
from amodal_core.geometry.config import DEFAULTS, GeometricConfig, Size
from amodal_core.geometry.context import ClusterContext
from amodal_core.geometry.ground import Ground, remove_ground
from amodal_core.geometry.lshape import Rectangle
from amodal_core.geometry.object_points import returns_of_objects
from amodal_core.geometry.projection import NEAR, project, to_camera
from amodal_core.geometry.range_image import range_image

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
_BORDER = 1.5  # pixels from the image's border, an object that reaches so far goes on outside


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
    points, calibration = frame.points, frame.calibration
    if not len(instances) or points is None or calibration is None:
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
            boxes[missing] = _boxes(host[missing], names, points, calibration, config)
    return replace(host, boxes3d=boxes)


def _boxes(
    instances: Instances,
    names: Sequence[str],
    points: np.ndarray,
    calibration: Calibration,
    config: GeometricConfig,
) -> np.ndarray:
    """(N, 7) boxes of instances (on the host) of these sizes, NaN where there is none."""
    out = np.full((len(instances), 7), np.nan, np.float32)
    points = np.ascontiguousarray(points, np.float32)
    points = points[np.isfinite(points[:, :3]).all(1)]
    if not len(points):
        return out
    projection = project(points, calibration)
    pixels, z = np.asarray(projection.pixels), np.asarray(projection.z)
    ground, heights = remove_ground(points, range_image(points, config.range_image), config.ground)
    usable = np.flatnonzero((pixels[:, 0] >= 0) & (heights > _ABOVE))
    amodal, visible = np.asarray(instances.amodal_boxes), np.asarray(instances.visible_boxes)
    for k, returns in enumerate(returns_of_objects(instances, pixels[usable], z[usable])):
        index = usable[returns]
        if len(index) < _LEAST:
            continue
        context = _context(amodal[k], visible[k], instances.size)
        footprint = measured(points[index], heights[index], context, config)
        if footprint is None:
            continue
        top = _top(amodal[k], float(np.median(z[index])), calibration, ground)
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
        hidden_left=float(np.clip((visible[0] - amodal[0]) / width, 0, 1)),
        hidden_right=float(np.clip((amodal[2] - visible[2]) / width, 0, 1)),
        beyond_left=float(amodal[0] < _BORDER),
        beyond_right=float(amodal[2] > size[1] - _BORDER),
    )


def _top(
    amodal: np.ndarray, depth: float, calibration: Calibration, ground: Ground
) -> float | None:
    """Metres above the ground that the amodal mask reaches at a depth; None above the image."""
    if amodal[1] < _BORDER:
        return None
    pixel = np.array([(amodal[0] + amodal[2]) / 2, amodal[1], 1.0])
    T = calibration.camera_from_lidar
    top = T[:3, :3].T @ (np.linalg.inv(calibration.K) @ pixel * depth - T[:3, 3])
    return float(top[2] - ground.at(top[None, :2].astype(np.float32))[0])


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
    seen = rectangle.high - rectangle.low
    tried = [(*box[:2], *box[3:5], box[6])]
    c, s = np.cos(rectangle.yaw), np.sin(rectangle.yaw)
    for side in (0, 1):
        across = 1 - side
        lengths = np.clip(_LENGTHS * size.length[0], *size.length[1:])
        lengths = np.unique(lengths[lengths >= seen[side]])
        width = max(float(seen[across]), size.width[0])
        if not len(lengths) or width > size.width[2]:
            continue
        middle = (rectangle.low + rectangle.high) / 2
        # Across, it goes on away from the sensor.
        middle[across] += np.sign(middle[across]) * (width - seen[across]) / 2
        for end in (-1, 1):
            at = np.repeat(middle[None], len(lengths), axis=0)
            at[:, side] += end * (lengths - seen[side]) / 2
            x, y = c * at[:, 0] - s * at[:, 1], s * at[:, 0] + c * at[:, 1]
            yaw = np.full(len(lengths), rectangle.yaw + side * np.pi / 2)
            tried += zip(x, y, lengths, np.full(len(lengths), width), yaw, strict=True)
    x, y, length, width, yaw = np.array(tried).T
    height = np.full(len(x), box[5])
    boxes = np.column_stack([x, y, np.full(len(x), box[2]), length, width, height, yaw])
    vertices = to_camera(corners(boxes).reshape(-1, 3), calibration).reshape(-1, 8, 3)
    u = calibration.K[0, 0] * vertices[..., 0] / np.maximum(vertices[..., 2], NEAR)
    u += calibration.K[0, 2] + 0.5
    costs = np.abs(u.min(1) - amodal[0]) + np.abs(u.max(1) - amodal[2])
    costs /= max(float(amodal[2] - amodal[0]), 1.0)
    costs[1:] += _PRIOR + _PRIOR * np.abs(np.log(length[1:] / size.length[0]))
    # What would stand between the sensor and what was seen of it would have been seen, too.
    costs += _NEARER * np.maximum(np.hypot(*box[:2]) - np.hypot(x, y), 0) / size.length[0]
    costs[vertices[..., 2].min(1) < NEAR] += np.inf
    return boxes[int(np.argmin(costs))] if np.isfinite(costs).any() else box
