"""Oriented 3D boxes: corners, membership, overlap, and what they cover in an image.

A box is (x, y, z, length, width, height, yaw): centre in metres, sizes in metres, yaw about +z in
radians, in the LiDAR frame (x forward, y left, z up).
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from amodal_core.frame import Calibration
from amodal_core.geometry.projection import NEAR, to_camera

# Corners: the four of the bottom counter-clockwise from front left, then the four of the top.
_X = np.array([1, -1, -1, 1, 1, -1, -1, 1]) / 2
_Y = np.array([1, 1, -1, -1, 1, 1, -1, -1]) / 2
_Z = np.array([-1, -1, -1, -1, 1, 1, 1, 1]) / 2


def corners(boxes: np.ndarray) -> np.ndarray:
    """(N, 7) boxes -> (N, 8, 3) corners: bottom from front left counter-clockwise, then top."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 7)
    local = np.stack([_X * boxes[:, 3:4], _Y * boxes[:, 4:5], _Z * boxes[:, 5:6]], axis=2)
    return to_world(local, boxes)


def to_world(local: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N, M, 3) points in each box's own frame -> (N, M, 3) in the boxes' frame."""
    c, s = np.cos(boxes[:, 6:7]), np.sin(boxes[:, 6:7])
    x = c * local[..., 0] - s * local[..., 1] + boxes[:, 0:1]
    y = s * local[..., 0] + c * local[..., 1] + boxes[:, 1:2]
    return np.stack([x, y, local[..., 2] + boxes[:, 2:3]], axis=2)


def points_in_boxes(points: np.ndarray, boxes: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """(P, 3+) points, (N, 7) boxes -> (N, P) bool, inside or on the surface, grown by `margin`."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 7)
    delta = np.asarray(points, np.float64)[None, :, :3] - boxes[:, None, :3]
    c, s = np.cos(boxes[:, 6:7]), np.sin(boxes[:, 6:7])
    x = c * delta[..., 0] + s * delta[..., 1]
    y = -s * delta[..., 0] + c * delta[..., 1]
    half = boxes[:, 3:6] / 2 + margin
    inside = (np.abs(x) <= half[:, 0:1]) & (np.abs(y) <= half[:, 1:2])
    return inside & (np.abs(delta[..., 2]) <= half[:, 2:3])


def from_kitti_labels(
    dimensions: np.ndarray,
    locations: np.ndarray,
    rotations: np.ndarray,
    rect_from_lidar: np.ndarray,
) -> np.ndarray:
    """KITTI's labels -> (N, 7) boxes in the LiDAR frame.

    Args:
        dimensions: (N, 3) height, width, length in metres, in the labels' order.
        locations: (N, 3) centre of the bottom face in *rectified camera 0* coordinates.
        rotations: (N,) rotation_y in radians.
        rect_from_lidar: (4, 4), from the LiDAR frame to rectified camera 0.
    """
    height, width, length = np.asarray(dimensions, np.float64).reshape(-1, 3).T
    centre = np.asarray(locations, np.float64).reshape(-1, 3).copy()
    centre[:, 1] -= height / 2
    ry = np.asarray(rotations, np.float64).reshape(-1)
    inverse = np.linalg.inv(rect_from_lidar)
    xyz = centre @ inverse[:3, :3].T + inverse[:3, 3]
    heading = np.stack([np.cos(ry), np.zeros_like(ry), -np.sin(ry)], axis=1) @ inverse[:3, :3].T
    yaw = np.arctan2(heading[:, 1], heading[:, 0])
    return np.column_stack([xyz, length, width, height, yaw])


def project_convex(
    vertices: np.ndarray, calibration: Calibration, near: float = NEAR
) -> np.ndarray:
    """The outline that the convex hull of 3D points has in the image.

    The part of the hull behind the near plane is cut off: where points lie on both sides of it,
    each line between the two sides contributes the point where it crosses.

    Args:
        vertices: (M, 3) metres, LiDAR frame.
        calibration: camera and pose.
        near: metres.

    Returns:
        (K, 2) float64, convex polygon in pixel coordinates (integer = pixel centre), not cut to the
        image; (0, 2) where nothing is in front of the near plane.
    """
    cam = to_camera(vertices, calibration)
    front = cam[:, 2] >= near
    if not front.any():
        return np.zeros((0, 2))
    visible = cam[front]
    if not front.all():
        behind = cam[~front]
        t = (near - behind[:, None, 2]) / (visible[None, :, 2] - behind[:, None, 2] + 1e-12)
        cross = behind[:, None] + t[..., None] * (visible[None] - behind[:, None])
        cross[..., 2] = near
        visible = np.concatenate([visible, cross.reshape(-1, 3)])
    uv = visible @ calibration.K.T
    uv = uv[:, :2] / uv[:, 2:]
    return cv2.convexHull(uv.astype(np.float32)).reshape(-1, 2).astype(np.float64)


def image_boxes(boxes: np.ndarray, calibration: Calibration, near: float = NEAR) -> np.ndarray:
    """(N, 7) boxes -> (N, 4) float32 xyxy in the image, cut to it; zeros where unseen."""
    out = np.zeros((len(boxes), 4), np.float32)
    limit = np.array([calibration.width, calibration.height], np.float64)
    for i, vertices in enumerate(corners(boxes)):
        outline = project_convex(vertices, calibration, near)
        if len(outline):
            low = np.clip(outline.min(axis=0) + 0.5, 0, limit)
            high = np.clip(outline.max(axis=0) + 0.5, 0, limit)
            if (high > low).all():
                out[i] = (*low, *high)
    return out


def iou_bev(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 7), (M, 7) -> (N, M) float64 intersection over union of the footprints."""
    overlap = _footprint_overlap(a, b)
    area_a, area_b = a[:, 3] * a[:, 4], b[:, 3] * b[:, 4]
    union = area_a[:, None] + area_b[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def iou_3d(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 7), (M, 7) -> (N, M) float64 intersection over union of the volumes."""
    top = np.minimum((a[:, 2] + a[:, 5] / 2)[:, None], (b[:, 2] + b[:, 5] / 2)[None])
    low = np.maximum((a[:, 2] - a[:, 5] / 2)[:, None], (b[:, 2] - b[:, 5] / 2)[None])
    overlap = _footprint_overlap(a, b) * np.clip(top - low, 0, None)
    union = np.prod(a[:, 3:6], axis=1)[:, None] + np.prod(b[:, 3:6], axis=1)[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def _footprint_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) area common to the footprints, metres squared."""
    overlap = np.zeros((len(a), len(b)))
    if len(a) and len(b):
        _clip_all(corners(a)[:, :4, :2], corners(b)[:, :4, :2], overlap)
    return overlap


@njit(cache=True)
def _clip_all(a: np.ndarray, b: np.ndarray, overlap: np.ndarray) -> None:
    """Areas of intersection of counter-clockwise quadrangles (N, 4, 2), (M, 4, 2).

    Sutherland and Hodgman's clipping, edge by edge. OpenCV's intersectConvexConvex is not used: it
    gives 0 for boxes that share an edge's line.
    """
    shape, clipped = np.empty((16, 2)), np.empty((16, 2))
    for i in range(len(a)):
        for j in range(len(b)):
            # Relative to one of them: coordinates far from the origin cost digits.
            ox, oy = b[j, 0, 0], b[j, 0, 1]
            count = 4
            for k in range(4):
                shape[k, 0], shape[k, 1] = a[i, k, 0] - ox, a[i, k, 1] - oy
            for k in range(4):
                px, py = b[j, k, 0] - ox, b[j, k, 1] - oy
                ex, ey = b[j, (k + 1) % 4, 0] - ox - px, b[j, (k + 1) % 4, 1] - oy - py
                kept = 0
                for m in range(count):
                    x, y = shape[m, 0], shape[m, 1]
                    x2, y2 = shape[(m + 1) % count, 0], shape[(m + 1) % count, 1]
                    side = ex * (y - py) - ey * (x - px)
                    side2 = ex * (y2 - py) - ey * (x2 - px)
                    if side >= 0:
                        clipped[kept, 0], clipped[kept, 1] = x, y
                        kept += 1
                    if (side >= 0) != (side2 >= 0):
                        t = side / (side - side2)
                        clipped[kept, 0], clipped[kept, 1] = x + t * (x2 - x), y + t * (y2 - y)
                        kept += 1
                count = kept
                shape, clipped = clipped, shape
                if count == 0:
                    break
            area = 0.0
            for m in range(count):
                n = (m + 1) % count
                area += shape[m, 0] * shape[n, 1] - shape[n, 0] * shape[m, 1]
            overlap[i, j] = max(area / 2, 0.0)
