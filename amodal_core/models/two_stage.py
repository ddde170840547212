"""The two-stage trunk: proposals, boxes and classes; subclasses add the mask heads.

Faster R-CNN on a feature pyramid with *amodal* boxes, from torchvision's parts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.image_list import ImageList

from amodal_core.models import two_stage_parts as parts
from amodal_core.models.box_heads import BoxHeads
from amodal_core.models.detections import Detections
from amodal_core.models.layers.backbone import (
    LEVELS,
    Features,
    LiteWithFPN,
    ResNetWithFPN,
    resnet_fpn,
)
from amodal_core.models.layers.batch import Batch, LidarBoxes, Targets
from amodal_core.models.layers.parts import InParts, Part, Tensors
from amodal_core.models.layers.positive_rois import PositiveRois
from amodal_core.models.layers.proposals import ProposalNetwork
from amodal_core.models.layers.roi_features import RoiFeatures
from amodal_core.models.learned import LearnedModel
from amodal_core.models.lidar_objects import (
    BOTH,
    IMAGE,
    LIDAR,
    OBJECTS,
    LidarObjects,
    with_truth,
)
from amodal_core.models.two_stage_config import TwoStageConfig


class TwoStage(InParts, LearnedModel):
    """Backbone, proposals, boxes and classes.

    A subclass implements `mask_losses` and `mask_logits`.
    """

    Config = TwoStageConfig
    config: TwoStageConfig
    files = LearnedModel.files | {"lidar_weights"}
    tied = frozenset({"anchor_scale", "depth", "roi_align", "rounded_anchors", "stride_in_1x1"})
    earlier: ClassVar[dict[str, Any]] = {"roi_align": "torchvision"}
    runtimes = True

    def __init__(self, config: TwoStageConfig) -> None:
        super().__init__(config)
        self.elsewhere = {}
        self.backbone: LiteWithFPN | ResNetWithFPN
        if config.backbone == "efficientnet_lite0":
            self.backbone = LiteWithFPN(
                config.lidar, config.frozen_stages, config.weights, config.channels
            )
        else:
            self.backbone = resnet_fpn(
                config.backbone,
                lidar=config.lidar,
                norm=config.norm,
                frozen_stages=config.frozen_stages,
                weights=config.weights or None,
                channels=config.channels,
                stride_in_1x1=config.stride_in_1x1,
            )
        self.lidar_objects: LidarObjects | None = None
        if config.proposals_from != IMAGE or config.depth == OBJECTS:
            self.lidar_objects = LidarObjects(
                config.lidar_detector,
                config.classes,
                config.lidar_weights,
                config.depth == OBJECTS,
            )
            self.config = replace(config, lidar_detector=self.lidar_objects.network.config)
        self.pool = RoiFeatures(14, config.roi_align)
        if config.proposals_from != LIDAR:
            self.rpn = ProposalNetwork(
                config.channels,
                anchor_scale=config.anchor_scale,
                rounded=config.rounded_anchors,
                convolutions=config.proposal_convolutions,
                counts={"training": config.proposals_train, "testing": config.proposals},
                least_side=config.proposal_side,
                beta=config.proposal_beta,
            )
            self.heads = BoxHeads(config)

    @classmethod
    def from_checkpoint(cls, path: str, device: str = "cpu", **settings: Any) -> LearnedModel:
        """As `LearnedModel.from_checkpoint`; its parts run in the runtime of the settings."""
        model = super().from_checkpoint(path, device, **settings)
        assert isinstance(model, TwoStage)
        model.accelerators = parts.accelerated(model, model.parts(), path)
        return model

    @property
    def inputs(self) -> frozenset[str]:
        """The image; points and calibration, too, where objects are found in the LiDAR."""
        needed = {"image"} if self.lidar_objects is None else {"image", "points", "calibration"}
        return frozenset(needed)

    @property
    def pastes_probabilities(self) -> bool:
        """As the setting `paste` says."""
        return self.config.paste == "probabilities"

    @property
    def optional(self) -> frozenset[str]:
        """Depth, where the depth channels show the whole frame."""
        return frozenset() if self.config.depth == OBJECTS else super().optional

    def trunk(self) -> list[nn.Module]:
        """Backbone and pyramid, and what looks into the LiDAR before them."""
        return [m for m in (self.backbone, self.lidar_objects) if m is not None]

    def blocks(self) -> list[nn.Module]:
        """The backbone's stages, the pyramid, and the heads of proposals and boxes."""
        parts = [*self.backbone.stages(), self.backbone.fpn]
        if self.config.proposals_from != LIDAR:
            parts += [self.rpn.head, self.heads.box_head]
        return parts

    @abstractmethod
    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Losses of the mask heads over the positive RoIs, of which there may be none."""

    @abstractmethod
    def mask_logits(
        self, pooled: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, S, S) amodal and visible logits from the features (N, channels, 14, 14) in boxes.

        Args:
            pooled: see `roi_features`.
            labels: (N,) class ids from 0.
        """

    def masks(
        self,
        features: Features,
        boxes: list[torch.Tensor],
        labels: list[torch.Tensor],
        batch: Batch,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, S, S) amodal and visible logits in the boxes of all images in a row."""
        pooled = self.roi_features(features, boxes, batch)
        amodal, visible = self.ran("mask_logits", pooled, torch.cat(labels))
        return amodal, visible

    def features(self, batch: Batch) -> Features:
        """The pyramid's levels of a batch, where the heads are."""
        x = batch.inputs(self.config.lidar)
        if self.elsewhere.get("pyramid") is not None and not torch.is_grad_enabled():
            # With what the head of proposals gives for each level, in place of P6.
            values = self.ran("pyramid", *([x[:, :3], x[:, 3:]] if self.config.lidar else [x]))
            levels = [level.permute(0, 3, 1, 2) for level in values[: len(LEVELS)]]
            values = (*levels, *values[len(LEVELS) :])
            names = parts.trunk_outputs(self.config.proposals_from != LIDAR)
            return OrderedDict(zip(names, values, strict=True))
        levels = self.backbone(x)
        return OrderedDict((name, self.crossing(x)) for name, x in levels.items())

    def pyramid(self, images: torch.Tensor, depth: torch.Tensor | None = None) -> Tensors:
        """P2 to P5, channels last, then the logits and the deltas that propose, of each level.

        Args:
            images: (B, 3, H, W).
            depth: (B, 2, H, W), where the model takes it.
        """
        levels = self.backbone(images if depth is None else torch.cat([images, depth], 1))
        shown = [levels[name].permute(0, 2, 3, 1) for name in LEVELS]
        if self.config.proposals_from == LIDAR:
            return tuple(shown)
        logits, deltas = self.rpn.head(list(levels.values()))
        return (*shown, *logits, *deltas)

    def parts(self) -> list[Part]:
        """What runs in other runtimes: trunk, heads of boxes and masks."""
        proposes, channels = self.config.proposals_from != LIDAR, self.config.channels
        heads = [parts.boxes(self.heads, channels)] if proposes else []
        trunk = parts.trunk(self, self.config.lidar, proposes)
        return [trunk, *heads, parts.masks(self, channels)]

    def roi_features(
        self, features: Features, boxes: list[torch.Tensor], batch: Batch
    ) -> torch.Tensor:
        """(N, channels, 14, 14) features in the boxes of all images in a row."""
        pooled: torch.Tensor = self.pool(features, boxes, batch.sizes)
        return pooled

    def wanted(self, targets: Targets) -> Targets:
        """The objects of an image that are to be found, at their `boxes`."""
        return targets.select(~targets.ignore & has_extent(targets.boxes))

    def sensed(self, batch: Batch) -> Batch:
        """The batch with what is found in the LiDAR, where the model looks there."""
        if self.lidar_objects is None:
            return batch
        with_objects: Batch = self.lidar_objects(batch)
        return with_objects

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """RPN, box and mask losses; of masks alone where LiDAR boxes are the detections."""
        batch = self.sensed(batch)
        features, batch = self.features(batch), self.crossed(batch)
        assert batch.targets is not None, "losses need targets"
        wanted = [self.wanted(t) for t in batch.targets]
        if self.config.proposals_from == LIDAR:
            return self.mask_losses(features, lidar_rois(batch, wanted), batch)
        proposals, losses = self.propose(features, wanted, batch)
        return losses | self.second_stage_losses(features, proposals, wanted, batch)

    def propose(
        self, features: Features, wanted: list[Targets], batch: Batch
    ) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """Proposals (P, 4) of each image for training, and the losses of the RPN."""
        truths = [{"boxes": t.boxes} for t in wanted]
        images = ImageList(batch.images, batch.sizes)
        proposals, rpn = self.rpn(images, _float(features), truths)
        return self._joined(proposals, batch), {
            "rpn_objectness": rpn["loss_objectness"],
            "rpn_box": rpn["loss_rpn_box_reg"],
        }

    def proposals(self, features: Features, batch: Batch) -> list[torch.Tensor]:
        """Proposals (P, 4) of each image for inference."""
        result: list[torch.Tensor]
        images = ImageList(batch.images, batch.sizes)
        if parts.LOGITS[0] in features:
            logits, deltas = (
                [features[name] for name in names] for names in (parts.LOGITS, parts.DELTAS)
            )
            result = self.rpn.selected(logits, deltas, images)
        else:
            result, _ = self.rpn(images, _float(features))
        return self._joined(result, batch)

    def _joined(self, proposals: list[torch.Tensor], batch: Batch) -> list[torch.Tensor]:
        """The proposals, and the LiDAR's boxes where they are wanted, too."""
        if self.config.proposals_from != BOTH:
            return proposals
        assert batch.lidar_boxes is not None
        return [torch.cat([p, b.boxes]) for p, b in zip(proposals, batch.lidar_boxes, strict=True)]

    def second_stage_losses(
        self,
        features: Features,
        proposals: list[torch.Tensor],
        wanted: list[Targets],
        batch: Batch,
    ) -> dict[str, torch.Tensor]:
        """Losses of all heads over the proposals."""
        losses, rois = self.box_losses(self.heads, features, proposals, wanted, batch)
        return losses | self.mask_losses(features, rois, batch)

    def box_losses(
        self,
        heads: BoxHeads,
        features: Features,
        proposals: list[torch.Tensor],
        wanted: list[Targets],
        batch: Batch,
    ) -> tuple[dict[str, torch.Tensor], PositiveRois]:
        """Losses of a head's classes and boxes, and its RoIs on objects."""
        assert batch.targets is not None, "losses need targets"
        heads.ignored = [t.boxes[t.ignore] for t in batch.targets]
        truths = [{"boxes": t.boxes, "labels": t.labels + 1} for t in wanted]
        rois, matched, labels, regression = heads.select_training_samples(proposals, truths)
        logits, deltas = heads.predict(features, rois, batch)
        every = torch.cat(labels)
        rows = torch.where(every > 0)[0]
        boxes = F.smooth_l1_loss(
            deltas.reshape(*logits.shape, 4)[rows, every[rows]].float(),
            torch.cat(regression)[rows],
            beta=self.config.box_beta,
            reduction="sum",
        )
        positive = [label > 0 for label in labels]
        chosen = PositiveRois(
            [r[p] for r, p in zip(rois, positive, strict=True)],
            wanted,
            [m[p] for m, p in zip(matched, positive, strict=True)],
        )
        classes = F.cross_entropy(logits.float(), every, heads.class_weights, reduction="sum")
        count = max(len(every), 1)
        return {"class": classes / count, "box": boxes / count}, chosen

    def detect(self, batch: Batch) -> list[Detections]:
        """Detections with their masks and depths."""
        batch = self.sensed(batch)
        features, batch = self.features(batch), self.crossed(batch)
        return self.detections_in(features, batch)

    def find(
        self, features: Features, batch: Batch
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        """Boxes (N, 4), scores (N,) and labels (N,) from 0 of what is found in each image."""
        if self.config.proposals_from == LIDAR:
            of_lidar = self._lidar_detections(batch)
            return (
                [f.boxes for f in of_lidar],
                [f.scores for f in of_lidar],
                [f.labels for f in of_lidar],
            )
        proposals = self.proposals(features, batch)
        boxes, scores, labels = self.heads.postprocess_detections(
            *self.heads.predict(features, proposals, batch), proposals, batch.sizes
        )
        return boxes, scores, [label - 1 for label in labels]

    def _lidar_detections(self, batch: Batch) -> list[LidarBoxes]:
        assert batch.lidar_boxes is not None
        return [b.best(self.config.min_score, self.config.max_instances) for b in batch.lidar_boxes]

    def detections_in(self, features: Features, batch: Batch) -> list[Detections]:
        """What is found in the features of each image."""
        boxes, scores, labels = self.find(features, batch)
        amodal, visible = self.masks(features, boxes, labels, batch)
        results = measured(batch, boxes, scores, labels, amodal, visible)
        if self.config.proposals_from == LIDAR:
            for one, sensed in zip(results, self._lidar_detections(batch), strict=True):
                one.depths = torch.where(one.depths > 0, one.depths, sensed.depths)
        return results


def measured(
    batch: Batch,
    boxes: list[torch.Tensor],
    scores: list[torch.Tensor],
    labels: list[torch.Tensor],
    amodal: torch.Tensor,
    visible: torch.Tensor,
    **more: list[torch.Tensor],
) -> list[Detections]:
    """Detections of each image with the depth of the LiDAR on their masks.

    Args:
        batch: with depth channels, where there are some.
        boxes: per image, as are scores, labels and more.
        scores: see `Detections`.
        labels: see there.
        amodal: (N, S, S) logits of all images in a row.
        visible: likewise.
        **more: further attributes of `Detections`.
    """
    counts = [len(b) for b in boxes]
    columns = (boxes, scores, labels, amodal.split(counts), visible.split(counts))
    return [
        Detections.measured(
            None if batch.depth is None else batch.depth[n],
            *row,
            **{name: values[n] for name, values in more.items()},
        )
        for n, row in enumerate(zip(*columns, strict=True))
    ]


def _float(features: Features) -> Features:
    """The features in float32: torchvision makes anchors in their type."""
    return OrderedDict((name, x.float()) for name, x in features.items())


def lidar_rois(batch: Batch, wanted: list[Targets]) -> PositiveRois:
    """The RoIs that mask heads learn on by themselves: true boxes, and the LiDAR's of the same."""
    assert batch.lidar_boxes is not None
    pairs = [with_truth(b.boxes, t.boxes) for b, t in zip(batch.lidar_boxes, wanted, strict=True)]
    return PositiveRois([boxes for boxes, _ in pairs], wanted, [matched for _, matched in pairs])


def has_extent(boxes: torch.Tensor) -> torch.Tensor:
    """(N,) bool: boxes that are not empty."""
    return ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
