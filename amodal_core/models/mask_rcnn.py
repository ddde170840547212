"""The baselines: Mask R-CNN with amodal masks, and ORCNN, which ties the two masks together.

Mask R-CNN amodal: the four-convolution head on amodal masks, a second one on visible masks.
ORCNN (Follmann et al., WACV 2019): the same two heads, and an invisible mask, amodal minus the
positive part of visible, trained on amodal XOR visible; it has no weights of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from amodal_core.models.batch import Batch
from amodal_core.models.layers.mask_branch import SIDE, MaskBranch, mask_loss
from amodal_core.models.layers.two_stage import (
    Features,
    PositiveRois,
    TwoStage,
    TwoStageConfig,
)


class MaskRcnnAmodal(TwoStage):
    """Mask R-CNN with an amodal and a visible mask head, one logit a class.

    Args:
        config: the trunk's settings; the heads have none.
    """

    name = "mask_rcnn"

    def __init__(self, config: TwoStageConfig) -> None:
        super().__init__(config)
        classes = len(config.classes)
        self.amodal_branch = MaskBranch(config.channels, classes)
        self.visible_branch = MaskBranch(config.channels, classes)

    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Binary cross entropy of both masks in the channel of the true class."""
        pooled = self.roi_features(features, rois.boxes, batch)
        amodal = self.amodal_branch(pooled, rois.labels)
        visible = self.visible_branch(pooled, rois.labels)
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
        pooled, kinds = self.roi_features(features, boxes, batch), torch.cat(labels)
        return self.amodal_branch(pooled, kinds), self.visible_branch(pooled, kinds)


class Orcnn(MaskRcnnAmodal):
    """Mask R-CNN amodal whose invisible part is trained, too."""

    name = "orcnn"

    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Binary cross entropy of amodal, visible and invisible masks."""
        pooled = self.roi_features(features, rois.boxes, batch)
        amodal = self.amodal_branch(pooled, rois.labels)
        visible = self.visible_branch(pooled, rois.labels)
        whole = rois.amodal(SIDE)
        seen = rois.visible(SIDE)
        return {
            "amodal": mask_loss(amodal, whole),
            "visible": mask_loss(visible, seen),
            "invisible": mask_loss(amodal - F.relu(visible), (whole != seen).to(whole.dtype)),
        }
