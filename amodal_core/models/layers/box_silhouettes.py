"""3D boxes as a camera sees them: rectangles (proposals for mask heads) and silhouettes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from amodal_core.frame import Calibration
from amodal_core.geometry.boxes3d import corners, project_convex
from amodal_core.geometry.projection import to_camera
from amodal_core.models.layers.rotated import iou_bev

_INSIDE = 4.0  # logit of a cell in a silhouette; its negative outside
_LEAST_SIDE = 1.0  # pixels of a rectangle that is worth keeping
_SAME = 0.1  # bird's-eye IoU from which two boxes are one object
_FAR = 30_000  # pixels; OpenCV draws with 16 bits before the point


@dataclass
class Silhouettes:
    """What of N boxes is in the image, at the batch's scale.

    Attributes:
        rows: (M,) int64, which of the N boxes are in the image.
        boxes: (M, 4) float32 xyxy around each, cut to the image.
        amodal: (M, S, S) float32 logits of the silhouettes in `boxes`.
        visible: (M, S, S) float32 logits of what no nearer silhouette covers.
        depths: (M,) float32 metres of the boxes' centres along the optical axis.
    """

    rows: torch.Tensor
    boxes: torch.Tensor
    amodal: torch.Tensor
    visible: torch.Tensor
    depths: torch.Tensor


def silhouettes(
    boxes3d: torch.Tensor,
    calibration: Calibration,
    scale: torch.Tensor,
    size: tuple[int, int],
    side: int,
) -> Silhouettes:
    """Project boxes, cut at the near plane, and draw them.

    Args:
        boxes3d: (N, 7) as in `Instances.boxes3d`.
        calibration: at the frame's own size.
        scale: (2,) y and x scale from frame to batch.
        size: (height, width) at the batch's scale.
        side: cells S along a mask's side.
    """
    device = boxes3d.device
    host = boxes3d.detach().cpu().double().numpy()
    rows, outlines, rects = outlines_in_image(host, calibration, scale, size)
    depths = np.clip(to_camera(host[rows, :3], calibration)[:, 2], 0, None) if rows else np.zeros(0)
    # Two boxes in one place are two guesses at one object, and do not hide each other.
    flat = boxes3d[rows][:, [0, 1, 3, 4, 6]]
    hides = (depths[None] < depths[:, None]) & ~(iou_bev(flat, flat) > _SAME).cpu().numpy()
    amodal = np.zeros((len(rows), side, side), bool)
    visible = np.zeros_like(amodal)
    for k, outline in enumerate(outlines):
        low, high = rects[k, :2], rects[k, 2:]
        amodal[k] = _fill([outline], low, high, side)
        nearer = [outlines[j] for j in np.flatnonzero(hides[k])]
        visible[k] = amodal[k] & ~_fill(nearer, low, high, side)

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), device=device)

    return Silhouettes(
        tensor(np.array(rows, np.int64)),
        tensor(rects.astype(np.float32)),
        tensor(np.where(amodal, _INSIDE, -_INSIDE).astype(np.float32)),
        tensor(np.where(visible, _INSIDE, -_INSIDE).astype(np.float32)),
        tensor(depths.astype(np.float32)),
    )


def outlines_in_image(
    boxes3d: np.ndarray, calibration: Calibration, scale: torch.Tensor, size: tuple[int, int]
) -> tuple[list[int], list[np.ndarray], np.ndarray]:
    """Where boxes are in an image, cut at the near plane.

    Args:
        boxes3d: (N, 7) as in `Instances.boxes3d`.
        calibration: at the frame's own size.
        scale: (2,) y and x scale from frame to batch.
        size: (height, width) at the batch's scale.

    Returns:
        which M of the boxes are in the image, the outline (K, 2) of each, not cut to the image, and
        the rectangles (M, 4) xyxy around them, cut to it; float64 pixels at the batch's scale.
    """
    factor = scale.detach().cpu().double().numpy()[::-1]
    height, width = size
    rows, outlines, rects = [], [], []
    for n, vertices in enumerate(corners(boxes3d)):
        # From pixel centres to pixel corners, so that a rectangle holds whole pixels.
        outline = (project_convex(vertices, calibration) + 0.5) * factor
        if len(outline) < 3:
            continue
        low = np.clip(outline.min(0), 0, (width, height))
        high = np.clip(outline.max(0), 0, (width, height))
        if (high - low >= _LEAST_SIDE).all():
            rows.append(n)
            outlines.append(outline)
            rects.append(np.concatenate([low, high]))
    return rows, outlines, np.array(rects).reshape(-1, 4)


def _fill(
    outlines: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray, side: int
) -> np.ndarray:
    """(S, S) bool: cells of the rectangle from `low` to `high` that convex outlines cover."""
    grid = np.zeros((side, side), np.uint8)
    for outline in outlines:
        places = (outline - low) / (high - low) * side - 0.5
        cv2.fillConvexPoly(grid, np.round(np.clip(places, -_FAR, _FAR)).astype(np.int32), 1)
    return grid > 0
