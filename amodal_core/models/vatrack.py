"""The VATrack family: two-stage detectors of videos whose detections come with an embedding.

QDTrack finds visible boxes and masks, AmodalTrack is the same network on amodal ones, VATrack has
both masks on the amodal box, and its two-box variant a head of its own for visible boxes. All learn
from a key frame and a reference frame; only the key frame's objects train the detector.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torchvision.ops import clip_boxes_to_image

from amodal_core.models import two_stage_parts as parts
from amodal_core.models.box_heads import BoxHeads
from amodal_core.models.detections import Detections
from amodal_core.models.layers.backbone import Features
from amodal_core.models.layers.batch import Batch, Targets
from amodal_core.models.layers.mask_branch import SIDE, MaskBranch, mask_loss
from amodal_core.models.layers.parts import Part, Tensors
from amodal_core.models.layers.positive_rois import PositiveRois
from amodal_core.models.layers.quasi_dense import EmbeddingHead, sample_rois, track_losses
from amodal_core.models.learned import Clip
from amodal_core.models.lidar_objects import LIDAR
from amodal_core.models.mask_rcnn import TwoMasks
from amodal_core.models.two_stage import TwoStage, has_extent, measured
from amodal_core.models.two_stage_config import TwoStageConfig
from amodal_core.settings import Amount, Count, Positive, Share, settings_type

_TRACK, _AUXILIARY = 0.25, 1.0  # weights of the losses
_LEAST_SCORE = 0.01  # of a visible box; below it the amodal box stands in
_OUTSIDE = -10.0  # logit


@settings_type
class VaTrackConfig(TwoStageConfig):
    """Settings of all four models.

    Attributes:
        amodal_weight: of the amodal mask's loss.
        visible_weight: of the visible mask's loss.
        track_samples: RoIs of a frame from which likeness is learnt.
        temperature: 0 to learn likeness by dot products; else by cosines over it, which the dot
            products of the embeddings found then are.
    """

    min_score: Share = 0.01
    proposals: Count = 1000
    box_beta: Amount = 1.0
    amodal_weight: Amount = 1.0
    visible_weight: Amount = 1.0
    track_samples: Positive = 256
    temperature: Amount = 0.0

    @model_validator(mode="after")
    def _likeness(self) -> VaTrackConfig:
        if self.proposals_from == LIDAR:
            raise ValueError("proposals_from: lidar leaves no proposals to learn likeness from")
        return self


class VaTrackBase(TwoStage):
    """The trunk with an embedding head; subclasses say which boxes and masks there are.

    Args:
        config: the settings.

    """

    Config = VaTrackConfig
    config: VaTrackConfig
    clip = Clip(frames=2, reach=3)

    def __init__(self, config: VaTrackConfig) -> None:
        super().__init__(config)
        self.embedding_head = EmbeddingHead(config.channels, config.roi_align)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Detection losses of the key frames, and losses of likeness over the pairs.

        Args:
            batch: pairs, each key frame before its reference; or single frames, each of which is
                its own reference.
        """
        batch = self.sensed(batch)
        assert batch.clip <= 2, "losses need pairs of frames"
        features, batch = self.features(batch), self.crossed(batch)
        (of_keys, keys), (of_others, others) = (
            (Features((k, v[which]) for k, v in features.items()), batch.frames_at(which))
            for which in (slice(0, None, batch.clip), slice(batch.clip - 1, None, batch.clip))
        )
        assert keys.targets is not None
        assert others.targets is not None
        wanted = [self.wanted(t) for t in keys.targets]
        proposals, losses = self.propose(of_keys, wanted, keys)
        losses |= self.second_stage_losses(of_keys, proposals, wanted, keys)
        key_rois = [
            sample_rois(p, w, t.boxes[t.ignore], self.config.track_samples).objects
            for p, w, t in zip(proposals, wanted, keys.targets, strict=True)
        ]
        other_rois = [
            sample_rois(p, self.wanted(t), t.boxes[t.ignore], self.config.track_samples)
            for p, t in zip(self._proposals(of_others, others), others.targets, strict=True)
        ]
        mine = self.embedding_head(of_keys, [r.boxes for r in key_rois], keys)
        theirs = self.embedding_head(of_others, [r.boxes for r in other_rois], others)
        pairs = [
            track_losses(a, b, ours.ids[:, None] == its.ids[None], self.config.temperature)
            for a, b, ours, its in zip(
                mine.split([len(r) for r in key_rois]),
                theirs.split([len(r) for r in other_rois]),
                key_rois,
                other_rois,
                strict=True,
            )
        ]
        track, auxiliary = (torch.stack(parts).mean() for parts in zip(*pairs, strict=True))
        return losses | {"track": _TRACK * track, "track_auxiliary": _AUXILIARY * auxiliary}

    def parts(self) -> list[Part]:
        """The trunk's, and the head of embeddings."""
        return [*super().parts(), parts.embeddings(self.embedding_head, self.config.channels)]

    def weighed(self, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The masks' losses times their weights."""
        weights = {"amodal": self.config.amodal_weight, "visible": self.config.visible_weight}
        return {name: weights[name] * loss for name, loss in losses.items()}

    @torch.no_grad()
    def _proposals(self, features: Features, batch: Batch) -> list[torch.Tensor]:
        """(P, 4) proposals of each image as in inference."""
        training = self.rpn.training
        self.rpn.eval()
        proposals = self.proposals(features, batch)
        self.rpn.train(training)
        return proposals

    def detect(self, batch: Batch) -> list[Detections]:
        """Detections with masks, depths and embeddings."""
        batch = self.sensed(batch)
        features, batch = self.features(batch), self.crossed(batch)
        detections = self.detections_in(features, batch)
        embeddings = self.embedding_head(features, [f.boxes for f in detections], batch)
        if self.config.temperature:
            embeddings = F.normalize(embeddings, dim=1) / self.config.temperature**0.5
        counts = [len(f.boxes) for f in detections]
        return [
            replace(f, embeddings=e)
            for f, e in zip(detections, embeddings.split(counts), strict=True)
        ]


class _OneMask(VaTrackBase):
    """Boxes and masks of one kind; each mask stands for the other kind, too.

    Attributes:
        kind: "amodal" or "visible".
    """

    kind: ClassVar[str] = "amodal"

    def __init__(self, config: VaTrackConfig) -> None:
        super().__init__(config)
        self.mask_branch = MaskBranch(config.channels, len(config.classes))

    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Binary cross entropy of the masks."""
        logits, _ = self.masks(features, rois.boxes, [rois.labels], batch)
        truth = rois.amodal(SIDE) if self.kind == "amodal" else rois.visible(SIDE)
        return self.weighed({self.kind: mask_loss(logits, truth)})

    def mask_logits(
        self, pooled: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same logits twice."""
        logits = self.mask_branch(pooled, labels)
        return logits, logits


class QdTrack(_OneMask):
    """QDTrack: visible boxes and masks. They stand for the amodal ones: nothing is hidden."""

    name, kind = "qdtrack", "visible"

    def wanted(self, targets: Targets) -> Targets:
        """The objects that show, at their visible boxes."""
        shown = replace(targets, boxes=targets.visible_boxes)
        return shown.select(~shown.ignore & has_extent(shown.boxes))


class AmodalTrack(_OneMask):
    """QDTrack on amodal boxes and masks. They stand for the visible ones: nothing is hidden."""

    name = "amodal_track"


class VaTrack(VaTrackBase, TwoMasks):
    """Amodal boxes with an amodal and a visible mask each."""

    name = "vatrack"

    def __init__(self, config: VaTrackConfig) -> None:
        super().__init__(config)
        self.add_mask_heads()

    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Binary cross entropy of both masks in the channel of the true class."""
        return self.weighed(super().mask_losses(features, rois, batch))


class VaTrackTwoBox(VaTrack):
    """VATrack with a head of its own for visible boxes, from the same proposals.

    In inference each amodal detection is the one proposal of the visible head, whose best box is
    where the visible mask is drawn.
    """

    name = "vatrack_two_box"

    def __init__(self, config: VaTrackConfig) -> None:
        super().__init__(config)
        self.visible_heads = BoxHeads(config)

    def parts(self) -> list[Part]:
        """As VATrack's, with each mask by itself, and the head of visible boxes."""
        channels = self.config.channels
        masks = [
            parts.masks(self, channels, f"{kind}_masks", f"{kind}_logits", (kind,))
            for kind in ("amodal", "visible")
        ]
        others = [part for part in super().parts() if part.name != "masks"]
        rows = parts.DETECTIONS
        visible_boxes = parts.boxes(self.visible_heads, channels, "visible_boxes", rows)
        return [*others, visible_boxes, *masks]

    def amodal_logits(self, pooled: torch.Tensor, labels: torch.Tensor) -> Tensors:
        """The amodal one of `mask_logits`, by itself."""
        return (self.amodal_branch(pooled, labels),)

    def visible_logits(self, pooled: torch.Tensor, labels: torch.Tensor) -> Tensors:
        """The visible one of `mask_logits`, by itself."""
        return (self.visible_branch(pooled, labels),)

    def second_stage_losses(
        self,
        features: Features,
        proposals: list[torch.Tensor],
        wanted: list[Targets],
        batch: Batch,
    ) -> dict[str, torch.Tensor]:
        """Losses of both box heads, each with a mask head on its own RoIs."""
        shown = [replace(t, boxes=t.visible_boxes) for t in wanted]
        shown = [t.select(has_extent(t.boxes)) for t in shown]
        losses, rois = self.box_losses(self.heads, features, proposals, wanted, batch)
        own, visible_rois = self.box_losses(self.visible_heads, features, proposals, shown, batch)
        losses |= {f"visible_{name}": value for name, value in own.items()}
        pooled = self.roi_features(features, rois.boxes, batch)
        amodal = mask_loss(self.amodal_branch(pooled, rois.labels), rois.amodal(SIDE))
        pooled = self.roi_features(features, visible_rois.boxes, batch)
        visible = mask_loss(
            self.visible_branch(pooled, visible_rois.labels), visible_rois.visible(SIDE)
        )
        return losses | self.weighed({"amodal": amodal, "visible": visible})

    def detections_in(self, features: Features, batch: Batch) -> list[Detections]:
        """What is found in the features of each image.

        Both masks are drawn on one grid in the amodal box, twice as fine as the heads' own, as the
        visible box may be a small part of it.
        """
        boxes, scores, labels = self.find(features, batch)
        kinds = torch.cat(labels)
        visible_boxes = self._visible_boxes(features, boxes, batch)
        pooled = self.roi_features(features, boxes, batch)
        (amodal_logits,) = self.ran("amodal_logits", pooled, kinds)
        pooled = self.roi_features(features, visible_boxes, batch)
        (visible_logits,) = self.ran("visible_logits", pooled, kinds)
        every = torch.cat(boxes)
        fine = 2 * SIDE
        amodal_logits = regrid(amodal_logits, every, every, fine)
        visible_logits = regrid(visible_logits, torch.cat(visible_boxes), every, fine)
        return measured(
            batch, boxes, scores, labels, amodal_logits, visible_logits, visible_boxes=visible_boxes
        )

    def _visible_boxes(
        self, features: Features, boxes: list[torch.Tensor], batch: Batch
    ) -> list[torch.Tensor]:
        """(N, 4) of each image: the best visible box of any class that each amodal box leads to.

        Where the head finds nothing the amodal box stands in.
        """
        counts = [len(b) for b in boxes]
        if not sum(counts):
            return boxes
        logits, deltas = self.visible_heads.predict(features, boxes, batch)
        best, kind = logits.float().softmax(1)[:, 1:].max(1)
        every = self.visible_heads.box_coder.decode(deltas.float(), boxes)
        own = every[torch.arange(len(kind), device=kind.device), kind + 1].split(counts)
        result = []
        for box, amodal, score, size in zip(
            own, boxes, best.split(counts), batch.sizes, strict=True
        ):
            box = clip_boxes_to_image(box, size)
            confident = (score > _LEAST_SCORE) & has_extent(box)
            result.append(torch.where(confident[:, None], box, amodal))
        return result


def regrid(
    logits: torch.Tensor, source: torch.Tensor, target: torch.Tensor, side: int
) -> torch.Tensor:
    """Logits on grids in some boxes, looked up on grids in other boxes.

    Args:
        logits: (N, S, S), at the centres of the cells of a grid in each source box.
        source: (N, 4) xyxy.
        target: (N, 4) xyxy.
        side: cells along each side of the new grids.

    Returns:
        (N, side, side), bilinear; clearly negative outside the source boxes.
    """
    if not len(logits):
        return logits.new_zeros((0, side, side))
    centres = (torch.arange(side, device=logits.device) + 0.5) / side
    places = []
    for k in (0, 1):  # x, y: -1 to 1 across the source box
        at = target[:, k, None] + centres * (target[:, k + 2] - target[:, k])[:, None]
        extent = (source[:, k + 2] - source[:, k]).clamp(min=1e-6)
        places.append(2 * (at - source[:, k, None]) / extent[:, None] - 1)
    x, y = places[0][:, None, :].expand(-1, side, -1), places[1][:, :, None].expand(-1, -1, side)
    grid = torch.stack([x, y], -1).to(logits.dtype)
    sampled = F.grid_sample(logits[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    return torch.where((x.abs() <= 1) & (y.abs() <= 1), sampled, _OUTSIDE)
