"""The baselines: Mask R-CNN with amodal masks, and ORCNN, which ties the two masks together.

Mask R-CNN amodal: the four-convolution head on amodal masks, a second one on visible masks.
ORCNN (Follmann et al., WACV 2019): the same two heads, and an invisible mask, amodal minus the
positive part of visible, trained on amodal XOR visible; it has no weights of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from amodal_core.models.batch import Batch
from amodal_core.models.layers.backbone import CHANNELS
from amodal_core.models.layers.two_stage import (
    Features,
    PositiveRois,
    TwoStage,
    TwoStageConfig,
    mask_head,
)

SIDE = 28


class MaskRcnnAmodal(TwoStage):
    """Mask R-CNN with an amodal and a visible mask head, one logit a class.

    Args:
        config: the trunk's settings; the heads have none.
    """

    name = "mask_rcnn"

    def __init__(self, config: TwoStageConfig) -> None:
        super().__init__(config)
        self.amodal_head, self.visible_head = mask_head(), mask_head()
        self.amodal_logits = nn.Conv2d(CHANNELS, len(config.classes), 1)
        self.visible_logits = nn.Conv2d(CHANNELS, len(config.classes), 1)
        for layer in (self.amodal_logits, self.visible_logits):
            nn.init.normal_(layer.weight, std=0.001)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def _logits(self, pooled: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = torch.arange(len(labels), device=labels.device)
        amodal = self.amodal_logits(self.amodal_head(pooled))[rows, labels]
        visible = self.visible_logits(self.visible_head(pooled))[rows, labels]
        return amodal, visible

    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Binary cross entropy of both masks in the channel of the true class."""
        pooled = self.roi_features(features, rois.boxes, batch)
        amodal, visible = self._logits(pooled, rois.labels)
        whole = rois.amodal(SIDE)
        seen = rois.visible(SIDE)
        return {"amodal": mask_loss(amodal, whole), "visible": mask_loss(visible, seen)}

    def masks(
        self,
        features: Features,
        boxes: list[torch.Tensor],
        labels: list[torch.Tensor],
        batch: Batch,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits in the channel of the predicted class."""
        amodal, visible = self._logits(self.roi_features(features, boxes, batch), torch.cat(labels))
        return amodal, visible


class Orcnn(MaskRcnnAmodal):
    """Mask R-CNN amodal whose invisible part is trained, too."""

    name = "orcnn"

    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Binary cross entropy of amodal, visible and invisible masks."""
        pooled = self.roi_features(features, rois.boxes, batch)
        amodal, visible = self._logits(pooled, rois.labels)
        whole = rois.amodal(SIDE)
        seen = rois.visible(SIDE)
        return {
            "amodal": mask_loss(amodal, whole),
            "visible": mask_loss(visible, seen),
            "invisible": mask_loss(amodal - F.relu(visible), (whole != seen).to(whole.dtype)),
        }


def mask_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean binary cross entropy; a zero with a gradient where there is no RoI."""
    if not len(logits):
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits.float(), truth)
