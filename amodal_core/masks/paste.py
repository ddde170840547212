"""From mask heads' grids to masks of the image.

A grid of S x S logits is sampled at the centres of S x S equal cells of its box. Every pixel of
the image whose centre lies in the box takes the bilinear interpolation of the grid there, its
border values carried on over the outer half cells, and is set where that is above 0 (a probability
of one half). This is torch's grid_sample with align_corners=False and padding_mode="border".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from amodal_core.arrays import floats, host
from amodal_core.masks.rle import append_run, finite_box

if TYPE_CHECKING:
    import torch


@njit(cache=True, nogil=True)
def _paste_runs(
    logits: np.ndarray, boxes: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    masks, side = logits.shape[0], logits.shape[1]
    room = 0
    spans = np.zeros((masks, 4), np.int64)
    for n in range(masks):
        x0, y0, x1, y1 = boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3]
        if x1 > x0 and y1 > y0 and finite_box(boxes[n]):
            spans[n, 0] = int(min(max(np.ceil(x0 - 0.5), 0.0), width))
            spans[n, 1] = int(min(max(np.ceil(y0 - 0.5), 0.0), height))
            spans[n, 2] = int(min(max(np.ceil(x1 - 0.5), 0.0), width))
            spans[n, 3] = int(min(max(np.ceil(y1 - 0.5), 0.0), height))
        room += (spans[n, 2] - spans[n, 0]) * (side // 2 + 1)
    runs = np.empty((room, 2), np.int64)
    first = np.zeros(masks + 1, np.int64)
    line = np.empty(side, np.float64)
    edges = np.empty(side + 1, np.int64)
    last = 0
    for n in range(masks):
        u0, v0, u1, v1 = spans[n, 0], spans[n, 1], spans[n, 2], spans[n, 3]
        lowest = last
        if u1 > u0 and v1 > v0:
            x0, y0 = boxes[n, 0], boxes[n, 1]
            cell_x, cell_y = (boxes[n, 2] - x0) / side, (boxes[n, 3] - y0) / side
            # Rows edges[k] to edges[k + 1] lie between grid rows k - 1 and k.
            edges[side] = v1
            for k in range(side):
                edge = np.ceil(y0 + (k + 0.5) * cell_y - 0.5)
                edges[k] = int(min(max(edge, np.float64(v0)), np.float64(v1)))
            for u in range(u0, u1):
                across = min(max((u + 0.5 - x0) / cell_x - 0.5, 0.0), side - 1.0)
                i = min(int(across), max(side - 2, 0))
                weight = across - i
                j = min(i + 1, side - 1)
                for k in range(side):
                    line[k] = (1 - weight) * logits[n, k, i] + weight * logits[n, k, j]
                base = u * height
                # A linear piece between two values of one sign keeps that sign: only the pieces
                # that cross zero are looked at pixel by pixel.
                if line[0] > 0 and edges[0] > v0:
                    last = append_run(runs, last, lowest, base + v0, base + edges[0])
                for k in range(1, side):
                    a, b = line[k - 1], line[k]
                    start, end = edges[k - 1], edges[k]
                    if start >= end or not (a > 0 or b > 0):
                        continue
                    if not (a > 0 and b > 0):
                        while start < end:
                            t = (start + 0.5 - y0) / cell_y - 0.5 - (k - 1)
                            if (1 - t) * a + t * b > 0:
                                break
                            start += 1
                        while end > start:
                            t = (end - 0.5 - y0) / cell_y - 0.5 - (k - 1)
                            if (1 - t) * a + t * b > 0:
                                break
                            end -= 1
                    if start < end:
                        last = append_run(runs, last, lowest, base + start, base + end)
                if line[side - 1] > 0 and edges[side - 1] < v1:
                    last = append_run(runs, last, lowest, base + edges[side - 1], base + v1)
        first[n + 1] = last
    return runs[:last].copy(), first


def paste_runs(logits: Any, boxes: Any, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Encode mask heads' grids without making a pixel: the runs follow from the grid's columns.

    The grids are small, so they come to the host whatever device they are on.

    Args:
        logits: (N, S, S) float, a tensor or an array of NumPy, as the boxes.
        boxes: (N, 4) float xyxy in pixels; may reach out of the image; without an area or not
            finite, the mask is empty.
        size: (height, width) of the image.

    Returns:
        The runs of all masks, and where each one's begin, as `RleMasks` takes them.
    """
    if logits.ndim != 3 or logits.shape[1] != logits.shape[2] or boxes.shape != (len(logits), 4):
        raise ValueError(f"logits {tuple(logits.shape)} and boxes {tuple(boxes.shape)} do not fit")
    grids = np.ascontiguousarray(host(floats(logits)))
    corners = np.ascontiguousarray(host(boxes), np.float64)
    runs, first = _paste_runs(grids, corners, int(size[0]), int(size[1]))
    return runs, first


def of_probabilities(
    logits: torch.Tensor, boxes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Grids and boxes from which the same masks are pasted as by detectron2 and mmdetection.

    Those interpolate probabilities, between the outer cells and zeros beyond them, too, so that a
    mask seldom reaches its box's border; and set what is one half or more.

    Args:
        logits: (N, S, S) float.
        boxes: (N, 4) float xyxy.

    Returns:
        (N, S + 2, S + 2) probabilities less one half, and the boxes around these cells.
    """
    import torch
    import torch.nn.functional as F

    rim = (boxes[:, 2:] - boxes[:, :2]) / max(logits.shape[-1], 1)
    around = torch.cat([boxes[:, :2] - rim, boxes[:, 2:] + rim], 1)
    return F.pad(logits.float().sigmoid() - 0.5, (1, 1, 1, 1), value=-0.5), around


def paste_dense(logits: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The same masks as (N, H, W) bool on the logits' device, for whoever needs the pixels there.

    Arguments as `paste_rle`. Pixels whose interpolated logit is zero to within float32 rounding may
    differ between the two.
    """
    import torch
    import torch.nn.functional as F

    height, width = size
    n = len(logits)
    if n == 0:
        return torch.zeros((0, height, width), dtype=torch.bool, device=logits.device)
    boxes = boxes.to(logits.device, torch.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    valid = (sides > 0).all(dim=1) & boxes.isfinite().all(dim=1)
    origin = torch.where(valid[:, None], boxes[:, :2], 0.0)
    sides = torch.where(valid[:, None], sides, 1.0)
    u = torch.arange(width, device=boxes.device, dtype=torch.float32) + 0.5
    v = torch.arange(height, device=boxes.device, dtype=torch.float32) + 0.5
    # grid_sample's coordinates: -1 and 1 at the box's edges.
    x = (u - origin[:, :1]) / sides[:, :1] * 2 - 1
    y = (v - origin[:, 1:]) / sides[:, 1:] * 2 - 1
    grid = torch.stack(
        [x[:, None, :].expand(n, height, width), y[:, :, None].expand(n, height, width)], dim=3
    )
    values = F.grid_sample(
        logits[:, None].float(), grid, align_corners=False, padding_mode="border"
    )[:, 0]
    inside = ((x >= -1) & (x < 1))[:, None, :] & ((y >= -1) & (y < 1))[:, :, None]
    return (values > 0) & inside & valid[:, None, None]
