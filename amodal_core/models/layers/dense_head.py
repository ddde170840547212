"""Single-stage heads: what every location says, and what the chosen ones say of their object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from amodal_core.models.layers.assignment import pair_iou
from amodal_core.models.layers.csp import ConvNorm
from amodal_core.models.layers.nanodet import Prior

_PRIOR = 0.01  # score of every location before training: most are background
_FIRST_REACH = 4.0  # strides from a location to the sides of its box before training
_LARGEST = 6.0  # log of the most strides to a side; keeps exp finite whatever the weights
_ROUNDS = 6  # of suppression; see `suppress`
_OTHER_CLASS = 0.75  # overlap between boxes of different classes counts for less
_GEOMETRY = 4  # numbers that describe a box's place and size


class Dense(NamedTuple):
    """What A locations of B images say.

    Attributes:
        logits: (B, A, classes) float32.
        boxes: (B, A, 4) float32 amodal xyxy in pixels.
        visible_boxes: (B, A, 4) float32.
        features: (B, A, C) outputs of the towers, one's channels after the other's.
        points: (A, 2) float32 x, y in pixels.
        strides: (A,) float32.
    """

    logits: torch.Tensor
    boxes: torch.Tensor
    visible_boxes: torch.Tensor
    features: torch.Tensor
    points: torch.Tensor
    strides: torch.Tensor


class DenseHead(nn.Module):
    """Class scores, an amodal and a visible box at every location of a pyramid.

    The levels share convolutions and keep norms of their own (RTMDet, Lyu et al. 2022).

    Args:
        channels: of the pyramid.
        classes: how many.
        widths: channels of each convolution of a tower.
        strides: of the levels.
        prior: whether a trunk that detects already says what scores and boxes begin with.
        shared: whether the tower of the scores serves the boxes, too.

    Attributes:
        channels: of `Dense.features`.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int],
        strides: tuple[int, ...],
        prior: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.strides = strides

        def tower() -> nn.ModuleList:
            pairs = pairwise([channels, *widths])
            return nn.ModuleList([ConvNorm(a, b, levels=len(strides)) for a, b in pairs])

        self.class_tower, self.box_tower = tower(), None if shared else tower()
        self.channels = widths[-1] * (1 if shared else 2)
        self.classes = nn.Conv2d(widths[-1], classes, 1)
        self.boxes = nn.Conv2d(widths[-1], 8, 1)
        for layer, bias in (
            (self.classes, -math.log(1 / _PRIOR - 1)),
            (self.boxes, math.log(_FIRST_REACH)),
        ):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0.0 if prior else bias)

    def forward(self, levels: list[torch.Tensor], prior: Sequence[Prior] = ()) -> Dense:
        """Features (B, C, h, w) of each stride to what their locations say.

        Args:
            levels: of each stride.
            prior: of each stride likewise, added; none for a trunk that does not detect.
        """
        logits, reaches, features, points, strides = [], [], [], [], []
        for number, (level, stride) in enumerate(zip(levels, self.strides, strict=True)):
            towers = [self.class_tower, self.box_tower]
            outputs = [_run(tower, level, number) for tower in towers if tower is not None]
            said, reach = self.classes(outputs[0]), self.boxes(outputs[-1])
            if prior:
                said = said + prior[number].logits
                reach = reach + prior[number].log_reach.repeat(1, 2, 1, 1)
            logits.append(said.flatten(2).transpose(1, 2))
            reaches.append(reach.flatten(2).transpose(1, 2))
            features.append(torch.cat(outputs, 1).flatten(2).transpose(1, 2))
            height, width = level.shape[-2:]
            x = (torch.arange(width, device=level.device, dtype=torch.float32) + 0.5) * stride
            y = (torch.arange(height, device=level.device, dtype=torch.float32) + 0.5) * stride
            shape = (height, width)
            points.append(
                torch.stack([x[None].expand(shape), y[:, None].expand(shape)], -1).reshape(-1, 2)
            )
            strides.append(x.new_full((height * width,), float(stride)))
        centres, scale = torch.cat(points), torch.cat(strides)
        lengths = torch.cat(reaches, 1).float().clamp(max=_LARGEST).exp() * scale[:, None]
        amodal, visible = lengths[..., :4], lengths[..., 4:]
        return Dense(
            torch.cat(logits, 1).float(),
            torch.cat([centres - amodal[..., :2], centres + amodal[..., 2:]], -1),
            torch.cat([centres - visible[..., :2], centres + visible[..., 2:]], -1),
            torch.cat(features, 1),
            centres,
            scale,
        )


def _run(tower: nn.ModuleList, level: torch.Tensor, number: int) -> torch.Tensor:
    for layer in tower:
        level = layer(level, number)
    return level


class Described(NamedTuple):
    """What chosen locations say of their objects, (..., D) each.

    Attributes:
        kernels: weights of the objects' mask networks.
        embeddings: of unit length, float32.
        log_depths: (...,) natural log of metres.
        occlusion: (...,) logit of the hidden share of the amodal area.
    """

    kernels: torch.Tensor
    embeddings: torch.Tensor
    log_depths: torch.Tensor
    occlusion: torch.Tensor


class InstanceHead(nn.Module):
    """Describes objects from the features of their location and from their box.

    Only chosen locations are described, so its outputs may be many and cost next to nothing.

    Args:
        inner: channels of `Dense.features`.
        kernel: numbers of a mask network.
        embedding: length of an embedding.
        width: hidden channels.
    """

    def __init__(self, inner: int, kernel: int, embedding: int, width: int) -> None:
        super().__init__()
        self.shared = nn.Linear(inner + _GEOMETRY, width)
        self.kernels = nn.Linear(width, kernel)
        self.embedding = nn.Linear(width, embedding)
        self.scalars = nn.Linear(width, 2)
        nn.init.kaiming_normal_(self.shared.weight, nonlinearity="relu")
        nn.init.zeros_(self.shared.bias)
        nn.init.normal_(self.kernels.weight, std=0.05)
        nn.init.normal_(self.kernels.bias, std=0.15)
        nn.init.normal_(self.scalars.weight, std=0.01)
        with torch.no_grad():
            # 20 m, and 12 % hidden.
            self.scalars.bias.copy_(torch.tensor([3.0, -2.0]))

    def forward(
        self, features: torch.Tensor, boxes: torch.Tensor, limits: torch.Tensor
    ) -> Described:
        """Describe objects.

        Args:
            features: (..., inner) of their locations.
            boxes: (..., 4) their amodal boxes.
            limits: (..., 2) width and height of their image in pixels.
        """
        # Size and place of a box say much of an object's distance; no gradient to the box.
        extent = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1).log() / 4 - 1
        place = (boxes[..., :2] + boxes[..., 2:]) / (2 * limits) - 0.5
        geometry = torch.cat([extent, place], -1).detach().to(features.dtype)
        x = F.relu(self.shared(torch.cat([features, geometry], -1)))
        scalars = self.scalars(x).float()
        return Described(
            self.kernels(x).float(),
            F.normalize(self.embedding(x).float(), dim=-1),
            scalars[..., 0],
            scalars[..., 1],
        )


def suppress(
    scores: torch.Tensor,
    labels: torch.Tensor,
    boxes: torch.Tensor,
    visible_boxes: torch.Tensor,
    threshold: float,
) -> torch.Tensor:
    """Greedy non-maximum suppression of fixed size, which neither waits nor loops over boxes.

    The overlap of two is the mean of their amodal and visible boxes' IoU: whole cars in a row cover
    each other, what is seen of them does not.

    A round keeps what no kept, stronger one covers. After R rounds the result is the greedy one
    wherever chains of covering boxes are no longer than R (Cluster-NMS, Zheng et al. 2020).

    Args:
        scores: (B, K) falling.
        labels: (B, K) int64.
        boxes: (B, K, 4) amodal.
        visible_boxes: (B, K, 4).
        threshold: overlap above which the weaker one goes.

    Returns:
        (B, K) scores, 0 for what is suppressed.
    """
    amodal = pair_iou(boxes[:, :, None], boxes[:, None])
    visible = pair_iou(visible_boxes[:, :, None], visible_boxes[:, None])
    same = labels[:, :, None] == labels[:, None]
    overlap = (amodal + visible) / 2 * torch.where(same, 1.0, _OTHER_CLASS)
    place = torch.arange(scores.shape[1], device=scores.device)
    covers = ((overlap > threshold) & (place[:, None] < place)).to(scores.dtype)
    kept = torch.ones_like(scores)
    for _ in range(_ROUNDS):
        kept = ((covers * kept[:, :, None]).amax(1) == 0).to(scores.dtype)
    return scores * kept
