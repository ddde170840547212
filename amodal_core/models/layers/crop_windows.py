"""Square crops around objects: where they lie in the image, and what images and masks show there.

A window is an xyxy box in pixels, edges not centres: cell i of S along x has its middle at
x0 + (i + 0.5) (x1 - x0) / S, which is the pixel coordinate of that number less one half.
"""

from __future__ import annotations

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

    Arguments and result as `enlarged`.
    """
    low, high = boxes[:, :2].round(), boxes[:, 2:].round()
    middle = ((low + high) / 2).floor()
    half = (((high - low) * factor).floor() / 2).floor()
    low = torch.minimum((middle - half).clamp(min=0), limits - _LEAST)
    high = torch.minimum(torch.maximum(middle + half + 1, low + _LEAST), limits.expand_as(low))
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


def cut_masks(masks: torch.Tensor, windows: torch.Tensor, side: int) -> torch.Tensor:
    """(N, side, side) float32 0/1: each of (N, H, W) bool masks in its window (N, 4)."""
    index = torch.arange(len(masks), device=windows.device)
    return (cut(masks[:, None].to(windows.dtype), index, windows, side)[:, 0] >= 0.5).float()
