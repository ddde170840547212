"""The mask head of convolutions of Mask R-CNN (He et al., ICCV 2017), and its loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

SIDE = 28


class MaskBranch(nn.Module):
    """Convolutions over RoIs and one logit a class.

    Args:
        channels: of the pyramid.
        classes: how many.
        convolutions: before the upsampling.
    """

    def __init__(self, channels: int, classes: int, convolutions: int = 4) -> None:
        super().__init__()
        self.head = mask_head(channels, convolutions)
        self.logits = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.logits.weight, std=0.001)
        assert self.logits.bias is not None
        nn.init.zeros_(self.logits.bias)

    def forward(self, pooled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(N, 28, 28) logits of each RoI's own class from (N, C, 14, 14)."""
        rows = torch.arange(len(labels), device=labels.device)
        logits: torch.Tensor = self.logits(self.head(pooled))[rows, labels]
        return logits


def mask_head(channels: int, convolutions: int = 4) -> nn.Sequential:
    """(N, C, 14, 14) to (N, C, 28, 28): 3x3 convolutions, then a 2x2 stride-2 deconvolution."""
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
    layers += [nn.ConvTranspose2d(channels, channels, 2, 2), nn.ReLU(inplace=True)]
    head = nn.Sequential(*layers)
    for layer in head:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return head


def mask_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean binary cross entropy; a zero with a gradient where there is no RoI."""
    if not len(logits):
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits.float(), truth)
