"""Depth of instances from the LiDAR that falls on their visible part."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# A 64-beam LiDAR leaves about 6 px between beams and 3 px along one at KITTI's focal length.
_SPREAD = (7, 5)
_LOG_FAR = math.log(80.0)


def instance_depths(
    channels: torch.Tensor | None, boxes: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """Median depth over the visible cells that have a return near.

    Args:
        channels: (2, H, W) depth channels of the image (`batch.depth_channels`), or None.
        boxes: (N, 4) float32 xyxy in pixels.
        visible: (N, S, S) float logits in the boxes.

    Returns:
        (N,) float32 metres, 0 where no return falls on the object.
    """
    n, side = len(boxes), visible.shape[-1]
    if channels is None or n == 0:
        return boxes.new_zeros(n)
    known = channels[1] > 0
    near = torch.where(known, -channels[0], -torch.inf)[None, None]
    pad = (_SPREAD[0] // 2, _SPREAD[1] // 2)
    spread = -F.max_pool2d(near, _SPREAD, stride=1, padding=pad)[0, 0]
    height, width = spread.shape
    centres = (torch.arange(side, device=boxes.device) + 0.5) / side
    x = boxes[:, :1] + centres * (boxes[:, 2:3] - boxes[:, :1])
    y = boxes[:, 1:2] + centres * (boxes[:, 3:4] - boxes[:, 1:2])
    column = x.long().clamp(0, width - 1)
    row = y.long().clamp(0, height - 1)
    sampled = spread[row[:, :, None], column[:, None, :]]  # (N, S, S)
    seen = (visible > 0) & torch.isfinite(sampled)
    values = torch.where(seen, sampled, torch.nan).flatten(1)
    median = values.nanmedian(dim=1).values
    return torch.where(median.isnan(), 0.0, torch.exp(median * _LOG_FAR)).float()
