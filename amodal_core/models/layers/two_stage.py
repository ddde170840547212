"""The two-stage trunk: proposals, boxes and classes; subclasses add the mask heads.

Faster R-CNN on a feature pyramid with *amodal* boxes, from torchvision's parts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign, box_iou, roi_align

from amodal_core.models.batch import Batch, Targets
from amodal_core.models.layers.backbone import CHANNELS, LEVELS, resnet_fpn
from amodal_core.models.layers.instance_depth import instance_depths
from amodal_core.models.learned import Found, LearnedConfig, LearnedModel

Features = OrderedDict[str, torch.Tensor]
_IGNORED_OVERLAP = 0.5


@dataclass(frozen=True)
class TwoStageConfig(LearnedConfig):
    """Settings of the trunk.

    Attributes:
        backbone: see `layers.backbone.BACKBONES`.
        norm: see `layers.backbone.NORMS`.
        frozen_stages: of the backbone's five.
        weights: torchvision's weights for the backbone, "" for random ones; only read when a model
            is made for training.
        anchor_scale: side of the square anchor in units of its level's stride.
        proposals_train: kept of an image for training.
        proposals: kept of an image for inference.
        samples: RoIs of an image that the second stage is trained on.
        positive_share: of the samples at most.
        nms: IoU above which the weaker of two detections of a class goes.
    """

    backbone: str = "resnet50"
    norm: str = "frozen"
    frozen_stages: int = 2
    weights: str = ""
    anchor_scale: float = 8.0
    proposals_train: int = 1000
    proposals: int = 300
    samples: int = 512
    positive_share: float = 0.25
    nms: float = 0.5


@dataclass
class PositiveRois:
    """The RoIs of a batch that mask heads are trained on, all images in a row.

    Attributes:
        boxes: per image, (P_i, 4) float32.
        objects: per image, its N_i objects.
        matched: per image, (P_i,) int64, the object that each RoI belongs to.
    """

    boxes: list[torch.Tensor]
    objects: list[Targets]
    matched: list[torch.Tensor]

    def __len__(self) -> int:
        return sum(len(b) for b in self.boxes)

    @property
    def labels(self) -> torch.Tensor:
        """(P,) int64 class ids from 0."""
        return torch.cat([t.labels[m] for t, m in zip(self.objects, self.matched, strict=True)])

    def crop(self, masks: Sequence[torch.Tensor], side: int) -> torch.Tensor:
        """(P, side, side) float32 0/1: the mask of each RoI's object, sampled in the RoI's box.

        Args:
            masks: per image (N_i, H, W) bool, one an object, such as `objects[i].amodal`.
            side: cells along each side.
        """
        parts = []
        for box, mask, index in zip(self.boxes, masks, self.matched, strict=True):
            if not len(box):
                parts.append(box.new_zeros((0, side, side)))
                continue
            rois = torch.cat([index[:, None].to(box.dtype), box], 1)
            grid = roi_align(mask[:, None].to(box.dtype), rois, side, aligned=True)
            parts.append((grid[:, 0] >= 0.5).to(box.dtype))
        return torch.cat(parts)

    def amodal(self, side: int) -> torch.Tensor:
        """(P, side, side) float32 0/1: amodal masks in the boxes."""
        return self.crop([t.amodal for t in self.objects], side)

    def visible(self, side: int) -> torch.Tensor:
        """(P, side, side) float32 0/1: visible masks in the boxes."""
        return self.crop([t.visible for t in self.objects], side)


class _Heads(RoIHeads):
    """torchvision's second stage; RoIs on ignored objects are neither object nor background."""

    ignored: list[torch.Tensor]

    def assign_targets_to_proposals(
        self, proposals: Any, gt_boxes: Any, gt_labels: Any
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        matched, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        for label, boxes, ignored in zip(labels, proposals, self.ignored, strict=True):
            if len(ignored):
                on_ignored = box_iou(boxes, ignored).amax(1) >= _IGNORED_OVERLAP
                label[on_ignored & (label == 0)] = -1
        return matched, labels


class TwoStage(LearnedModel):
    """Backbone, proposals, boxes and classes.

    A subclass implements `mask_losses` and `masks`.
    """

    Config = TwoStageConfig
    config: TwoStageConfig
    tied = frozenset({"anchor_scale"})

    def __init__(self, config: TwoStageConfig) -> None:
        super().__init__(config)
        self.backbone = resnet_fpn(
            config.backbone,
            lidar=config.lidar,
            norm=config.norm,
            frozen_stages=config.frozen_stages,
            weights=config.weights or None,
        )
        strides = (4, 8, 16, 32, 64)
        anchors = AnchorGenerator(
            tuple((int(config.anchor_scale * s),) for s in strides),
            ((0.5, 1.0, 2.0),) * len(strides),
        )
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(CHANNELS, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": config.proposals_train, "testing": config.proposals},
            nms_thresh=0.7,
        )
        self.heads = _Heads(
            MultiScaleRoIAlign(list(LEVELS), 7, 2),
            TwoMLPHead(CHANNELS * 49, 1024),
            FastRCNNPredictor(1024, len(config.classes) + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=config.samples,
            positive_fraction=config.positive_share,
            bbox_reg_weights=None,
            score_thresh=config.min_score,
            nms_thresh=config.nms,
            detections_per_img=config.max_instances,
        )
        self.pool = MultiScaleRoIAlign(list(LEVELS), 14, 2)

    def trunk(self) -> list[nn.Module]:
        """Backbone and pyramid."""
        return [self.backbone]

    def blocks(self) -> list[nn.Module]:
        """The backbone's stages, the pyramid, and the heads of proposals and boxes."""
        body = self.backbone.body
        stages = [body.layer1, body.layer2, body.layer3, body.layer4]
        return [*stages, self.backbone.fpn, self.rpn.head, self.heads.box_head]

    @abstractmethod
    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Losses of the mask heads over the positive RoIs, of which there may be none."""

    @abstractmethod
    def masks(
        self,
        features: Features,
        boxes: list[torch.Tensor],
        labels: list[torch.Tensor],
        batch: Batch,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, S, S) amodal and visible logits in the boxes of all images in a row."""

    def features(self, batch: Batch) -> Features:
        """The pyramid's levels of a batch, where the heads are."""
        levels = self.backbone(batch.inputs(self.config.lidar))
        return OrderedDict((name, self.crossing(x)) for name, x in levels.items())

    def roi_features(
        self, features: Features, boxes: list[torch.Tensor], batch: Batch
    ) -> torch.Tensor:
        """(N, 256, 14, 14) features in the boxes of all images in a row."""
        pooled: torch.Tensor = self.pool(features, boxes, batch.sizes)
        return pooled

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """RPN, box and mask losses."""
        features, batch = self.features(batch), self.crossed(batch)
        assert batch.targets is not None, "losses need targets"
        wanted = [t.select(~t.ignore & _has_extent(t.boxes)) for t in batch.targets]
        truths = [{"boxes": t.boxes, "labels": t.labels + 1} for t in wanted]
        images = ImageList(batch.images, batch.sizes)
        proposals, rpn = self.rpn(images, features, truths)
        self.heads.ignored = [t.boxes[t.ignore] for t in batch.targets]
        rois, matched, labels, regression = self.heads.select_training_samples(proposals, truths)
        pooled = self.heads.box_head(self.heads.box_roi_pool(features, rois, batch.sizes))
        logits, deltas = self.heads.box_predictor(pooled)
        if len(logits):
            class_loss, box_loss = fastrcnn_loss(logits, deltas, labels, regression)
        else:  # no proposals, or all on ignored objects: means over nothing are no numbers
            class_loss, box_loss = logits.sum(), deltas.sum()
        positive = [label > 0 for label in labels]
        chosen = PositiveRois(
            [r[p] for r, p in zip(rois, positive, strict=True)],
            wanted,
            [m[p] for m, p in zip(matched, positive, strict=True)],
        )
        return {
            "rpn_objectness": rpn["loss_objectness"],
            "rpn_box": rpn["loss_rpn_box_reg"],
            "class": class_loss,
            "box": box_loss,
            **self.mask_losses(features, chosen, batch),
        }

    def detect(self, batch: Batch) -> list[Found]:
        """Detections with their masks and depths."""
        features, batch = self.features(batch), self.crossed(batch)
        proposals, _ = self.rpn(ImageList(batch.images, batch.sizes), features)
        pooled = self.heads.box_head(self.heads.box_roi_pool(features, proposals, batch.sizes))
        boxes, scores, labels = self.heads.postprocess_detections(
            *self.heads.box_predictor(pooled), proposals, batch.sizes
        )
        labels = [label - 1 for label in labels]
        amodal, visible = self.masks(features, boxes, labels, batch)
        counts = [len(b) for b in boxes]
        return [
            Found(
                box,
                score,
                label,
                whole,
                seen,
                instance_depths(None if batch.depth is None else batch.depth[n], box, seen),
            )
            for n, (box, score, label, whole, seen) in enumerate(
                zip(boxes, scores, labels, amodal.split(counts), visible.split(counts), strict=True)
            )
        ]


def _has_extent(boxes: torch.Tensor) -> torch.Tensor:
    """(N,) bool: boxes that are not empty."""
    return ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)


def mask_head(convolutions: int = 4) -> nn.Sequential:
    """(N, 256, 14, 14) to (N, 256, 28, 28): 3x3 convolutions, then a 2x2 stride-2 deconvolution."""
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(inplace=True)]
    layers += [nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2), nn.ReLU(inplace=True)]
    head = nn.Sequential(*layers)
    for layer in head:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return head
