"""VRSP-Net: amodal masks from the visible region and a shape prior.

Xiao et al., AAAI 2021. Two heads, amodal and visible, look at a RoI coarsely; then each looks again
where the other one saw the object. What such a shape usually looks like, from a codebook of the
training set's masks, joins the second look, and detections whose masks look like nothing known, or
whose visible part looks like another class, lose score.

It is trained in two runs with one command between them: the first trains all and the mask
auto-encoder, `Vrsp.build_codebook` fills the codebook, the second begins with that checkpoint and
learns to use the priors. A checkpoint without a codebook works, without priors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import batched_nms
from torchvision.ops.boxes import clip_boxes_to_image, remove_small_boxes

from amodal_core.errors import InputError
from amodal_core.models import two_stage_parts as parts
from amodal_core.models.detections import Detections
from amodal_core.models.layers.attended_masks import (
    Look,
    MaskHead,
    attended,
    feature_distance,
    mask_ious,
    prior_factor,
    weighted_mask_loss,
)
from amodal_core.models.layers.backbone import Features
from amodal_core.models.layers.batch import Batch
from amodal_core.models.layers.mask_branch import SIDE, mask_loss
from amodal_core.models.layers.parts import Part, Tensors
from amodal_core.models.layers.positive_rois import PositiveRois
from amodal_core.models.lidar_objects import LIDAR
from amodal_core.models.shape_prior import (
    Codebook,
    MaskAutoEncoder,
    MaskCollection,
    near_objects,
    prior_shapes,
)
from amodal_core.models.two_stage import TwoStage
from amodal_core.models.vrsp_config import COARSE, CROSS, ENSEMBLE, VrspConfig

_POOLED = 14
_AT_ONCE = 256  # RoIs through the heads; bounds the memory of inference
_KEPT_SHARE = 0.6  # share of a score that reclassification leaves alone


@dataclass
class _Masks:
    """All looks at the RoIs; the refined ones are the coarse ones where nothing is refined."""

    coarse_amodal: Look
    coarse_visible: Look
    amodal: Look
    visible: Look
    priors: torch.Tensor | None  # (N, K, 14, 14)

    def shown(self, which: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 28, 28) amodal and visible logits of the masks that the setting `masks` names."""
        coarse = self.coarse_amodal.logits, self.coarse_visible.logits
        refined = self.amodal.logits, self.visible.logits
        if which == ENSEMBLE:
            return torch.maximum(coarse[0], refined[0]), torch.maximum(coarse[1], refined[1])
        return coarse if which == COARSE else refined


class Vrsp(TwoStage):
    """VRSP-Net on the two-stage trunk.

    Before there is a codebook the refinement sees empty priors. The weights of refined masks are
    IoUs of each RoI's own mask in its own image, where the published code counts the channels of
    all classes and the first image only.

    Args:
        config: the settings.

    """

    name = "vrsp"
    Config = VrspConfig
    config: VrspConfig

    def __init__(self, config: VrspConfig) -> None:
        super().__init__(config)
        classes, channels = len(config.classes), config.channels
        self.amodal_head, self.visible_head = (
            MaskHead(channels, classes),
            MaskHead(channels, classes),
        )
        if config.prior_refinement or config.prior_rescoring:
            self.auto_encoder = MaskAutoEncoder(config.encoder_convolutions)
            self.codebook = Codebook(classes, config.centres, self.auto_encoder.width)
        if config.prior_refinement:
            self.prior_fusion = nn.Conv2d(channels + config.priors, channels, 3, padding=1)
            # The head is shared with the coarse look: begin with the features that it knows.
            nn.init.normal_(self.prior_fusion.weight, std=0.001)
            assert self.prior_fusion.bias is not None
            nn.init.zeros_(self.prior_fusion.bias)
            with torch.no_grad():
                every = torch.arange(channels)
                self.prior_fusion.weight[every, every, 1, 1] += 1
        if config.reclassification:
            self.reclassifier = nn.Sequential(
                nn.Flatten(),
                nn.Linear(channels * _POOLED**2, config.reclassification_hidden),
                nn.ReLU(inplace=True),
                nn.Linear(config.reclassification_hidden, config.reclassification_hidden),
                nn.ReLU(inplace=True),
                nn.Linear(config.reclassification_hidden, classes),
            )

    @property
    def reaches_all(self) -> bool:
        """Not the shapes' encoder, where no object is refined."""
        return False

    @property
    def _has_prior(self) -> bool:
        return self.config.prior_refinement or self.config.prior_rescoring

    @property
    def _rescores_by_class(self) -> bool:
        return self.config.reclassification and self.config.reclassification_rescoring

    @property
    def _rescores(self) -> bool:
        return self._rescores_by_class or self.config.prior_rescoring

    def parts(self) -> list[Part]:
        """The trunk's; the looks before and after the search for shapes, and the second class."""
        trunk = [part for part in super().parts() if part.name != "masks"]
        channels, rows = self.config.channels, parts.PROPOSALS
        coarse = ("coarse_amodal", "coarse_visible")
        outputs = coarse if self.config.refinement == COARSE else (*coarse, "visible")
        result = [*trunk, parts.masks(self, channels, "first_looks", "first_looks", outputs)]
        if self.config.refinement == CROSS:
            last = parts.masks(self, channels, "last_look", "last_look", ("amodal",))
            last.inputs["visible"] = torch.zeros(last.rows, SIDE, SIDE)
            if self.config.prior_refinement:
                last.inputs["priors"] = torch.zeros(last.rows, self.config.priors, *[_POOLED] * 2)
            result.append(last)
        if self._rescores_by_class:
            pooled = torch.zeros(rows, channels, _POOLED, _POOLED)
            inputs = {"pooled": pooled, "visible": torch.zeros(rows, SIDE, SIDE)}
            result.append(Part("classes", self, "second_class", inputs, ("classes",), rows))
        return result

    def first_looks(self, pooled: torch.Tensor, labels: torch.Tensor) -> Tensors:
        """(N, 28, 28) logits of coarse amodal, coarse visible and, unless coarse, visible masks."""
        return tuple(look.logits for look in self._first_looks(pooled, labels))

    def last_look(
        self,
        pooled: torch.Tensor,
        labels: torch.Tensor,
        visible: torch.Tensor,
        priors: torch.Tensor | None = None,
    ) -> Tensors:
        """(N, 28, 28) logits of the amodal mask, that attends to the visible one."""
        return (self._amodal_look(attended(pooled, visible), labels, priors).logits,)

    def _first_looks(self, x: torch.Tensor, labels: torch.Tensor) -> list[Look]:
        """Coarse amodal, coarse visible and, unless coarse, visible."""
        amodal, visible = self.amodal_head(x, labels), self.visible_head(x, labels)
        if self.config.refinement == COARSE:
            return [amodal, visible]
        return [amodal, visible, self.visible_head(attended(x, amodal.logits), labels)]

    def _look(self, x: torch.Tensor, labels: torch.Tensor) -> _Masks:
        elsewhere = self.elsewhere.get("first_looks") is not None and not torch.is_grad_enabled()
        if elsewhere:  # where features of the looks do not come out
            looks = [Look(x[:0], x[:0], v) for v in self.ran("first_looks", x, labels)]
        else:
            looks = self._first_looks(x, labels)
        coarse_amodal, coarse_visible = looks[:2]
        if self.config.refinement == COARSE:
            return _Masks(coarse_amodal, coarse_visible, coarse_amodal, coarse_visible, None)
        visible, amodal = looks[2], coarse_amodal
        priors = (
            self._priors(coarse_amodal.logits, labels) if self.config.prior_refinement else None
        )
        if self.config.refinement == CROSS and elsewhere:
            more = [] if priors is None else [priors]
            (logits,) = self.ran("last_look", x, labels, visible.logits, *more)
            amodal = Look(x[:0], x[:0], logits)
        elif self.config.refinement == CROSS:
            amodal = self._amodal_look(attended(x, visible.logits), labels, priors)
        elif priors is not None:
            amodal = self._amodal_look(x, labels, priors)
        return _Masks(coarse_amodal, coarse_visible, amodal, visible, priors)

    def _looks(
        self,
        features: Features,
        boxes: list[torch.Tensor],
        labels: list[torch.Tensor],
        batch: Batch,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, _Masks]]:
        """Features in the boxes of all images in a row, their class ids and looks.

        Some at a time, as memory is not to grow with the number of boxes.
        """
        every, ids = torch.cat(boxes), torch.cat(labels)
        image = torch.cat([ids.new_full((len(b),), n) for n, b in enumerate(boxes)])
        for rows in torch.arange(len(ids), device=ids.device).split(_AT_ONCE):
            own = [every[rows][image[rows] == n] for n in range(len(boxes))]
            x = self.roi_features(features, own, batch)
            yield x, ids[rows], self._look(x, ids[rows])

    def _amodal_look(
        self, x: torch.Tensor, labels: torch.Tensor, priors: torch.Tensor | None
    ) -> Look:
        if priors is not None:
            x = self.prior_fusion(torch.cat([x, priors.to(x.dtype)], 1))
        look: Look = self.amodal_head(x, labels)
        return look

    @torch.no_grad()
    def _nearest_shapes(
        self, masks: torch.Tensor, labels: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, k, 28, 28) shapes nearest to masks (N, 28, 28), and (N,) bool: there are."""
        latents, available = self.codebook.nearest(self.auto_encoder.encode(masks), labels, k)
        shapes = self.auto_encoder.decode(latents.flatten(0, 1)).view(-1, k, SIDE, SIDE)
        return torch.where(available[:, None, None, None], shapes, 0.0), available

    def _priors(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(N, K, 14, 14) nearest shapes of the coarse masks."""
        if not self.codebook.built:
            return logits.new_zeros((len(logits), self.config.priors, _POOLED, _POOLED))
        query = logits if self.config.prior_query == "logits" else logits > 0
        shapes, _ = self._nearest_shapes(query, labels, self.config.priors)
        return F.avg_pool2d(shapes, 2)

    def mask_losses(
        self, features: Features, rois: PositiveRois, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Losses of all looks, of the matching of features, the second class and the prior.

        The refined masks count by how well the mask that they attend to was found, RoI by RoI.
        """
        x = self.roi_features(features, rois.boxes, batch)
        labels = rois.labels
        masks = self._look(x, labels)
        amodal, visible = rois.amodal(SIDE), rois.visible(SIDE)
        losses = {
            "amodal": mask_loss(masks.coarse_amodal.logits, amodal),
            "visible": mask_loss(masks.coarse_visible.logits, visible),
        }
        if self.config.refinement != COARSE:
            weight = mask_ious(masks.coarse_amodal.logits > 0, amodal > 0)
            losses["visible_refined"] = weighted_mask_loss(masks.visible.logits, visible, weight)
            if masks.amodal is not masks.coarse_amodal:
                weight = mask_ious(masks.coarse_visible.logits > 0, visible > 0)
                losses["amodal_refined"] = weighted_mask_loss(masks.amodal.logits, amodal, weight)
            losses |= self._guided_losses(x, rois, masks, amodal, visible)
        if self.config.reclassification:
            losses["visible_class"] = self._class_loss(x, labels, masks.visible.logits, visible)
        if self._has_prior and not self.codebook.built:
            predicted = masks.amodal.logits > 0
            shapes, _ = prior_shapes(rois, predicted, amodal > 0, self.config.prior_iou)
            losses["auto_encoder"] = self.auto_encoder.loss(shapes)
        return losses

    def _guided_losses(
        self,
        x: torch.Tensor,
        rois: PositiveRois,
        masks: _Masks,
        true_amodal: torch.Tensor,
        true_visible: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Losses under attention to the true masks; the coarse features follow those features.

        Where only the visible mask is refined, the amodal one attends to nothing and has none.
        """
        labels, weight = rois.labels, self.config.guided_weight
        visible = self.visible_head(x * rois.amodal(_POOLED)[:, None], labels)
        learnt = true_amodal if self.config.guided_visible == "amodal" else true_visible
        losses = {"visible_guided": weight * mask_loss(visible.logits, learnt)}
        pairs = [(masks.coarse_visible, visible)]
        if self.config.refinement == CROSS:
            attended = x * rois.visible(_POOLED)[:, None]
            amodal = self._amodal_look(attended, labels, masks.priors)
            losses["amodal_guided"] = weight * mask_loss(amodal.logits, true_amodal)
            pairs.append((masks.coarse_amodal, amodal))
        if self.config.feature_matching:
            inner, outer = self.config.matching_weights
            distances = [
                inner * feature_distance(coarse.inner, guided.inner)
                + outer * feature_distance(coarse.outer, guided.outer)
                for coarse, guided in pairs
            ]
            losses["matching"] = torch.stack(distances).sum()
        return losses

    def _class_loss(
        self,
        x: torch.Tensor,
        labels: torch.Tensor,
        logits: torch.Tensor,
        true_visible: torch.Tensor,
    ) -> torch.Tensor:
        """Cross entropy of the second class, the mean over all its rows.

        A RoI has one row under attention to its visible mask, weighted by that mask's IoU, and,
        unless its weight is 0, one under attention to the true visible mask.
        """
        guided_weight = self.config.reclassification_guided_weight
        classes = self.second_class(x, logits)[0].float()
        weight = mask_ious(logits > 0, true_visible > 0)
        rows = weight * F.cross_entropy(classes, labels, reduction="none")
        if guided_weight:
            guided = self.second_class(x, true_visible)[0].float()
            guided_rows = F.cross_entropy(guided, labels, reduction="none")
            rows = torch.cat([rows, guided_weight * guided_rows])
        return self.config.reclassification_weight * rows.sum() / max(len(rows), 1)

    def second_class(self, pooled: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor]:
        """(N, C) logits of what shows in the visible masks, (N, 28, 28) logits or truth."""
        attention = F.avg_pool2d(visible.detach()[:, None], 2)
        return (self.reclassifier(pooled * attention),)

    def masks(
        self,
        features: Features,
        boxes: list[torch.Tensor],
        labels: list[torch.Tensor],
        batch: Batch,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits in the channel of the predicted class, see the setting `masks`."""
        looks = self._looks(features, boxes, labels, batch)
        outputs = [look.shown(self.config.masks) for _, _, look in looks]
        amodal, visible = (torch.cat(logits) for logits in zip(*outputs, strict=True))
        return amodal, visible

    def detect(self, batch: Batch) -> list[Detections]:
        """Detections; with a rescorer every candidate gets its masks and new score before NMS.

        Boxes of the LiDAR keep their own scores.
        A candidate's masks belong to its own box and class, so those of the candidates that NMS
        leaves are the final ones.
        """
        if not self._rescores or self.config.proposals_from == LIDAR:
            return super().detect(batch)
        batch = self.sensed(batch)
        features, boxes, scores, labels = self._candidates(batch)
        batch = self.crossed(batch)
        looks = self._looks(features, boxes, labels, batch)
        outputs = [
            (self._rescored(x, kinds, old, look), *look.shown(self.config.masks))
            for (x, kinds, look), old in zip(looks, torch.cat(scores).split(_AT_ONCE), strict=True)
        ]
        new, amodal, visible = (torch.cat(p) for p in zip(*outputs, strict=True))
        counts = [len(b) for b in boxes]
        results = []
        per_image = (boxes, new.split(counts), labels, amodal.split(counts), visible.split(counts))
        for n, (box, score, label, amodal_masks, visible_masks) in enumerate(
            zip(*per_image, strict=True)
        ):
            confident = score >= self.config.min_score
            own = [v[confident] for v in (box, score, label, amodal_masks, visible_masks)]
            keep = batched_nms(own[0], own[1], own[2], self.config.nms)[: self.config.max_instances]
            depth = None if batch.depth is None else batch.depth[n]
            results.append(Detections.measured(depth, *(v[keep] for v in own)))
        return results

    def _candidates(
        self, batch: Batch
    ) -> tuple[Features, list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        """Features; boxes, scores and class ids of each image's box and class pairs before NMS."""
        features, batch = self.features(batch), self.crossed(batch)
        proposals = self.proposals(features, batch)
        logits, deltas = self.heads.predict(features, proposals, batch)
        counts = [len(p) for p in proposals]
        every = self.heads.box_coder.decode(deltas, proposals).split(counts)
        likely = logits.softmax(-1).split(counts)
        boxes, scores, labels = [], [], []
        for box, score, size in zip(every, likely, batch.sizes, strict=True):
            box = clip_boxes_to_image(box, size)[:, 1:].reshape(-1, 4)
            label = torch.arange(score.shape[1] - 1, device=box.device).repeat(len(score))
            score = score[:, 1:].reshape(-1)
            keep = (score > self.config.min_score).nonzero()[:, 0]
            keep = keep[remove_small_boxes(box[keep], 1e-2)]
            most = min(len(keep), self.config.candidates or len(keep))
            keep = keep[score[keep].topk(most).indices]
            boxes.append(box[keep])
            scores.append(score[keep])
            labels.append(label[keep])
        return features, boxes, scores, labels

    def _rescored(
        self, x: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor, look: _Masks
    ) -> torch.Tensor:
        """(N,) geometric mean of the scores and of what the rescorers say."""
        factors = []
        if self._rescores_by_class:
            (classes,) = self.ran("second_class", x, look.visible.logits)
            likely = classes.float().softmax(-1)
            own = likely[torch.arange(len(labels), device=labels.device), labels]
            factors.append(_KEPT_SHARE + (1 - _KEPT_SHARE) * own)
        if self.config.prior_rescoring and self.codebook.built:
            masks = look.amodal.logits > 0
            shapes, available = self._nearest_shapes(masks, labels, 1)
            wrong = (masks != (shapes[:, 0] > 0.5)).float().flatten(1).mean(1)
            alike = prior_factor(wrong, self.config.rescoring_alpha)
            factors.append(torch.where(available, alike, 1.0))
        for factor in factors:
            scores = scores * factor
        return scores ** (1 / (1 + len(factors)))

    @torch.no_grad()
    def build_codebook(
        self,
        batches: Iterable[Batch],
        masks: MaskCollection | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> list[int]:
        """Fill the codebook in one pass over the training set, with the trained auto-encoder.

        As published, predictions are the detections before rescoring.

        Args:
            batches: with targets, without augmentation, on any device.
            masks: takes the masks; what it has already counts, too.
            progress: called after each batch.

        Returns:
            the number of centres of each class.

        Raises:
            InputError: the model has no shape prior, or there is no object in the batches.
        """
        if not self._has_prior:
            raise InputError(
                "the model has no shape prior",
                "model configuration",
                "set prior_refinement or prior_rescoring",
            )
        was_training = self.training
        self.eval()
        self.codebook.clear()  # predictions are those of the first run, whatever was there
        masks = masks or MaskCollection(len(self.classes))
        for batch in batches:
            masks.add(*self._shapes_of(batch.to(self.device)))
            progress()
        latents = masks.latents(self.auto_encoder, self.config.centres)
        self.train(was_training)
        if not latents:
            raise InputError("no object with a mask", "training data", "give annotated frames")
        self.codebook.fill(latents)
        counts: list[int] = self.codebook.counts.tolist()
        return counts

    def _shapes_of(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The masks of a batch that a codebook is made from, and their class ids.

        Masks are drawn only in the boxes that are close to an object of their class.
        """
        assert batch.targets is not None, "a codebook needs targets"
        wanted = [t.select(~t.ignore) for t in batch.targets]
        if self.config.prior_iou >= 1 or not any(len(t.labels) for t in wanted):
            boxes = [t.boxes[:0] for t in wanted]
            rois = PositiveRois(boxes, wanted, [t.labels[:0] for t in wanted])
            none = batch.images.new_zeros((0, SIDE, SIDE), dtype=torch.bool)
            return prior_shapes(rois, none, none, self.config.prior_iou)
        batch = self.sensed(batch)
        features, batch = self.features(batch), self.crossed(batch)
        boxes, _, labels = self.find(features, batch)
        near = [near_objects(*one) for one in zip(boxes, labels, wanted, strict=True)]
        rois = PositiveRois([b for b, _ in near], wanted, [matched for _, matched in near])
        looks = self._looks(features, rois.boxes, [rois.labels], batch)
        masks = torch.cat([look.amodal.logits > 0 for _, _, look in looks])
        return prior_shapes(rois, masks, rois.amodal(SIDE) > 0, self.config.prior_iou)
