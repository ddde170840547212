"""The flagship: a single-stage model that draws visible, amodal and occluder masks, with LiDAR.

A convolutional backbone and pyramid see the image, a light branch the LiDAR's depth, added where
returns are near. Every location of strides 8 to 32 (64) scores classes and gives an amodal and a
visible box. The best, after a suppression of fixed size, bring kernels that draw three masks from
shared features of stride 4 in their box, an embedding for tracking, depth and occlusion rate.
docs/flagship.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import generalized_box_iou_loss

from amodal_core.errors import InputError
from amodal_core.models.detections import Detections
from amodal_core.models.flagship_config import (
    FlagshipConfig,
    Outputs,
    detections_of,
    graph_settings,
)
from amodal_core.models.layers.assignment import Assignment, assign, pair_iou
from amodal_core.models.layers.batch import DEPTH_CHANNELS, MEAN, STD, Batch, Targets, pixels
from amodal_core.models.layers.csp import ConvNorm, CspBackbone, Pyramid
from amodal_core.models.layers.dense_head import Dense, DenseHead, InstanceHead, suppress
from amodal_core.models.layers.dense_losses import contrastive, mask_losses, quality_focal
from amodal_core.models.layers.dynamic_masks import draw_masks, kernel_size, sample_boxes
from amodal_core.models.layers.efficientnet_lite import EfficientNetLite
from amodal_core.models.layers.lidar_branch import GatedSum, LidarBranch
from amodal_core.models.layers.nanodet import NanoDet, Prior, prior
from amodal_core.models.layers.positive_rois import PositiveRois
from amodal_core.models.layers.resnet_levels import ResNetLevels
from amodal_core.models.learned import LearnedModel
from amodal_core.models.onnx_export import export_onnx, input_names
from amodal_core.runtime import graphs
from amodal_core.runtime.accelerator import Accelerator
from amodal_core.runtime.parity import OF_INSTANCES

_MASK_STRIDE = 4  # of mask features, 2 where detail joins them
_MASK_RANKS = 3  # the best locations of an object learn masks
_MOST_MASKS = 1024  # of a batch
_LEAST_QUALITY = 0.1  # weight of a location whose box is still far off
_CLOSE_BOX = 0.5  # IoU from which on masks are learned in the box that the model drew itself
_LARGEST_LOG_DEPTH = 7.0  # a kilometre
_LEAST_SHARE = 1e-6  # that keeps the probabilities of what is nothing finite
_BOX, _VISIBLE_BOX, _MASK, _OCCLUDER, _DEPTH, _OCCLUSION, _EMBEDDING = 2, 1, 2, 1, 1, 0.5, 0.25


@dataclass(frozen=True)
class _Shape:
    backbone: str  # csp, efficientnet_lite0, nanodet or resnet50
    channels: int = 96  # of the pyramid
    neck: int = 1  # residual blocks of a fusion
    levels: int = 3
    tower: tuple[int, ...] = (96, 96)  # channels of each convolution
    shared_tower: bool = False  # by scores and boxes
    mask_width: int = 48
    mask_kernels: tuple[int, ...] = (3, 3, 1)  # sides, the last one's gives the mask features
    mask_channels: int = 16
    hidden: int = 16  # of a mask network
    instance: int = 128  # hidden channels of what describes objects
    embedding: int = 32
    lidar: tuple[int, int, int] = (16, 32, 64)


_SHAPES = {
    "compact": _Shape("csp"),
    "lite": _Shape("efficientnet_lite0"),
    "nanodet": _Shape("nanodet", tower=(64,), shared_tower=True, mask_kernels=(3, 3)),
    "r50": _Shape(
        "resnet50", channels=256, neck=2, levels=4, tower=(256, 256, 256), mask_width=128,
        mask_channels=32, hidden=32, instance=512, embedding=128, lidar=(32, 64, 128),
    ),
}  # fmt: skip


class Flagship(LearnedModel):
    """See the module's head.

    Args:
        config: settings.

    Raises:
        InputError: weights that do not fit the backbone, or a backbone without detail.
    """

    name = "flagship"
    Config = FlagshipConfig
    config: FlagshipConfig
    outputs: ClassVar[tuple[str, ...]] = Outputs._fields
    class_bias = "head.classes.bias"
    selection = LearnedModel.selection | {"nms", "candidates", "mask_side"}
    # Layers whose rounding to int8 costs accuracy or saves nothing (docs/benchmarks.md).
    exact: ClassVar[tuple[str, ...]] = (
        *("backbone.stem", "backbone.outputs"),
        *("head.classes", "head.boxes"),
    )
    runtimes = True

    def __init__(self, config: FlagshipConfig) -> None:
        super().__init__(config)
        shape = self.shape = _SHAPES[config.variant]
        self.backbone: CspBackbone | EfficientNetLite | NanoDet | ResNetLevels
        if shape.backbone == "resnet50":
            self.backbone = ResNetLevels("resnet50", config.norm, config.weights)
        elif shape.backbone == "efficientnet_lite0":
            self.backbone = EfficientNetLite(MEAN, STD, config.weights)
        elif shape.backbone == "nanodet":
            self.backbone = NanoDet(config.weights)
        else:
            self.backbone = CspBackbone((32, 64, 128, 256), (1, 2, 3, 2))
        widths = self.backbone.widths
        # A detector's levels are wide: narrowed before LiDAR joins them.
        self.narrow = nn.ModuleList()
        if isinstance(self.backbone, NanoDet):
            self.narrow.extend([ConvNorm(w, shape.channels, 1) for w in widths[1:]])
            widths = (widths[0], *[shape.channels] * len(self.narrow))
        self.lidar = LidarBranch(shape.lidar, config.heights) if config.lidar else None
        self.fusions = nn.ModuleList(
            [GatedSum(w, lidar) for w, lidar in zip(widths, shape.lidar, strict=False)]
            if config.lidar
            else []
        )
        self.pyramid = Pyramid(widths[1:], shape.channels, shape.neck, shape.levels - 3)
        strides = tuple(8 * 2**k for k in range(shape.levels))
        detects = isinstance(self.backbone, NanoDet)
        count = len(config.classes)
        self.head = DenseHead(
            shape.channels, count, shape.tower, strides, detects, shape.shared_tower
        )
        self.instances = InstanceHead(
            self.head.channels,
            kernel_size(shape.mask_channels, shape.hidden),
            shape.embedding,
            shape.instance,
        )
        self.fine = ConvNorm(widths[0], shape.mask_width, 1)
        self.coarse = ConvNorm(shape.channels, shape.mask_width, 1)
        *inner, last_side = shape.mask_kernels
        self.mask_layers = nn.Sequential(
            *[ConvNorm(shape.mask_width, shape.mask_width, side) for side in inner],
            nn.Conv2d(shape.mask_width, shape.mask_channels, last_side, padding=last_side // 2),
        )
        self.detail: nn.Sequential | None = None
        self.mask_stride = _MASK_STRIDE
        if config.detail:
            if not isinstance(self.backbone, NanoDet):
                what = f"variant {config.variant} has no features of stride 2"
                raise InputError(what, "detail", "leave it out, or take variant nanodet")
            # Its stem halves the image twice: what is thin is gone before any stage sees it.
            self.mask_stride //= 2
            last = nn.Conv2d(shape.mask_channels, shape.mask_channels, 3, padding=1)
            for parameter in last.parameters():
                nn.init.zeros_(parameter)  # weights of before it was there begin as they were
            into = ConvNorm(self.backbone.stem_width, shape.mask_channels, 1)
            self.detail = nn.Sequential(into, last)
        self.to(memory_format=torch.channels_last)

    def trunk(self) -> list[nn.Module]:
        """Backbone, LiDAR branch and pyramid."""
        modules: list[nn.Module | None] = [self.backbone, self.lidar, self.fusions, self.pyramid]
        return [module for module in modules if module is not None]

    def blocks(self) -> list[nn.Module]:
        """Backbone and pyramid."""
        return [self.backbone, self.pyramid]

    @classmethod
    def from_checkpoint(cls, path: str, device: str = "cpu", **settings: Any) -> LearnedModel:
        """As `LearnedModel.from_checkpoint`, with norms folded: for inference only."""
        model = super().from_checkpoint(path, device, **settings)
        assert isinstance(model, Flagship)
        model.fuse()
        config, inside = model.config, graph_settings(model.config)
        asked = config.precision == "int8" and config.runtime not in ("torch", "compile")
        accelerator = Accelerator(
            model,
            input_names(model),
            config.runtime,
            config.precision,
            graphs.key_of(path, model, inside),
            lambda part: export_onnx(model, part),
            OF_INSTANCES,
            graphs.beside(path, inside),
            graphs.int8_beside(path, inside) if asked else graphs.beside(path, inside, "int8"),
        )
        model.accelerators = [accelerator]
        return model

    def fuse(self) -> Flagship:
        """Leave out what only training needs: norms, COCO's other classes. In place, for good."""
        if isinstance(self.backbone, NanoDet):
            self.backbone.prune_classes(self.config.classes)
        for module in list(self.modules()):
            if isinstance(module, ConvNorm | ResNetLevels):
                module.fuse()
        self.to(memory_format=torch.channels_last)
        return self.eval()

    def forward(
        self,
        images: torch.Tensor,
        depth: torch.Tensor | None = None,
        limits: torch.Tensor | None = None,
        heights: torch.Tensor | None = None,
    ) -> Outputs:
        """Detect with sizes that depend on the inputs' sizes alone: nothing waits for the device.

        Args:
            images: (B, 3, H, W) as `Batch.images`; H and W are multiples of 32.
            depth: (B, 2, H, W) as `Batch.depth`; None or zeros where nothing is known.
            limits: (B, 2) width and height of the images without padding; None: no padding.
            heights: (B, 1, H, W) as `Batch.heights`; None or zeros where they are unknown.
        """
        b, _, height, width = images.shape
        if limits is None:
            limits = torch.tensor([[width, height]], device=images.device).expand(b, 2)
        dense, features = self._see(images, depth, heights)
        limits = limits.to(dense.boxes.device, torch.float32)
        best, labels = dense.logits.max(-1)
        count = min(max(self.config.candidates, self.config.max_instances), best.shape[1])
        logits, places = best.topk(count, dim=1)
        most = torch.cat([limits, limits], 1)[:, None]
        boxes = torch.minimum(_taken(dense.boxes, places).clamp(min=0), most)
        shown = torch.minimum(_taken(dense.visible_boxes, places).clamp(min=0), most)
        labels = labels.gather(1, places)
        scores = suppress(torch.sigmoid(logits), labels, boxes, shown, self.config.nms)
        scores, order = scores.topk(min(self.config.max_instances, count), dim=1)
        boxes, shown = _taken(boxes, order), _taken(shown, order)
        chosen = places.gather(1, order)
        likely = torch.sigmoid(_taken(dense.logits, chosen).float()).clamp(min=_LEAST_SHARE)
        best_features = _taken(dense.features, chosen)
        described = self.instances(best_features, boxes, limits[:, None])
        side = self.config.mask_side
        samples = sample_boxes(features, boxes, side, self.mask_stride)
        masks = draw_masks(
            samples.flatten(0, 1), described.kernels.flatten(0, 1), self.shape.hidden
        )
        masks = masks.float().view(b, -1, 3, side, side)
        return Outputs(
            boxes,
            shown,
            scores,
            labels.gather(1, order),
            masks[:, :, 0],
            masks[:, :, 1],
            masks[:, :, 2],
            described.log_depths.clamp(max=_LARGEST_LOG_DEPTH).exp(),
            torch.sigmoid(described.occlusion),
            described.embeddings,
            likely / likely.sum(-1, keepdim=True),
        )

    def detect(self, batch: Batch) -> list[Detections]:
        """What is in each image; depths are LiDAR's where it falls on the visible part."""
        out = self._outputs(batch)
        batch = self.crossed(batch)
        depth = batch.depth.float() if batch.depth is not None and self.config.lidar else None
        return [
            detections_of(out, n, None if depth is None else depth[n], self.config)
            for n in range(len(batch))
        ]

    def _outputs(self, batch: Batch) -> Outputs:
        """What the network says of a batch, in whatever runtime."""
        limits = torch.tensor([(w, h) for h, w in batch.sizes], dtype=torch.float32)
        inputs = [batch.images, limits.to(batch.images.device)]
        if self.config.lidar:
            depth = batch.depth
            if depth is None:
                b, _, height, width = batch.images.shape
                depth = batch.images.new_zeros((b, DEPTH_CHANNELS, height, width))
            inputs.insert(1, depth)
            if self.config.heights:
                heights = batch.heights
                inputs.append(torch.zeros_like(depth[:, :1]) if heights is None else heights)
        if self.accelerators and self.accelerators[0] is not None:
            return Outputs(*self.accelerators[0](*inputs))
        out: Outputs = self(**dict(zip(input_names(self), inputs, strict=True)))
        return out

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Losses of classes, boxes, masks, depth, occlusion rate and embedding."""
        depth = batch.depth if self.config.lidar else None
        heights = batch.heights if self.config.heights else None
        dense, features = self._see(batch.images, depth, heights)
        batch = self.crossed(batch)
        assert batch.targets is not None, "losses need targets"
        scores = torch.sigmoid(dense.logits.detach())
        assigned = assign(scores, dense.boxes.detach(), dense.points, batch.targets)
        image, place = torch.nonzero(assigned.objects >= 0, as_tuple=True)
        learned = _Positives.of(assigned, image, place, batch)
        quality = torch.zeros_like(dense.logits)
        quality[image, place, learned.labels] = learned.quality
        losses = {
            "class": quality_focal(dense.logits, quality, (~assigned.ignored).to(quality.dtype)),
            **_box_losses(dense, image, place, learned),
        }
        best = torch.nonzero(assigned.ranks[image, place] < _MASK_RANKS)[:, 0]
        if len(best) > _MOST_MASKS:
            best = best[assigned.ranks[image, place][best].argsort(stable=True)[:_MOST_MASKS]]
            best = best.sort().values
        chosen = learned.select(best)
        boxes = dense.boxes.detach()[image[best], place[best]]
        limits = torch.tensor([(w, h) for h, w in batch.sizes], dtype=torch.float32)
        limits = limits.to(boxes.device)[image[best]]
        boxes = torch.minimum(boxes.clamp(min=0), torch.cat([limits, limits], 1))
        close = pair_iou(boxes, chosen.boxes) > _CLOSE_BOX
        boxes = torch.where(close[:, None], boxes, chosen.boxes)
        described = self.instances(dense.features[image[best], place[best]], boxes, limits)
        counts = torch.bincount(image[best], minlength=len(batch)).tolist()
        side = self.config.mask_side
        samples = torch.cat(
            [
                sample_boxes(features[n : n + 1], few[None], side, self.mask_stride)[0]
                for n, few in enumerate(boxes.split(counts))
            ]
        )
        masks = draw_masks(samples, described.kernels, self.shape.hidden)
        rois = PositiveRois(
            list(boxes.split(counts)), batch.targets, list(chosen.objects.split(counts))
        )
        losses |= self._mask_losses(masks, rois)
        has_depth = (chosen.depths > 0).to(boxes.dtype)
        error = F.smooth_l1_loss(
            described.log_depths, chosen.depths.clamp(min=0.1).log(), beta=0.1, reduction="none"
        )
        hidden = F.binary_cross_entropy_with_logits(
            described.occlusion, chosen.hidden, reduction="none"
        )
        losses["depth"] = _DEPTH * (error * has_depth).sum() / has_depth.sum().clamp(min=1)
        losses["occlusion"] = _OCCLUSION * hidden.sum() / max(len(best), 1)
        losses["embedding"] = _EMBEDDING * contrastive(described.embeddings, chosen.identities)
        return losses

    def _see(
        self,
        images: torch.Tensor,
        depth: torch.Tensor | None,
        heights: torch.Tensor | None = None,
    ) -> tuple[Dense, torch.Tensor]:
        """What all locations say, and the mask features (B, C, H / stride, W / stride)."""
        dtype = self.instances.shared.weight.dtype
        images = images.to(dtype, memory_format=torch.channels_last)
        priors: list[Prior] = []
        stem = images
        if isinstance(self.backbone, NanoDet):
            stem, levels, outputs = self.backbone(images)
            priors = prior(outputs, self.config.classes, self.backbone.coco_classes)
            levels[1:] = [f(x) for f, x in zip(self.narrow, levels[1:], strict=True)]
        else:
            levels = self.backbone(images)
        if self.lidar is not None:
            if depth is None:
                b, _, height, width = images.shape
                depth = images.new_zeros((b, DEPTH_CHANNELS, height, width))
            sensed = self.lidar(depth, dtype, heights)
            for k, (fusion, (lidar, support)) in enumerate(zip(self.fusions, sensed, strict=True)):
                levels[k] = fusion(levels[k], lidar, support)
        pyramid = [self.crossing(level) for level in self.pyramid(levels[1:])]
        fine = self.fine(self.crossing(levels[0]))
        fine = fine + F.interpolate(self.coarse(pyramid[0]), size=fine.shape[-2:], mode="nearest")
        features = self.mask_layers(fine)
        if self.detail is not None:
            features = F.interpolate(
                features, scale_factor=2.0, mode="bilinear", align_corners=False
            ) + self.detail(self.crossing(stem))
        return self.head(pyramid, priors), features

    def _mask_losses(self, masks: torch.Tensor, rois: PositiveRois) -> dict[str, torch.Tensor]:
        side, count = self.config.mask_side, max(len(masks), 1)
        before = [occluder_masks(t) for t in rois.objects]
        return {
            "amodal": _MASK * mask_losses(masks[:, 0], rois.amodal(side)).sum() / count,
            "visible": _MASK * mask_losses(masks[:, 1], rois.visible(side)).sum() / count,
            "occluder": _OCCLUDER * mask_losses(masks[:, 2], rois.crop(before, side)).sum() / count,
        }


@dataclass
class _Positives:
    """The truth of P locations, all images in a row."""

    objects: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor
    visible_boxes: torch.Tensor
    depths: torch.Tensor
    hidden: torch.Tensor
    identities: torch.Tensor
    quality: torch.Tensor

    @classmethod
    def of(
        cls, assigned: Assignment, image: torch.Tensor, place: torch.Tensor, batch: Batch
    ) -> _Positives:
        assert batch.targets is not None
        counts = [len(t) for t in batch.targets]
        first = torch.tensor([0, *counts[:-1]], device=image.device).cumsum(0)
        objects = assigned.objects[image, place]
        row = first[image] + objects
        videos = batch.videos or [""] * len(batch)
        # Single images share nobody; frames of one video do.
        names = [name or f"\0{n}" for n, name in enumerate(videos)]
        video = torch.tensor([names.index(name) for name in names], device=image.device)
        ids = torch.cat([t.ids for t in batch.targets])[row]
        amodal_area = torch.cat([pixels(t.amodal) for t in batch.targets])
        visible_area = torch.cat([pixels(t.visible) for t in batch.targets])
        rates = (1 - visible_area / amodal_area.clamp(min=1)).clamp(0, 1)

        def of(name: str) -> torch.Tensor:
            assert batch.targets is not None
            return torch.cat([getattr(t, name) for t in batch.targets])[row]

        return cls(
            objects,
            of("labels"),
            of("boxes"),
            of("visible_boxes"),
            of("depths"),
            rates[row],
            video[image] * (ids.amax() + 1 if len(ids) else 1) + ids,
            assigned.quality[image, place],
        )

    def select(self, index: torch.Tensor) -> _Positives:
        return _Positives(**{name: value[index] for name, value in vars(self).items()})


def _box_losses(
    dense: Dense, image: torch.Tensor, place: torch.Tensor, learned: _Positives
) -> dict[str, torch.Tensor]:
    """GIoU of both boxes, good locations first; of visible ones where something is visible."""
    weight = learned.quality.clamp(min=_LEAST_QUALITY)
    total = weight.sum().clamp(min=1)
    amodal = generalized_box_iou_loss(dense.boxes[image, place], learned.boxes)
    shown = learned.visible_boxes
    some = (shown[:, 2:] > shown[:, :2]).all(1)
    visible = generalized_box_iou_loss(
        dense.visible_boxes[image, place], torch.where(some[:, None], shown, learned.boxes)
    )
    return {
        "box": _BOX * (amodal * weight).sum() / total,
        "visible_box": _VISIBLE_BOX * (visible * weight * some).sum() / total,
    }


def occluder_masks(objects: Targets) -> torch.Tensor:
    """(N, H, W) bool: what is seen of those that hide each object."""
    union = torch.zeros_like(objects.visible)
    for one, before in torch.nonzero(objects.occluders).tolist():
        union[one] |= objects.visible[before]
    return union


def _taken(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rows (B, K, D) of (B, A, D) at (B, K) places."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))
