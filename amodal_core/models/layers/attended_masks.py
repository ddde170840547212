"""A mask head that looks several times at a RoI, and the losses that compare its looks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from amodal_core.models.layers.mask_branch import mask_head


@dataclass
class Look:
    """One pass of a head.

    Attributes:
        inner: (N, C, 14, 14) after the convolutions.
        outer: (N, C, 28, 28) after upsampling.
        logits: (N, 28, 28) in the channel of the RoI's class.
    """

    inner: torch.Tensor
    outer: torch.Tensor
    logits: torch.Tensor


class MaskHead(nn.Module):
    """(N, C, 14, 14) features to (N, 28, 28) logits of each RoI's class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers = mask_head(channels)
        self.convolutions, self.upsample = layers[:-2], layers[-2:]
        self.weight = nn.Parameter(torch.empty(classes, channels))
        self.bias = nn.Parameter(torch.zeros(classes))
        nn.init.normal_(self.weight, std=0.001)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> Look:
        """A look at features (N, C, 14, 14) for classes (N,)."""
        inner = self.convolutions(x)
        outer = self.upsample(inner)
        # A 1x1 convolution of which only the channel that is wanted is computed.
        logits = torch.einsum("nchw,nc->nhw", outer, self.weight[labels])
        return Look(inner, outer, logits + self.bias[labels, None, None])


def attended(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Features (N, C, 14, 14) weighted by a mask given as logits (N, 28, 28)."""
    return x * F.avg_pool2d(logits[:, None], 2).sigmoid()


def mask_ious(masks: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(N,) float32 IoU of masks (N, S, S) bool, one by one; 1 where both are empty."""
    shared = (masks & truth).flatten(1).sum(1).float()
    union = (masks | truth).flatten(1).sum(1).float()
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)


def weighted_mask_loss(
    logits: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Mean over RoIs of each one's weight (N,) times its mean binary cross entropy."""
    if not len(logits):
        return logits.sum()
    each = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none")
    return (weight * each.flatten(1).mean(1)).mean()


def feature_distance(features: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean over RoIs of 1 - cosine of two features (N, ...); only the first gets a gradient."""
    if not len(features):
        return features.sum()
    cosine = F.cosine_similarity(
        features.flatten(1).float(), wanted.detach().flatten(1).float(), dim=1
    )
    return (1 - cosine).mean()


def prior_factor(wrong: torch.Tensor, alpha: float) -> torch.Tensor:
    """Factor of a score by the share of cells in which mask and nearest shape differ."""
    return torch.log(alpha - wrong).clamp(min=0) / torch.log(wrong.new_tensor(alpha))
