"""AISFormer: amodal instance segmentation with a transformer over each RoI.

Tran et al., BMVC 2022. The RoI's pixels are encoded by a transformer, of one layer as published;
learned queries for the visible, occluder and amodal masks read them; each query's embedding times
the pixel embeddings is its mask. One more mask, the invisible part, comes from the amodal and the
visible embedding together.

Unlike the original, only *nearer* objects are occluders: the truth's order (ico_id, LiDAR or exact
truth) decides, see `Targets.occluders`.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from amodal_core.models.layers.attention import (
    DecoderLayer,
    EncoderLayer,
    LearnedPosition2d,
    perceptron,
)
from amodal_core.models.layers.backbone import Features
from amodal_core.models.layers.batch import Batch
from amodal_core.models.layers.mask_branch import SIDE, mask_loss
from amodal_core.models.layers.positive_rois import PositiveRois
from amodal_core.models.two_stage import TwoStage
from amodal_core.models.two_stage_config import TwoStageConfig
from amodal_core.settings import Amount, Positive, settings_type

VISIBLE, OCCLUDER, AMODAL = 0, 1, 2
_QUERIES = 4
_LEAST_OCCLUDER = 20  # pixels of an occluder in the amodal box that are worth learning


@settings_type
class AisFormerConfig(TwoStageConfig):
    """Settings of AISFormer.

    Attributes:
        convolutions: before the upsampling; of more than one, as many before each pixel's
            embedding, too: 8 in aistron's later head.
        layers: of the encoder, and as many of the decoder.
        heads: of each attention.
        hidden: of each perceptron in the transformer.
        dropout: share.
        occluder_weight: of the occluder mask's loss.
        invisible_weight: of the invisible mask's loss.
    """

    convolutions: Positive = 1
    layers: Positive = 1
    heads: Positive = 2
    hidden: Positive = 2048
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    occluder_weight: Amount = 0.25
    invisible_weight: Amount = 0.25


class AisFormerHead(nn.Module):
    """(N, channels, 14, 14) features to five (N, 28, 28) masks.

    Args:
        config: of the model.
    """

    def __init__(self, config: AisFormerConfig) -> None:
        super().__init__()
        width = config.channels
        deep = config.convolutions > 1
        self.upsample = nn.Sequential(
            *_convolutions(width, config.convolutions),
            nn.ConvTranspose2d(width, width, 2, 2),
            nn.ReLU(inplace=True),
            *([nn.Conv2d(width, width, 1)] if deep else []),
        )
        self.position = LearnedPosition2d(width)
        size = width, config.heads, config.hidden, config.dropout
        self.encoder = nn.ModuleList(EncoderLayer(*size) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(*size) for _ in range(config.layers))
        self.queries = nn.Parameter(torch.randn(_QUERIES, width))
        self.pixel_norm = nn.LayerNorm(width)
        embed = nn.Conv2d(width, width, 1)
        nn.init.normal_(embed.weight, std=0.001)
        before = _convolutions(width, config.convolutions) if deep else []
        self.pixel_embedding = nn.Sequential(*before, embed) if deep else embed
        self.mask_embedding = perceptron([width] * 4)
        self.invisible_embedding = perceptron([2 * width, width, width])

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits (N, 5, 28, 28): visible, occluder, amodal, spare, invisible."""
        x = self.upsample(pooled)
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        position = self.position(h, w)
        encoded = tokens
        for layer in self.encoder:
            encoded = layer(encoded, position)
        queries = self.queries.expand(n, -1, -1)
        read = torch.zeros_like(queries)
        for layer in self.decoder:
            read = layer(read, queries, encoded, position)
        embeddings = self.mask_embedding(read)
        both = torch.cat([embeddings[:, AMODAL], embeddings[:, VISIBLE]], dim=-1)
        embeddings = torch.cat([embeddings, self.invisible_embedding(both)[:, None]], dim=1)
        pixels = self.pixel_norm(encoded + tokens).transpose(1, 2).reshape(n, c, h, w)
        return torch.einsum("nqc,nchw->nqhw", embeddings, self.pixel_embedding(pixels))


def _convolutions(width: int, count: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
    return layers


class AisFormer(TwoStage):
    """AISFormer on the two-stage trunk; its masks are class-agnostic."""

    name = "aisformer"
    Config = AisFormerConfig
    config: AisFormerConfig
    tied = TwoStage.tied | {"heads"}

    def __init__(self, config: AisFormerConfig) -> None:
        super().__init__(config)
        self.head = AisFormerHead(config)

    def blocks(self) -> list[nn.Module]:
        """The trunk's, and the transformer's layers."""
        return [*super().blocks(), self.head.upsample, *self.head.encoder, *self.head.decoder]

    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Binary cross entropy of visible, amodal, occluder and invisible masks."""
        logits = self.head(self.roi_features(features, rois.boxes, batch))
        amodal, visible = rois.amodal(SIDE), rois.visible(SIDE)
        occluder, chosen = self._occluders(rois)
        return {
            "visible": mask_loss(logits[:, VISIBLE], visible),
            "amodal": mask_loss(logits[:, AMODAL], amodal),
            "occluder": self.config.occluder_weight
            * mask_loss(logits[chosen, OCCLUDER], occluder[chosen]),
            "invisible": self.config.invisible_weight
            * mask_loss(logits[:, -1], (amodal != visible).to(amodal.dtype)),
        }

    def _occluders(self, rois: PositiveRois) -> tuple[torch.Tensor, torch.Tensor]:
        """Occluder masks (P, 28, 28), and which RoIs learn them.

        RoIs with an occluder learn it; as many without, from the first on, learn to find none.
        """
        masks = []
        for objects in rois.objects:
            # Whose visible pixels lie in an object's amodal box and before it.
            hides = objects.occluders.to(torch.float32)
            union = torch.zeros_like(objects.visible)
            some = hides.any(1)
            if some.any():
                flat = objects.visible.flatten(1).to(torch.float32)
                union[some] = (hides[some] @ flat > 0).view_as(union[some])
            masks.append(union)
        occluder = rois.crop(masks, SIDE)
        areas = torch.cat([_box_areas(b) for b in rois.boxes]) / SIDE**2
        occluded = occluder.flatten(1).sum(1) * areas > _LEAST_OCCLUDER
        occluder = torch.where(occluded[:, None, None], occluder, 0.0)
        without = ~occluded & (torch.cumsum(~occluded, 0) <= occluded.sum().clamp(min=1))
        return occluder, occluded | without

    def mask_logits(
        self, pooled: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Amodal and visible logits, whatever the class."""
        logits = self.head(pooled)
        return logits[:, AMODAL], logits[:, VISIBLE]


def _box_areas(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
