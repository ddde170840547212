"""3D boxes as a camera sees them: rectangles (proposals for mask heads) and silhouettes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from amodal_core.frame import Calibration
from amodal_core.geometry.boxes3d import corners, project_convex
from amodal_core.geometry.projection import to_camera

_INSIDE = 4.0  # logit of a cell in a silhouette; its negative outside
_LEAST_SIDE = 1.0  # pixels of a rectangle that is worth keeping
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
    factor = scale.detach().cpu().double().numpy()[::-1]
    height, width = size
    outlines: dict[int, np.ndarray] = {}
    rects: dict[int, np.ndarray] = {}
    for n, vertices in enumerate(corners(host)):
        # From pixel centres to pixel corners, so that a rectangle holds whole pixels.
        outline = (project_convex(vertices, calibration) + 0.5) * factor
        if len(outline) < 3:
            continue
        low = np.clip(outline.min(0), 0, (width, height))
        high = np.clip(outline.max(0), 0, (width, height))
        if (high - low >= _LEAST_SIDE).all():
            outlines[n] = outline
            rects[n] = np.concatenate([low, high])
    rows = list(outlines)
    depths = np.clip(to_camera(host[rows, :3], calibration)[:, 2], 0, None) if rows else np.zeros(0)
    owner = np.full((height, width), -1, np.int32)
    for k in np.argsort(-depths, kind="stable"):
        places = np.clip(np.round(outlines[rows[k]] - 0.5), -_FAR, _FAR)
        cv2.fillConvexPoly(owner, places.astype(np.int32), int(k))
    amodal = np.zeros((len(rows), side, side), bool)
    visible = np.zeros_like(amodal)
    cells = (np.arange(side) + 0.5) / side
    for k, n in enumerate(rows):
        low, high = rects[n][:2], rects[n][2:]
        grid = np.zeros((side, side), np.uint8)
        places = (outlines[n] - low) / (high - low) * side - 0.5
        cv2.fillConvexPoly(grid, np.round(np.clip(places, -_FAR, _FAR)).astype(np.int32), 1)
        amodal[k] = grid > 0
        x = np.clip((low[0] + cells * (high[0] - low[0])).astype(int), 0, width - 1)
        y = np.clip((low[1] + cells * (high[1] - low[1])).astype(int), 0, height - 1)
        visible[k] = amodal[k] & (owner[y[:, None], x[None]] == k)

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), device=device)

    return Silhouettes(
        tensor(np.array(rows, np.int64)),
        tensor(np.array([rects[n] for n in rows], np.float32).reshape(-1, 4)),
        tensor(np.where(amodal, _INSIDE, -_INSIDE).astype(np.float32)),
        tensor(np.where(visible, _INSIDE, -_INSIDE).astype(np.float32)),
        tensor(depths.astype(np.float32)),
    )
