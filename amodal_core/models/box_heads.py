"""The second stage of the two-stage models: classes and boxes of RoIs, from torchvision's parts."""

from __future__ import annotations

from typing import Any

import torch
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_iou

from amodal_core.models.layers.backbone import Features
from amodal_core.models.layers.batch import Batch
from amodal_core.models.layers.parts import InParts
from amodal_core.models.layers.roi_features import RoiFeatures
from amodal_core.models.two_stage_config import BACKGROUND, TwoStageConfig

_IGNORED_OVERLAP = 0.5
_HIDDEN = 4  # width of the box head in channels of the pyramid: 1024 for 256


class BoxHeads(InParts, RoIHeads):
    """torchvision's second stage; RoIs on ignored objects are neither object nor background.

    Args:
        config: the trunk's settings.
    """

    ignored: list[torch.Tensor]
    class_weights: torch.Tensor

    def __init__(self, config: TwoStageConfig) -> None:
        channels, width = config.channels, _HIDDEN * config.channels
        convolutions = [channels] * config.box_convolutions
        super().__init__(
            RoiFeatures(7, config.roi_align),
            FastRCNNConvFCHead((channels, 7, 7), convolutions, [width])
            if convolutions
            else TwoMLPHead(channels * 49, width),
            FastRCNNPredictor(width, len(config.classes) + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=config.samples,
            positive_fraction=config.positive_share,
            bbox_reg_weights=None,
            score_thresh=config.min_score,
            nms_thresh=config.nms,
            detections_per_img=config.max_instances,
        )
        self.elsewhere = {}
        weights = [config.class_weights.get(c, 1.0) for c in (BACKGROUND, *config.classes)]
        self.register_buffer("class_weights", torch.tensor(weights), persistent=False)

    def predict(
        self, features: Features, boxes: list[torch.Tensor], batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, C + 1) class logits, background first, and (N, 4 (C + 1)) deltas of N boxes."""
        logits, deltas = self.ran("outputs", self.box_roi_pool(features, boxes, batch.sizes))
        return logits, deltas

    def outputs(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same from the features (N, channels, 7, 7) in the boxes."""
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return logits.float(), deltas.float()

    def assign_targets_to_proposals(
        self, proposals: Any, gt_boxes: Any, gt_labels: Any
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """For each proposal the object it belongs to and its label: 0 background, -1 neither."""
        matched, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        for label, boxes, ignored in zip(labels, proposals, self.ignored, strict=True):
            if len(ignored):
                on_ignored = box_iou(boxes, ignored).amax(1) >= _IGNORED_OVERLAP
                label[on_ignored & (label == 0)] = -1
        return matched, labels
