"""Square crops around objects: where they lie in the image, and what images and masks show there.

A window is an xyxy box in pixels, edges not centres: cell i of S along x has its middle at
x0 + (i + 0.5) (x1 - x0) / S, which is the pixel coordinate of that number less one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torchvision.ops import roi_align

_LEAST = 1.0  # pixels; a window has at least this side


def enlarged(boxes: torch.Tensor, limits: torch.Tensor, factor: float) -> torch.Tensor:
    """Windows around boxes, cut by the image.

    Args:
        boxes: (N, 4) float32 xyxy in pixels.
        limits: (N, 2) or (2,) float32 width and height of the image.
        factor: side of the window over side of the box.

    Returns:
        (N, 4) float32, each at least a pixel wide and high and inside the image, wherever its box
        lies.
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).clamp(min=_LEAST) * (factor / 2)
    low = torch.minimum((middle - half).clamp(min=0), limits - _LEAST)
    high = torch.minimum(torch.maximum(middle + half, low + _LEAST), limits.expand_as(low))
    return torch.cat([low, high], 1)


def whole_pixels(boxes: torch.Tensor, limits: torch.Tensor, factor: float) -> torch.Tensor:
    """Windows as EoRaS' code cuts them: of whole pixels, and one more to the right and below.

    That one may lie beyond the image: nothing is cut there, but a mask is drawn across it.
    Arguments and result otherwise as `enlarged`.
    """
    low, high = boxes[:, :2].round(), boxes[:, 2:].round()
    middle = ((low + high) / 2).floor()
    half = (((high - low) * factor).floor() / 2).floor()
    low = torch.minimum((middle - half).clamp(min=0), limits - _LEAST)
    high = torch.maximum(torch.minimum(middle + half, limits.expand_as(low)) + 1, low + _LEAST)
    return torch.cat([low, high], 1)


def aligned(windows: torch.Tensor, side: int) -> torch.Tensor:
    """(N, 4): where grids lie whose outer cells have their middles in a window's outer pixels.

    Args:
        windows: (N, 4) xyxy.
        side: cells along each side of a grid.
    """
    cell = (windows[:, 2:] - windows[:, :2] - 1) / (side - 1)
    rim = (1 - cell) / 2
    return torch.cat([windows[:, :2] + rim, windows[:, 2:] - rim], 1)


def cut(
    images: torch.Tensor, frames: torch.Tensor, windows: torch.Tensor, side: int
) -> torch.Tensor:
    """What images show in windows, averaged where a cell is larger than a pixel.

    Args:
        images: (B, C, H, W) float.
        frames: (N,) int64, the image of each window.
        windows: (N, 4) float32 xyxy.
        side: cells along each side.

    Returns:
        (N, C, side, side) float.
    """
    rois = torch.cat([frames[:, None].to(windows.dtype), windows], 1)
    crops: torch.Tensor = roi_align(images, rois.to(images.dtype), side, aligned=True)
    return crops


def rescaled(
    images: torch.Tensor,
    sizes: Sequence[tuple[int, int]],
    frames: torch.Tensor,
    windows: torch.Tensor,
    side: int,
) -> torch.Tensor:
    """What images show in windows of whole pixels, resized as by scikit-image for EoRaS' code.

    Bilinear, mirrored at the crop's own border; along an axis that shrinks by a factor f smoothed
    before by a Gaussian of deviation (f - 1) / 2, cut at four of these.

    Args:
        images: (B, C, H, W) float.
        sizes: (height, width) of each without padding, where windows end at last.
        frames: (N,) int64, the image of each window.
        windows: (N, 4) float32 xyxy.
        side: cells along each side.

    Returns:
        (N, C, side, side) float.
    """
    crops = []
    for frame, window in zip(frames.tolist(), windows.round().int().tolist(), strict=True):
        x0, y0 = window[:2]
        y1, x1 = (min(n, end) for n, end in zip(sizes[frame], window[:1:-1], strict=True))
        rows, columns = (_rescaling(n, side).to(images) for n in (y1 - y0, x1 - x0))
        crops.append(rows @ images[frame, :, y0:y1, x0:x1] @ columns.T)
    return torch.stack(crops)


@lru_cache(maxsize=256)
def _rescaling(length: int, side: int) -> torch.Tensor:
    """(side, length) float32: the line of `side` values that scikit-image makes of `length`."""
    factor = length / side
    result = torch.eye(length, dtype=torch.float64)
    deviation = (factor - 1) / 2
    if deviation > 0:
        reach = int(4 * deviation + 0.5)
        offsets = torch.arange(-reach, reach + 1)
        weights = torch.exp(-0.5 * (offsets / deviation).double() ** 2)
        result = torch.zeros(length, length, dtype=torch.float64)
        for offset, weight in zip(
            offsets.tolist(), (weights / weights.sum()).tolist(), strict=True
        ):
            places = torch.arange(length)
            result[places, _mirrored(places + offset, length)] += weight
    at = (torch.arange(side, dtype=torch.float64) + 0.5) * factor - 0.5
    below = at.floor()
    share = (at - below)[:, None]
    low, high = (_mirrored(below.long() + k, length) for k in (0, 1))
    return ((1 - share) * result[low] + share * result[high]).float()


def _mirrored(places: torch.Tensor, length: int) -> torch.Tensor:
    """Places on a line that goes back and forth between its first and its last one."""
    if length == 1:
        return torch.zeros_like(places)
    period = 2 * length - 2
    folded = places % period
    return torch.minimum(folded, period - folded)


def cut_masks(masks: torch.Tensor, windows: torch.Tensor, side: int) -> torch.Tensor:
    """(N, side, side) float32 0/1: each of (N, H, W) bool masks in its window (N, 4)."""
    index = torch.arange(len(masks), device=windows.device)
    return (cut(masks[:, None].to(windows.dtype), index, windows, side)[:, 0] >= 0.5).float()
