"""A small convolutional backbone in cross-stage-partial blocks, quick on CPUs and GPUs alike.

Plain 3x3 convolutions with batch norm and ReLU: norms fold into the convolutions for inference, and
nothing is grouped or depthwise, which CPUs run far below their peak. Blocks after CSPNet (Wang et
al. 2020) as the detectors of the YOLO family use them; pyramid after PANet (Liu et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d


class ConvNorm(nn.Module):
    """Convolution, one batch norm for each of the feature levels that share it, ReLU.

    Levels of a pyramid may share a convolution's weights, hardly their statistics.

    Args:
        inner: channels in.
        outer: channels out.
        side: of the kernel.
        stride: of the kernel.
        levels: how many levels share the convolution.
    """

    def __init__(
        self, inner: int, outer: int, side: int = 3, stride: int = 1, levels: int = 1
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(inner, outer, side, stride, padding=side // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.convs = nn.ModuleList([conv])
        self.norms = nn.ModuleList([nn.BatchNorm2d(outer) for _ in range(levels)])

    def forward(self, x: torch.Tensor, level: int = 0) -> torch.Tensor:
        """(B, inner, H, W) to (B, outer, H / stride, W / stride)."""
        if not len(self.norms):
            return F.relu_(self.convs[level](x))
        return F.relu_(self.norms[level](self.convs[0](x)))

    def fuse(self) -> None:
        """Fold the norms into the convolution, one copy of it for each level; once only."""
        if not len(self.norms):
            return
        conv = self.convs[0]
        assert isinstance(conv, nn.Conv2d)
        self.convs = nn.ModuleList([folded(conv, norm) for norm in self.norms])
        self.norms = nn.ModuleList()


def folded(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """One convolution that does what a convolution and a norm of fixed statistics do."""
    assert isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    both = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
    )
    with torch.no_grad():
        both.weight, both.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps,
            norm.weight, norm.bias,
        )  # fmt: skip
    return both


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(width, width), ConvNorm(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.second(self.first(x))
        return y


class CspBlock(nn.Module):
    """Half of the channels pass residual blocks, the other half passes by, both are mixed.

    Args:
        inner: channels in.
        outer: channels out.
        depth: residual blocks.
    """

    def __init__(self, inner: int, outer: int, depth: int) -> None:
        super().__init__()
        half = outer // 2
        self.into, self.past = ConvNorm(inner, half, 1), ConvNorm(inner, half, 1)
        self.blocks = nn.Sequential(*[_Residual(half) for _ in range(depth)])
        self.mix = ConvNorm(2 * half, outer, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inner, H, W) to (B, outer, H, W)."""
        y: torch.Tensor = self.mix(torch.cat([self.blocks(self.into(x)), self.past(x)], 1))
        return y


class _Surroundings(nn.Module):
    """Maxima over ever wider windows beside the features: far context for little work (SPPF)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into, self.mix = ConvNorm(width, width // 2, 1), ConvNorm(2 * width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.into(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        y: torch.Tensor = self.mix(torch.cat(parts, 1))
        return y


class CspBackbone(nn.Module):
    """Features of strides 4, 8, 16 and 32.

    Args:
        widths: channels of the four.
        depths: residual blocks of the four.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.stem = ConvNorm(3, widths[0] // 2, 3, 2)
        stages = []
        inner = widths[0] // 2
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            parts: list[nn.Module] = [ConvNorm(inner, width, 3, 2), CspBlock(width, width, depth)]
            if number == len(widths) - 1:
                parts.insert(1, _Surroundings(width))
            stages.append(nn.Sequential(*parts))
            inner = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) to the four levels, the finest first."""
        x = self.stem(x)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class Pyramid(nn.Module):
    """Top down, then bottom up: every level sees what the others know.

    Args:
        widths: channels of the levels given, strides 8 to 32.
        channels: of every level returned.
        depth: residual blocks of each fusion.
        extra: coarser levels to add, each of half the last one's size.
    """

    def __init__(self, widths: Sequence[int], channels: int, depth: int, extra: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([ConvNorm(w, channels, 1) for w in widths])
        steps = range(len(widths) - 1)
        self.down = nn.ModuleList([CspBlock(2 * channels, channels, depth) for _ in steps])
        self.shrink = nn.ModuleList([ConvNorm(channels, channels, 3, 2) for _ in steps])
        self.up = nn.ModuleList([CspBlock(2 * channels, channels, depth) for _ in steps])
        self.extra = nn.ModuleList([ConvNorm(channels, channels, 3, 2) for _ in range(extra)])

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Features (B, widths[k], ...) to (B, channels, ...), the finest first."""
        x = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        for k in reversed(range(len(x) - 1)):
            above = F.interpolate(x[k + 1], size=x[k].shape[-2:], mode="nearest")
            x[k] = self.down[k](torch.cat([x[k], above], 1))
        for k in range(len(x) - 1):
            x[k + 1] = self.up[k](torch.cat([self.shrink[k](x[k]), x[k + 1]], 1))
        for layer in self.extra:
            x.append(layer(x[-1]))
        return x
