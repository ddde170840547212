"""The proposal network of Faster R-CNN, from torchvision's parts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)

from amodal_core.models.layers.anchor_matcher import AnchorMatcher

_STRIDES = (4, 8, 16, 32, 64)
_OBJECT, _BACKGROUND = 0.7, 0.3  # overlap of an anchor with an object from which, up to which


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
        channels: of each level of the pyramid, P2 to P6.
        anchor_scale: side of the square anchor in units of its level's stride.
        rounded: anchors have whole corners, as torchvision's.
        convolutions: before the outputs.
        counts: proposals kept of an image in "training" and in "testing".
        least_side: pixels of a proposal's shorter side.
        beta: error of a delta up to which its loss is quadratic; 0 for none.
    """

    def __init__(
        self,
        channels: int,
        *,
        anchor_scale: float,
        rounded: bool,
        convolutions: int,
        counts: dict[str, int],
        least_side: float,
        beta: float,
    ) -> None:
        anchors = (AnchorGenerator if rounded else ExactAnchors)(
            tuple((int(anchor_scale * stride),) for stride in _STRIDES),
            ((0.5, 1.0, 2.0),) * len(_STRIDES),
        )
        super().__init__(
            anchors,
            ProposalHead(channels, anchors.num_anchors_per_location()[0], convolutions),
            fg_iou_thresh=_OBJECT,
            bg_iou_thresh=_BACKGROUND,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n=counts,
            nms_thresh=0.7,
        )
        self.beta, self.min_size = beta, least_side
        self.proposal_matcher = AnchorMatcher(_OBJECT, _BACKGROUND, allow_low_quality_matches=True)

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
