"""LiDAR depth beside an image: a light branch whose features are added where returns are near."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from amodal_core.models.layers.csp import ConvNorm

_CELL = 4  # stride of the branch's first features
_CHANNELS = 4  # nearest and mean log depth, share of returns, whether there is any
_JITTER = 0.1  # of the height that heights end at, by which cameras stand higher or lower
_UNKNOWN = 0.1  # share of samples in training whose camera is unknown


def sparse_cells(depth: torch.Tensor) -> torch.Tensor:
    """What the returns in cells of 4x4 pixels say; convolutions would mix them with zeros.

    Args:
        depth: (B, 2, H, W) as `batch.depth_channels`.

    Returns:
        (B, 4, H / 4, W / 4): nearest and mean log depth (0 where no return is), the share of pixels
        with a return, and whether there is any.
    """
    log, valid = depth[:, :1], depth[:, 1:]
    share = F.avg_pool2d(valid, _CELL)
    any_return = (share > 0).to(depth.dtype)
    mean = F.avg_pool2d(log * valid, _CELL) / share.clamp(min=1 / _CELL**2)
    # Log depth lies below 2 at any range that a LiDAR has: 2 - log is positive at every return.
    near = 2 - F.max_pool2d((2 - log) * valid, _CELL)
    return torch.cat([near * any_return, mean, share, any_return], 1)


class LidarBranch(nn.Module):
    """Features of the depth channels at strides 4, 8 and 16.

    Args:
        widths: channels of the three.
        heights: whether it sees how high returns lie.
    """

    def __init__(self, widths: Sequence[int], heights: bool = False) -> None:
        super().__init__()
        self.heights = heights
        first, second, third = widths
        self.layers = nn.ModuleList(
            [
                nn.Sequential(ConvNorm(_CHANNELS + heights, first), ConvNorm(first, first)),
                nn.Sequential(ConvNorm(first, second, 3, 2), ConvNorm(second, second)),
                nn.Sequential(ConvNorm(second, third, 3, 2), ConvNorm(third, third)),
            ]
        )

    def forward(
        self, depth: torch.Tensor, dtype: torch.dtype, heights: torch.Tensor | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Features of each stride, with (B, 1, h, w) 0-1: the share of cells near with returns.

        Args:
            depth: (B, 2, H, W) as `batch.depth_channels`.
            dtype: of the weights.
            heights: (B, 1, H, W) as `Batch.heights`; None where they are unknown.
        """
        x = sparse_cells(depth)
        if self.heights:
            x = torch.cat([x, self._heights(x, heights)], 1)
        x = x.to(dtype, memory_format=torch.channels_last)
        # A beam's neighbour is up to two cells away; what lies farther from returns is not LiDAR's.
        support = F.avg_pool2d(F.max_pool2d(x[:, 3:4], 5, 1, 2), 3, 1, 1)
        levels = []
        for number, layer in enumerate(self.layers):
            if number:
                support = F.avg_pool2d(support, 2)
            x = layer(x)
            levels.append((x, support))
        return levels

    def _heights(self, cells: torch.Tensor, heights: torch.Tensor | None) -> torch.Tensor:
        """(B, 1, H / 4, W / 4): mean height of each cell's returns, 0 where nothing is known."""
        share, there = cells[:, 2:3], cells[:, 3:]
        if heights is None:
            return torch.zeros_like(share)
        mean = F.avg_pool2d(heights, _CELL) / share.clamp(min=1 / _CELL**2)
        if self.training:
            # Other cars' cameras stand at other heights, and some are not calibrated.
            change = torch.rand((2, len(cells), 1, 1, 1), device=cells.device)
            mean = mean + (2 * change[0] - 1) * _JITTER * there
            mean = mean * (change[1] >= _UNKNOWN)
        return mean


class GatedSum(nn.Module):
    """Image features plus LiDAR's, as far as a learned gate and the returns near allow.

    Without a return the sum is the image's features to the bit: a model that was trained with
    modality dropout works without LiDAR as it would have without this branch.

    Args:
        image: channels of the image's features.
        lidar: channels of the branch's features.
    """

    def __init__(self, image: int, lidar: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(lidar, image, 1)
        self.gate = nn.Conv2d(image + lidar, image, 1)
        nn.init.zeros_(self.gate.bias)  # type: ignore[arg-type]

    def forward(
        self, image: torch.Tensor, lidar: torch.Tensor, support: torch.Tensor
    ) -> torch.Tensor:
        """(B, image, h, w)."""
        gate = torch.sigmoid(self.gate(torch.cat([image, lidar], 1)))
        return image + self.project(lidar) * (gate * support)
