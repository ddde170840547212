"""The baselines: Mask R-CNN with amodal masks, and ORCNN, which ties the two masks together.

Mask R-CNN amodal: the four-convolution head on amodal masks, a second one on visible masks.
ORCNN (Follmann et al., WACV 2019): the same two heads, and an invisible mask, amodal minus the
positive part of visible, trained on amodal XOR visible; it has no weights of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from amodal_core.models.layers.backbone import Features
from amodal_core.models.layers.batch import Batch
from amodal_core.models.layers.mask_branch import SIDE, MaskBranch, mask_loss
from amodal_core.models.layers.positive_rois import PositiveRois
from amodal_core.models.two_stage import TwoStage
from amodal_core.models.two_stage_config import TwoStageConfig
from amodal_core.settings import Positive, settings_type


@settings_type
class MaskRcnnConfig(TwoStageConfig):
    """Settings of both baselines.

    Attributes:
        mask_convolutions: of each mask head; 12 for Mask R-CNN on COCOA-cls as published.
    """

    mask_convolutions: Positive = 4


class TwoMasks(TwoStage):
    """The trunk with an amodal and a visible mask head on the same boxes, one logit a class."""

    def add_mask_heads(self, convolutions: int = 4) -> None:
        """Make the heads, at the end of `__init__`."""
        size = self.config.channels, len(self.config.classes), convolutions
        self.amodal_branch, self.visible_branch = MaskBranch(*size), MaskBranch(*size)

    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Binary cross entropy of both masks in the channel of the true class."""
        amodal, visible = self.masks(features, rois.boxes, [rois.labels], batch)
        return {
            "amodal": mask_loss(amodal, rois.amodal(SIDE)),
            "visible": mask_loss(visible, rois.visible(SIDE)),
        }

    def mask_logits(
        self, pooled: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits in the channel of the predicted class."""
        return self.amodal_branch(pooled, labels), self.visible_branch(pooled, labels)


class MaskRcnnAmodal(TwoMasks):
    """Mask R-CNN with both masks.

    Args:
        config: the settings.
    """

    name = "mask_rcnn"
    Config = MaskRcnnConfig
    config: MaskRcnnConfig

    def __init__(self, config: MaskRcnnConfig) -> None:
        super().__init__(config)
        self.add_mask_heads(config.mask_convolutions)


class Orcnn(MaskRcnnAmodal):
    """Mask R-CNN amodal whose invisible part is trained, too."""

    name = "orcnn"

    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Binary cross entropy of amodal, visible and invisible masks."""
        amodal, visible = self.masks(features, rois.boxes, [rois.labels], batch)
        true_amodal, true_visible = rois.amodal(SIDE), rois.visible(SIDE)
        hidden = (true_amodal != true_visible).to(true_amodal.dtype)
        return {
            "amodal": mask_loss(amodal, true_amodal),
            "visible": mask_loss(visible, true_visible),
            "invisible": mask_loss(amodal - F.relu(visible), hidden),
        }
