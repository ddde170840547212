"""From masks to 3D: an oriented box for every object that the LiDAR touches, whatever found it.

The returns under an object's visible mask give a footprint, and its class's usual size the rest, as
for the clusters of `geometric`. What the masks know and a cluster does not: on which side something
hides the object, where the image ends it, and how high it reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numba import njit

from amodal_core.frame import BORDER, Calibration, Frame, Instances, Report
from amodal_core.geometry.classification import CAR, CYCLIST, OTHER, PEDESTRIAN, TRUCK
from amodal_core.geometry.completion import VAN, completed, is_vehicle, size_of
from amodal_core.geometry.config import DEFAULTS, GeometricConfig, Size
from amodal_core.geometry.context import CONTEXT, ClusterContext
from amodal_core.geometry.footprints import measured
from amodal_core.geometry.ground import Ground
from amodal_core.geometry.lshape import Rectangle
from amodal_core.geometry.object_points import returns_of_objects
from amodal_core.geometry.projection import NEAR
from amodal_core.geometry.scalars import middle, within
from amodal_core.geometry.scan import Scan, scan_of

PARTS = frozenset({"points", "calibration"})  # of a frame, that boxes need
# The size that completes a class; others are as large as what is seen of them.
_SIZE_OF = {
    "car": CAR,
    "van": VAN,
    "truck": TRUCK,
    "bus": TRUCK,
    "tram": TRUCK,
    "trailer": TRUCK,
    "pedestrian": PEDESTRIAN,
    "person": PEDESTRIAN,
    "cyclist": CYCLIST,
    "rider": CYCLIST,
    "bicycle": CYCLIST,
    "motorcycle": CYCLIST,
}
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
            kinds = [_SIZE_OF.get(classes[k], OTHER) for k in host.class_ids[missing].tolist()]
            scan = scan_of(frame, config, last=True)
            if scan is not None:
                boxes[missing] = _boxes(host[missing], np.array(kinds), scan, calibration, config)
    return replace(host, boxes3d=boxes)


def _boxes(
    instances: Instances,
    kinds: np.ndarray,
    scan: Scan,
    calibration: Calibration,
    config: GeometricConfig,
) -> np.ndarray:
    """(N, 7) boxes of instances (on the host), of these kinds of size; NaN where there is none."""
    out = np.full((len(instances), 7), np.nan, np.float32)
    points, heights, ground = scan.points, scan.heights, scan.ground
    pixels, z = scan.pixels, scan.z
    inside = scan.inside[heights.take(scan.inside) > _ABOVE]
    shown = pixels.take(inside, axis=0), z.take(inside)
    returns = [inside[i] for i in returns_of_objects(instances, *shown)]
    chosen = [k for k, index in enumerate(returns) if len(index) >= _LEAST]
    if not chosen:
        return out
    amodal, visible = (
        np.asarray(b)[chosen] for b in (instances.amodal_boxes, instances.visible_boxes)
    )
    contexts = _contexts(amodal, visible, instances.size)
    footprints, xy, _ = measured(points, heights, [returns[k] for k in chosen], contexts, config)
    depths = np.array([middle(z[returns[k]]) for k in chosen])
    footprints["top"] = np.fmax(footprints["top"], _tops(amodal, depths, calibration, ground))
    T, K = calibration.camera_from_lidar, calibration.K
    view = np.concatenate([T[0], T[2], K[0, [0, 2]]])
    out[chosen] = _lifted(kinds[chosen], footprints, xy, amodal, view, ground, config.objects)
    return out


def _contexts(amodal: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(K,) `ClusterContext`, of boxes (K, 4) xyxy of masks.

    On which sides an object is hidden, by the share of its width, and where the image ends it.
    """
    out = np.array([ClusterContext()] * len(amodal), CONTEXT)
    width = np.maximum(amodal[:, 2] - amodal[:, 0], 1.0)
    out["hidden_left"] = np.clip((visible[:, 0] - amodal[:, 0]) / width, 0, 1)
    out["hidden_right"] = np.clip((amodal[:, 2] - visible[:, 2]) / width, 0, 1)
    out["beyond_left"] = amodal[:, 0] < BORDER
    out["beyond_right"] = amodal[:, 2] > size[1] - BORDER
    return out


def _tops(
    amodal: np.ndarray, depths: np.ndarray, calibration: Calibration, ground: Ground
) -> np.ndarray:
    """(K,) metres above the ground that amodal masks reach at depths; NaN above the image."""
    pixels = np.ones((len(amodal), 3))
    pixels[:, 0], pixels[:, 1] = (amodal[:, 0] + amodal[:, 2]) / 2, amodal[:, 1]
    T = calibration.camera_from_lidar
    rays = pixels @ np.linalg.inv(calibration.K).T
    tops = (rays * depths[:, None] - T[:3, 3]) @ T[:3, :3]
    return np.where(amodal[:, 1] < BORDER, np.nan, tops[:, 2] - ground.at(tops))


@njit(cache=True)
def _lifted(
    kinds: np.ndarray,
    footprints: np.ndarray,
    xy: np.ndarray,
    amodal: np.ndarray,
    view: np.ndarray,
    ground: Ground,
    values: np.ndarray,
) -> np.ndarray:
    """(K, 7) completed boxes; of vehicles those that cover the width of the mask best.

    Args:
        kinds: (K,) see `completed`.
        footprints: (K,) see `Footprints`, as `xy`.
        xy: (N, 2) float32 metres.
        amodal: (K, 4) boxes of the masks, xyxy in pixels.
        view: (10,) first and third row of `camera_from_lidar`, focal length and centre of columns.
        ground: the ground's shape.
        values: `GeometricConfig.objects`.
    """
    out = np.full((len(kinds), 7), np.nan)
    v, begin = values[0], 0
    for k in range(len(kinds)):
        kind, f = kinds[k], footprints[k]
        own = xy[begin : begin + f.kept]
        begin += f.kept
        if not f.usable:
            continue
        completed(kind, f, own, ground, v, out[k])
        if is_vehicle(kind) and f.context.beyond_left + f.context.beyond_right == 0:
            mask = np.float64(amodal[k, 0]), np.float64(amodal[k, 2])
            _fit_box(out[k], f.rectangle, size_of(kind, v.sizes), view, mask)
    return out


@njit(cache=True)
def _fit_box(
    box: np.ndarray, r: Rectangle, size: Size, view: np.ndarray, mask: tuple[float, float]
) -> None:
    """Make it the first of the boxes that cover the width of the amodal mask clearly better.

    What was seen stays inside; either side of it may be the length, of any size that the class has,
    and go on at either end.

    Args:
        box: (7,) as completed by the class's usual size; stays so where none is before the camera.
        r: around the returns.
        size: what the class measures.
        view: see `_lifted`.
        mask: its first and last column, pixels.
    """
    usual, least, most = size.length[0], size.length[1], size.length[2]
    c, s = np.cos(r.yaw), np.sin(r.yaw)
    chosen, best = box.copy(), _cost(box, box, usual, view, mask)
    for side in range(2):
        across = 1 - side
        seen, aside = r.high[side] - r.low[side], r.high[across] - r.low[across]
        width = max(aside, size.width[0])
        if width > size.width[2]:
            continue
        for end in (-1, 1):
            last = 0.0
            for share in _LENGTHS:
                length = within(share * usual, least, most)
                if length < seen or length == last:
                    continue
                last = length
                at = np.array([(r.low[0] + r.high[0]) / 2, (r.low[1] + r.high[1]) / 2])
                # Across, it goes on away from the sensor.
                at[across] += np.sign(at[across]) * (width - aside) / 2
                at[side] += end * (length - seen) / 2
                tried = box.copy()
                tried[0], tried[1] = c * at[0] - s * at[1], s * at[0] + c * at[1]
                tried[3], tried[4], tried[6] = length, width, r.yaw + side * np.pi / 2
                cost = _cost(tried, box, usual, view, mask)
                cost += _PRIOR + _PRIOR * abs(np.log(length / usual))
                if cost < best:
                    best, chosen = cost, tried
    for m in range(7):
        box[m] = chosen[m]


@njit(cache=True)
def _cost(
    tried: np.ndarray, box: np.ndarray, usual: float, view: np.ndarray, mask: tuple[float, float]
) -> float:
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
    cost = (abs(left - mask[0]) + abs(right - mask[1])) / max(mask[1] - mask[0], 1.0)
    # What would stand between the sensor and what was seen of it would have been seen, too.
    nearer = np.hypot(box[0], box[1]) - np.hypot(tried[0], tried[1])
    return cost + _NEARER * max(nearer, 0.0) / usual
