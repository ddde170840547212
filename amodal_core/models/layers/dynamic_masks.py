"""Masks by dynamic kernels: each object brings a tiny network that draws its masks in its box.

CondInst (Tian et al. 2020) runs such networks over the whole image with coordinates relative to the
object; here they run on a grid in the object's box, with coordinates relative to the box, so that a
hidden part can be drawn where the image shows something else, whatever the object's size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

MASKS = 3  # amodal, visible, occluder


def kernel_size(channels: int, hidden: int) -> int:
    """How many numbers make one object's network."""
    return hidden * (channels + 2) + hidden + hidden * hidden + hidden + MASKS * hidden + MASKS


def sample_boxes(
    features: torch.Tensor, boxes: torch.Tensor, side: int, stride: int
) -> torch.Tensor:
    """Features at the centres of the cells of a grid in each box, bilinear, 0 outside the image.

    Args:
        features: (B, C, H, W).
        boxes: (B, K, 4) xyxy in pixels of the image.
        side: cells S along a side.
        stride: pixels of the image in a feature's cell.

    Returns:
        (B, K, C, S, S).
    """
    b, channels, height, width = features.shape
    k = boxes.shape[1]
    # x and y together from one constant grid: stacking them would copy what is half constant.
    axis = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5) / side
    cells = torch.stack([axis.repeat(side), axis.repeat_interleave(side)], -1)  # (S * S, 2)
    x = boxes[..., [0, 2]] * (2 / (width * stride)) - 1
    y = boxes[..., [1, 3]] * (2 / (height * stride)) - 1
    low, high = torch.stack([x, y], -1)[:, :, :, None].unbind(2)  # (B, K, 1, 2) each
    grid = (low + cells * (high - low)).reshape(b, k * side, side, 2)
    sampled = F.grid_sample(
        features.contiguous().to(grid.dtype), grid, mode="bilinear", align_corners=False
    )
    # Cells in one axis: OpenVINO moves two slower than one.
    return sampled.view(b, channels, k, side * side).transpose(1, 2).unflatten(3, (side, side))


def draw_masks(samples: torch.Tensor, kernels: torch.Tensor, hidden: int) -> torch.Tensor:
    """Run each object's network over its grid.

    Args:
        samples: (N, C, S, S) features in the boxes.
        kernels: (N, kernel_size(C, hidden)).
        hidden: channels of the two hidden layers.

    Returns:
        (N, 3, S, S) logits: amodal, visible, occluder.
    """
    n, channels, side, _ = samples.shape
    parts = kernels.split(
        [
            hidden * (channels + 2), hidden, hidden * hidden, hidden, MASKS * hidden, MASKS,
        ],
        dim=1,
    )  # fmt: skip
    axis = (torch.arange(side, device=samples.device, dtype=samples.dtype) + 0.5) * (2 / side) - 1
    across = axis.expand(side, side)
    place = torch.stack([across, across.t()]).reshape(1, 2, side * side)
    inputs = torch.cat([samples.flatten(2), place.expand(n, 2, side * side)], 1)
    x = torch.baddbmm(parts[1][:, :, None], parts[0].view(n, hidden, channels + 2), inputs)
    x = torch.baddbmm(parts[3][:, :, None], parts[2].view(n, hidden, hidden), F.relu(x))
    x = torch.baddbmm(parts[5][:, :, None], parts[4].view(n, MASKS, hidden), F.relu(x))
    return x.view(n, MASKS, side, side)
