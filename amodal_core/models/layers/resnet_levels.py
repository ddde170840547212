"""A ResNet's features of strides 4 to 32, without a pyramid; its norms can be folded."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torchvision.models import resnet
from torchvision.ops import FrozenBatchNorm2d

from amodal_core.models.layers.backbone import NORMS, Norm, load_body
from amodal_core.models.layers.csp import folded


class ResNetLevels(nn.Module):
    """torchvision's ResNet without its classifier.

    Args:
        name: such as "resnet50".
        norm: see `NORMS`; or what makes a norm of so many channels.
        weights: torchvision's classification weights (.pth), "" for random ones.

    Raises:
        InputError: the weights do not fit.
    """

    def __init__(
        self, name: str, norm: Norm | Callable[[int], nn.Module] = "batch", weights: str = ""
    ) -> None:
        super().__init__()
        layer = norm if callable(norm) else NORMS[norm]
        body = getattr(resnet, name)(weights=None, norm_layer=layer)
        if weights:
            load_body(body, name, weights)
        self.widths = tuple(body.inplanes // 2**k for k in (3, 2, 1, 0))
        del body.fc, body.avgpool
        self.body = body

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) to the four levels, the finest first."""
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(x))))
        levels = []
        for stage in (body.layer1, body.layer2, body.layer3, body.layer4):
            x = stage(x)
            levels.append(x)
        return levels

    def fuse(self) -> None:
        """Fold every norm into the convolution before it."""
        for module in list(self.body.modules()):
            names = list(module._modules)
            for first, second in pairwise(names):
                conv, norm = getattr(module, first), getattr(module, second)
                # torchvision keeps conv1, bn1, conv2, bn2 and a shortcut's pair next to each other.
                if isinstance(conv, nn.Conv2d) and isinstance(
                    norm, nn.BatchNorm2d | FrozenBatchNorm2d
                ):
                    setattr(module, first, folded(conv, norm))
                    setattr(module, second, nn.Identity())
