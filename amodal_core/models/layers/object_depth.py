"""Depth images of objects alone: LiDAR in their 3D boxes, filled in between the returns."""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from amodal_core.frame import Calibration
from amodal_core.geometry.boxes3d import points_in_boxes
from amodal_core.geometry.projection import to_camera

_LEAST_POINTS = 3  # of a triangle


def object_depth(
    points: np.ndarray,
    boxes3d: np.ndarray,
    calibration: Calibration,
    scale: torch.Tensor,
    size: tuple[int, int],
) -> np.ndarray:
    """The depth of objects, linear between the returns on each, 0 where no object is known.

    Depth is known between the outermost returns of an object and in the pixels of its returns; of
    several objects in a pixel the nearest one shows.

    Args:
        points: (P, 3+) LiDAR frame, metres; those that fall into the image.
        boxes3d: (N, 7) as in `Instances.boxes3d`.
        calibration: at the frame's own size.
        scale: (2,) y and x scale from frame to batch.
        size: (height, width) at the batch's scale.

    Returns:
        (height, width) float32 metres along the optical axis.
    """
    nearest = np.full(size, np.inf)
    camera = to_camera(points, calibration)
    pixels = camera @ calibration.K.T
    factor = scale.detach().cpu().double().numpy()[::-1]
    # Integer pixels are centres: outer corners, not centres, keep their place between scales.
    places = (pixels[:, :2] / pixels[:, 2:] + 0.5) * factor - 0.5
    for inside in points_in_boxes(points, boxes3d):
        if inside.any():
            _draw(nearest, places[inside], camera[inside, 2])
    return np.where(np.isinf(nearest), 0.0, nearest).astype(np.float32)


def _draw(nearest: np.ndarray, places: np.ndarray, depths: np.ndarray) -> None:
    """Put one object into the image.

    Args:
        nearest: (H, W) metres, infinite where nothing is yet; changed in place.
        places: (M, 2) x and y of its returns in pixels.
        depths: (M,) metres.
    """
    limit = np.array(nearest.shape[::-1]) - 1
    cells = np.clip(np.round(places).astype(int), 0, limit)
    low, high = cells.min(0), cells.max(0) + 1
    patch = nearest[low[1] : high[1], low[0] : high[0]]
    own = np.full(patch.shape, np.inf)
    column, row = (cells - low).T
    np.minimum.at(own, (row, column), depths)
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
    between = _interpolated(places, depths, x, y)
    np.minimum(patch, np.where(np.isnan(between), own, between), out=patch)


def _interpolated(
    places: np.ndarray, depths: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Depths at pixels, NaN outside the returns' hull, which may have no area."""
    nowhere = np.full(x.shape, np.nan)
    if len(places) < _LEAST_POINTS:
        return nowhere
    try:
        # Qhull counts distances below a share of the largest coordinate as none.
        middle = places.mean(0)
        depth: np.ndarray = LinearNDInterpolator(places - middle, depths)(
            x - middle[0], y - middle[1]
        )
    except QhullError:  # all on one line
        return nowhere
    return depth
