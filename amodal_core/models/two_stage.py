"""The two-stage trunk: proposals, boxes and classes; subclasses add the mask heads.

Faster R-CNN on a feature pyramid with *amodal* boxes, from torchvision's parts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)
from torchvision.ops import box_iou, roi_align

from amodal_core.models import two_stage_parts as parts
from amodal_core.models.detections import Detections
from amodal_core.models.layers.anchor_matcher import AnchorMatcher
from amodal_core.models.layers.backbone import CHANNELS, LEVELS, Backbone, Norm, resnet_fpn
from amodal_core.models.layers.batch import Batch, LidarBoxes, Targets
from amodal_core.models.layers.parts import InParts, Part, Tensors
from amodal_core.models.layers.roi_features import RoiAlign, RoiFeatures
from amodal_core.models.learned import LearnedModel
from amodal_core.models.learned_config import LearnedConfig
from amodal_core.models.lidar_objects import (
    BOTH,
    IMAGE,
    LIDAR,
    OBJECTS,
    LidarObjects,
    with_truth,
)
from amodal_core.models.pointpillars import PointPillarsConfig
from amodal_core.settings import Amount, Count, Positive, Share, Size, settings_type

Features = OrderedDict[str, torch.Tensor]
BACKGROUND = "background"
_IGNORED_OVERLAP = 0.5
_HIDDEN = 4  # width of the box head in channels of the pyramid: 1024 for 256


@settings_type
class TwoStageConfig(LearnedConfig):
    """Settings of the trunk.

    Attributes:
        backbone: torchvision's.
        norm: "frozen" on top of public weights, or "scaled", which learns scale and shift;
            "batch"; or "group" from scratch.
        frozen_stages: of the backbone's five.
        weights: torchvision's weights for the backbone, "" for random ones; only read when a model
            is made for training.
        stride_in_1x1: the stride of a stage lies in its first 1x1 convolution: Caffe's ResNets.
        channels: of each level of the pyramid and of the heads on it; 256 as published, fewer for
            CPUs; a multiple of 32.
        anchor_scale: side of the square anchor in units of its level's stride.
        rounded_anchors: anchors have whole corners, as torchvision's; elsewhere they have not.
        roi_align: how features are looked up in boxes, see `layers.roi_features`; "torchvision" for
            weights that began there.
        proposal_convolutions: of the proposal network before its outputs.
        box_convolutions: of the box head, before one linear layer instead of two; 0 for none.
        proposals_train: kept of an image for training.
        proposals: kept of an image for inference.
        proposal_side: pixels of a proposal's shorter side at least.
        proposal_beta: error of a proposal's delta up to which its loss is quadratic; 0 for none.
        box_beta: the same of the box heads' deltas.
        class_weights: class, or "background", -> its weight in the loss of classes; 1 for others.
        samples: RoIs of an image that the second stage is trained on.
        positive_share: of the samples at most.
        nms: IoU above which the weaker of two detections of a class goes.
        paste: how masks come into the image: "logits" are interpolated, or "probabilities" as
            detectron2 and mmdetection do, see `masks.paste.of_probabilities`.
        proposals_from: "image": the proposal network; "lidar": the objects that PointPillars finds,
            with its classes and scores, are the detections, and only masks are drawn; "both": they
            join the network's proposals.
        depth: what the depth channels show, "frame": every return; "objects": the returns in the
            boxes that PointPillars finds, and what lies between them.
        lidar_weights: checkpoint of PointPillars, or its public weights (.pth), for these two; only
            read when a model is made for training.
        lidar_detector: settings of PointPillars; a checkpoint has its own.
    """

    backbone: Backbone = "resnet50"
    norm: Norm = "frozen"
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2
    weights: str = ""
    stride_in_1x1: bool = False
    channels: Annotated[int, Field(ge=32, multiple_of=32)] = CHANNELS
    anchor_scale: Size = 8.0
    rounded_anchors: bool = True
    roi_align: RoiAlign = "aligned"
    proposal_convolutions: Positive = 1
    box_convolutions: Count = 0
    proposals_train: Count = 1000
    proposals: Count = 300
    proposal_side: Amount = 1e-3
    proposal_beta: Amount = 1 / 9
    box_beta: Amount = 1 / 9
    class_weights: dict[str, Amount] = field(default_factory=dict)
    samples: Positive = 512
    positive_share: Share = 0.25
    nms: Share = 0.5
    paste: Literal["logits", "probabilities"] = "logits"
    proposals_from: Literal["image", "lidar", "both"] = "image"
    depth: Literal["frame", "objects"] = "frame"
    lidar_weights: str = ""
    lidar_detector: PointPillarsConfig = field(default_factory=PointPillarsConfig)

    @model_validator(mode="after")
    def _fit(self) -> TwoStageConfig:
        if self.depth == OBJECTS and not self.lidar:
            raise ValueError("depth: objects has no depth channels without lidar: true")
        if foreign := sorted(self.class_weights.keys() - {BACKGROUND, *self.classes}):
            raise ValueError(f"class_weights of {', '.join(foreign)}, which are no classes")
        return self


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


class ExactAnchors(AnchorGenerator):
    """torchvision's anchors without its rounding to whole pixels."""

    def generate_anchors(
        self,
        scales: Any,
        aspect_ratios: Any,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> torch.Tensor:
        """(R * S, 4) boxes around 0 of one level, ratio by ratio."""
        sides = torch.as_tensor(scales, dtype=dtype, device=device)
        ratios = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        width = (sides[None] / ratios[:, None]).flatten()
        height = (sides[None] * ratios[:, None]).flatten()
        return torch.stack([-width, -height, width, height], 1) / 2


class ProposalHead(RPNHead):
    """torchvision's head of the proposal network; float32 out, whatever it computes in.

    Boxes take the type of what they are decoded from, and in bfloat16 a coordinate of 448 is known
    to 2 pixels only.
    """

    def forward(self, levels: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Per level, logits (B, A, H, W) and deltas (B, 4 A, H, W)."""
        logits, deltas = super().forward(levels)
        return [x.float() for x in logits], [x.float() for x in deltas]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's proposal network with a loss that may be linear from the first error on.

    Args:
        *parts: anchors, head and settings of torchvision's.
        beta: error of a delta up to which its loss is quadratic; 0 for none.
        **settings: of torchvision's.
    """

    def __init__(self, *parts: Any, beta: float, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self.beta = beta

    def selected(
        self,
        logits: list[torch.Tensor],
        deltas: list[torch.Tensor],
        images: ImageList,
    ) -> list[torch.Tensor]:
        """Proposals (P, 4) of each image from what the head gives for each level.

        Args:
            logits: (B, A, H, W) each.
            deltas: (B, 4 A, H, W) each.
            images: the batch.
        """
        anchors = self.anchor_generator(images, logits)
        counts = [level[0].numel() for level in logits]
        objectness, every = concat_box_prediction_layers(logits, deltas)
        boxes = self.box_coder.decode(every, anchors).view(len(anchors), -1, 4)
        result: list[torch.Tensor]
        result, _ = self.filter_proposals(boxes, objectness, images.image_sizes, counts)
        return result

    def compute_loss(
        self,
        objectness: torch.Tensor,
        pred_bbox_deltas: torch.Tensor,
        labels: list[torch.Tensor],
        regression_targets: list[torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses of objectness and boxes over sampled anchors, each the mean over the samples."""
        masks = [torch.cat(some) > 0 for some in self.fg_bg_sampler(labels)]
        positive, negative = (mask.nonzero()[:, 0] for mask in masks)
        sampled = torch.cat([positive, negative])
        boxes = F.smooth_l1_loss(
            pred_bbox_deltas[positive],
            torch.cat(regression_targets)[positive],
            beta=self.beta,
            reduction="sum",
        )
        objects = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled]
        )
        return objects, boxes / sampled.numel()


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
            self._add_detector(config)

    def _add_detector(self, config: TwoStageConfig) -> None:
        """The proposal network and the heads of boxes and classes."""
        strides = (4, 8, 16, 32, 64)
        anchors = (AnchorGenerator if config.rounded_anchors else ExactAnchors)(
            tuple((int(config.anchor_scale * s),) for s in strides),
            ((0.5, 1.0, 2.0),) * len(strides),
        )
        self.rpn = ProposalNetwork(
            anchors,
            ProposalHead(
                config.channels,
                anchors.num_anchors_per_location()[0],
                config.proposal_convolutions,
            ),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": config.proposals_train, "testing": config.proposals},
            nms_thresh=0.7,
            beta=config.proposal_beta,
        )
        self.rpn.min_size = config.proposal_side
        self.rpn.proposal_matcher = AnchorMatcher(0.7, 0.3, allow_low_quality_matches=True)
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
        body = self.backbone.body
        parts = [body.layer1, body.layer2, body.layer3, body.layer4, self.backbone.fpn]
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
