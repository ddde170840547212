"""What the LiDAR that falls on the visible part of instances says: their depth, and whether."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F

# A 64-beam LiDAR leaves about 6 px between beams and 3 px along one at KITTI's focal length.
_SPREAD = (7, 5)
_LOG_FAR = math.log(80.0)
_BEHIND, _BEHIND_SHARE = 3.0, 0.1  # metres, and share of the depth


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
    if channels is None or len(boxes) == 0:
        return boxes.new_zeros(len(boxes))
    median = _returns(channels, boxes, visible).nanmedian(dim=1).values
    return torch.where(median.isnan(), 0.0, torch.exp(median * _LOG_FAR)).float()


def share_seen_through(
    channels: torch.Tensor, boxes: torch.Tensor, visible: torch.Tensor, depths: torch.Tensor
) -> torch.Tensor:
    """How much of an object is not there: the LiDAR looks through it.

    Args:
        channels: (2, H, W) depth channels of the image.
        boxes: (N, 4) float32 xyxy in pixels.
        visible: (N, S, S) float logits in the boxes.
        depths: (N,) float32 metres, 0 where unknown.

    Returns:
        (N,) float32 share, 0-1, of the visible cells with a return near whose nearest one lies
        clearly behind the object: by 3 m and by a tenth of its depth. 0 where there are none.
    """
    if len(boxes) == 0:
        return boxes.new_zeros(0)
    values = _returns(channels, boxes, visible)
    behind = torch.maximum(depths + _BEHIND, depths * (1 + _BEHIND_SHARE))
    limit = behind.clamp(min=1e-3).log() / _LOG_FAR
    measured = ~values.isnan()
    through = measured & (values > limit[:, None]) & (depths > 0)[:, None]
    share: torch.Tensor = through.sum(1) / measured.sum(1).clamp(min=1)
    return share


def _returns(channels: torch.Tensor, boxes: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """(N, S * S) log depth of the nearest return near each visible cell, NaN without one."""
    side = visible.shape[-1]
    spread = spread_returns(channels)
    height, width = spread.shape
    centres = (torch.arange(side, device=boxes.device) + 0.5) / side
    x = boxes[:, :1] + centres * (boxes[:, 2:3] - boxes[:, :1])
    y = boxes[:, 1:2] + centres * (boxes[:, 3:4] - boxes[:, 1:2])
    column = x.long().clamp(0, width - 1)
    row = y.long().clamp(0, height - 1)
    sampled = spread[row[:, :, None], column[:, None, :]]  # (N, S, S)
    visible_returns = (visible > 0) & torch.isfinite(sampled)
    return torch.where(visible_returns, sampled, torch.nan).flatten(1)


def spread_returns(channels: torch.Tensor) -> torch.Tensor:
    """(H, W) log depth of the nearest return near each pixel, inf without one."""
    depth = torch.where(channels[1] > 0, channels[0], torch.inf)
    exported = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if depth.device.type == "cpu" and depth.dtype == torch.float32 and not exported:
        # The same minima, twenty times faster than a pooling of torch on a core.
        kernel = np.ones(_SPREAD, np.uint8)
        return torch.from_numpy(cv2.erode(depth.detach().numpy(), kernel, borderValue=np.inf))
    pad = (_SPREAD[0] // 2, _SPREAD[1] // 2)
    return -F.max_pool2d(-depth[None, None], _SPREAD, stride=1, padding=pad)[0, 0]
