"""A ResNet with group norm and the one pyramid level that small crops need, stride 8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from amodal_core.models.layers.backbone import load_body
from amodal_core.models.layers.resnet_levels import ResNetLevels

STRIDE = 8
_GROUPS = 16


class CropEncoder(ResNetLevels):
    """Features of crops: the pyramid's level 3, which holds the levels 4 and 5 added from above.

    Group norm, because the crops of a step are few and alike (Wu and He, ECCV 2018); batch norm
    after the first convolution, whose statistics come with the weights.

    Args:
        name: resnet18, resnet34 or resnet50.
        channels: of the features.
        weights: torchvision's classification weights (.pth), "" for random ones.

    Raises:
        InputError: the weights do not fit.
    """

    def __init__(self, name: str, channels: int, weights: str = "") -> None:
        super().__init__(name, lambda width: nn.GroupNorm(_GROUPS, width))
        self.body.bn1 = nn.BatchNorm2d(self.body.conv1.out_channels)
        if weights:
            load_body(self.body, name, weights)
        self.lateral = nn.ModuleList(nn.Conv2d(w, channels, 1) for w in self.widths[1:])
        self.middle = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(N, 3, S, S) to (N, C, S / 8, S / 8)."""
        fine, middle, coarse = super().forward(crops)[1:]
        top = self.lateral[2](coarse)
        for k, level, smooth in ((1, middle, self.middle), (0, fine, self.out)):
            side = self.lateral[k](level)
            top = smooth(side + F.interpolate(top, size=side.shape[-2:], mode="bilinear"))
        features: torch.Tensor = top
        return features
