"""PointPillars: 3D boxes from LiDAR alone, in pure torch.

Lang et al., CVPR 2019. Modules are named as in the public pure-PyTorch implementation, so that its
weights load (`load_public_weights`). The defaults are its settings; those of OpenPCDet and of
mmdetection3d come with weights that are imported. Boxes inside the network are those of
`layers/anchor_boxes.py`; outside they are ours (`Instances.boxes3d`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import box_iou, sigmoid_focal_loss

from amodal_core.errors import InputError
from amodal_core.frame import Calibration
from amodal_core.geometry.projection import in_view
from amodal_core.models.detections import Detections
from amodal_core.models.layers.anchor_boxes import (
    ANCHORS,
    ROTATIONS,
    Heading,
    anchor_grid,
    decode,
    encode,
    from_lidar_boxes,
    nearest_axis,
    to_lidar_boxes,
)
from amodal_core.models.layers.batch import Batch
from amodal_core.models.layers.box_silhouettes import silhouettes
from amodal_core.models.layers.pillars import (
    Grid,
    PillarEncoder,
    PointFeatures,
    pillars_of,
    stage,
    upsampling,
)
from amodal_core.models.layers.rotated import rotated_nms
from amodal_core.models.layers.weights import fitted, read_weights
from amodal_core.models.learned import LearnedModel
from amodal_core.models.learned_config import LearnedConfig
from amodal_core.settings import Positive, Share, settings_type

_SIDE = 28


@settings_type
class PointPillarsConfig(LearnedConfig):
    """Settings of PointPillars.

    Attributes:
        classes: KITTI's three; the anchors are theirs.
        grid: the volume and its pillars.
        features: what the network is told of each point.
        heading: how it describes boxes: sizes in the order width, length and KITTI's rotation_y
            (mmdetection3d 0.x), or length, width and the yaw about +z (mmdetection3d 1.x,
            OpenPCDet).
        align_center: anchors stand in the middle of cells; else evenly from the first edge of the
            grid to the last.
        anchor_range: x, y of the first and x, y of the last edge of anchors, metres; none for the
            grid's. mmdetection3d 0.x spreads those of its three classes beyond the grid.
        dir_offset: angle from which the first half turn of the direction classifier counts.
        candidates: best anchors of a scan that are decoded.
        nms: bird's-eye IoU above which the weaker of two boxes goes.
        multi_classes_nms: an anchor may be an object of each class, and boxes suppress those of
            their own class; else it is one of its best class, and boxes suppress all others.
        camera_view: leave out the points that the image does not show, in training and inference
            alike: KITTI annotates nothing else, and the public weights never saw more.
    """

    classes: tuple[Literal["pedestrian", "cyclist", "car"], ...] = ("pedestrian", "cyclist", "car")
    min_score: Share = 0.1
    max_instances: Positive = 50
    grid: Grid = field(default_factory=Grid)
    features: PointFeatures = field(default_factory=PointFeatures)
    heading: Heading = "rotation_y"
    align_center: bool = True
    anchor_range: tuple[float, float, float, float] | None = None
    dir_offset: float = 0.0
    candidates: Positive = 100
    nms: Share = 0.01
    multi_classes_nms: bool = True
    camera_view: bool = True


# Settings that weights were trained with, all but the grid newer than the first checkpoints.
_OF_WEIGHTS = ("features", "heading", "align_center", "anchor_range", "dir_offset")


@dataclass
class Boxes3d:
    """Boxes of one scan.

    Attributes:
        boxes: (N, 7) float32 centre x, y, z, length, width, height, yaw, LiDAR frame.
        scores: (N,) float32.
        labels: (N,) int64.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


class _Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.multi_blocks = nn.ModuleList([stage(64, 64, 3), stage(64, 128, 5), stage(128, 256, 5)])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        levels = []
        for block in self.multi_blocks:
            x = block(x)
            levels.append(x)
        return levels


class _Neck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decoder_blocks = nn.ModuleList(
            [upsampling(64, 128, 1), upsampling(128, 128, 2), upsampling(256, 128, 4)]
        )

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([b(x) for b, x in zip(self.decoder_blocks, levels, strict=True)], dim=1)


class _Head(nn.Module):
    def __init__(self, anchors: int, classes: int) -> None:
        super().__init__()
        self.conv_cls = nn.Conv2d(384, anchors * classes, 1)
        self.conv_reg = nn.Conv2d(384, anchors * 7, 1)
        self.conv_dir_cls = nn.Conv2d(384, anchors * 2, 1)
        for layer in (self.conv_cls, self.conv_reg, self.conv_dir_cls):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.conv_cls.bias is not None:
            nn.init.constant_(self.conv_cls.bias, -math.log(99.0))  # a prior of 1 %

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.conv_cls(x), self.conv_reg(x), self.conv_dir_cls(x)


class PointPillars(LearnedModel):
    """PointPillars with KITTI's anchors.

    Args:
        config: the settings.
    """

    name = "pointpillars"
    Config = PointPillarsConfig
    needs_masks = False
    config: PointPillarsConfig
    tied = frozenset({"grid", *_OF_WEIGHTS})
    earlier: ClassVar[dict[str, Any]] = {
        name: json.loads(json.dumps(asdict(PointPillarsConfig())[name])) for name in _OF_WEIGHTS
    }

    def __init__(self, config: PointPillarsConfig) -> None:
        super().__init__(config)
        self.pillar_encoder = PillarEncoder(config.grid, config.features)
        self.backbone = _Backbone()
        self.neck = _Neck()
        self.head = _Head(len(config.classes) * len(ROTATIONS), len(config.classes))
        self._anchor_cache: dict[tuple[int, int, torch.device], torch.Tensor] = {}

    def blocks(self) -> list[nn.Module]:
        """The backbone's stages and the neck."""
        return [*self.backbone.multi_blocks, self.neck]

    @property
    def inputs(self) -> frozenset[str]:
        """Points; the camera only says where their boxes are seen."""
        return frozenset({"points", "calibration", "image"})

    def _forward(self, scans: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Class (B, A, K), box (B, A, 7), direction (B, A, 2) of every anchor, and the anchors."""
        pillars = pillars_of(scans, self.config.grid, self.training)
        levels = self.backbone(self.pillar_encoder(pillars, len(scans)))
        outputs = self.head(self.neck(levels))
        rows, columns = outputs[0].shape[-2:]
        widths = (len(self.config.classes), 7, 2)
        flat = [
            x.permute(0, 2, 3, 1).reshape(len(scans), -1, w).float()
            for x, w in zip(outputs, widths, strict=True)
        ]
        return (*flat, self._anchors(rows, columns, outputs[0].device))

    def _anchors(self, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        """(rows * columns * classes * 2, 7), of every cell in turn."""
        key = rows, columns, device
        if key not in self._anchor_cache:
            config = self.config
            extent = config.anchor_range or (*config.grid.low[:2], *config.grid.high[:2])
            self._anchor_cache[key] = anchor_grid(
                config.classes, extent, (rows, columns), config.heading, config.align_center
            ).to(device)
        return self._anchor_cache[key]

    def detect3d(self, scans: list[torch.Tensor]) -> list[Boxes3d]:
        """3D boxes of each scan, best first.

        Args:
            scans: (N, 4) float32 x, y, z, intensity each, on the model's device.
        """
        classes, boxes, directions, anchors = self._forward(scans)
        return [
            self._decode(classes[n], boxes[n], directions[n], anchors) for n in range(len(scans))
        ]

    def in_view(
        self, scans: Sequence[torch.Tensor], calibrations: Sequence[Calibration]
    ) -> list[torch.Tensor]:
        """The points of each scan that the network is to see (`camera_view`)."""
        if not self.config.camera_view:
            return list(scans)
        pairs = zip(scans, calibrations, strict=True)
        return [points[in_view(points, calibration)] for points, calibration in pairs]

    def _decode(
        self,
        logits: torch.Tensor,
        deltas: torch.Tensor,
        directions: torch.Tensor,
        anchors: torch.Tensor,
    ) -> Boxes3d:
        config = self.config
        scores = logits.sigmoid()
        best = scores.amax(1).topk(min(config.candidates, len(scores))).indices
        scores, direction = scores[best], directions[best].argmax(1)
        boxes = decode(anchors[best], deltas[best])
        # The network knows the heading up to half a turn; the direction settles it.
        heading = torch.remainder(boxes[:, 6] - config.dir_offset, math.pi) + config.dir_offset
        boxes = torch.cat([boxes[:, :6], (heading + direction * math.pi)[:, None]], 1)
        ours = to_lidar_boxes(boxes, config.heading)
        flat = ours[:, [0, 1, 3, 4, 6]]
        if config.multi_classes_nms:
            columns = [(scores[:, k], torch.full_like(best, k)) for k in range(scores.shape[1])]
        else:
            columns = [scores.max(1)]
        parts = []
        for score, label in columns:
            chosen = torch.nonzero(score > config.min_score)[:, 0]
            chosen = chosen[rotated_nms(flat[chosen], score[chosen], config.nms)]
            parts.append((ours[chosen], score[chosen], label[chosen]))
        boxes3d = [torch.cat(p) for p in zip(*parts, strict=True)]
        order = boxes3d[1].argsort(descending=True, stable=True)[: config.max_instances]
        return Boxes3d(*(f[order] for f in boxes3d))

    def detect(self, batch: Batch) -> list[Detections]:
        """Boxes as the camera sees them; masks are their silhouettes, nearer ones in front."""
        if batch.points is None or batch.calibrations is None:
            raise InputError("PointPillars needs points and a calibration", "frames", "record both")
        results = []
        scans = self.in_view(batch.points, batch.calibrations)
        for n, (boxes3d, calibration) in enumerate(
            zip(self.detect3d(scans), batch.calibrations, strict=True)
        ):
            drawn = silhouettes(boxes3d.boxes, calibration, batch.scales[n], batch.sizes[n], _SIDE)
            rows = drawn.rows
            results.append(
                Detections(
                    drawn.boxes,
                    boxes3d.scores[rows],
                    boxes3d.labels[rows],
                    drawn.amodal,
                    drawn.visible,
                    drawn.depths,
                    boxes3d=boxes3d.boxes[rows],
                )
            )
        return results

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Focal class loss, smooth L1 of boxes with the sine of the heading's error, direction."""
        if batch.points is None or batch.targets is None:
            raise InputError(
                "PointPillars is trained on points with 3D boxes", "batch", "give both"
            )
        logits, deltas, directions, anchors = self._forward(batch.points)
        totals = {k: logits.new_zeros(()) for k in ("class", "box", "direction")}
        positives = 0
        grid = self.config.grid
        low, high = anchors.new_tensor(grid.low[:2]), anchors.new_tensor(grid.high[:2])
        for n, targets in enumerate(batch.targets):
            # Objects whose centre is outside of the volume are none, as published.
            centres = targets.boxes3d[:, :2]
            has_box = torch.isfinite(targets.boxes3d).all(1) & ~targets.ignore
            has_box &= ((centres > low) & (centres < high)).all(1)
            truth = from_lidar_boxes(targets.boxes3d[has_box], self.config.heading)
            labels, weights, matched = self.assign(anchors, truth, targets.labels[has_box])
            positive = labels >= 0
            wanted = F.one_hot(labels.clamp(min=0), logits.shape[-1]) * positive[:, None]
            focal = sigmoid_focal_loss(logits[n], wanted.to(logits.dtype), 0.25, 2.0)
            totals["class"] = totals["class"] + (focal * weights[:, None]).sum()
            count = int(positive.sum())
            positives += count
            # Sums over nothing keep the heads in the graph where no object is.
            aim = encode(anchors[positive], truth[matched[positive]])
            mine = deltas[n][positive]
            turn = mine[:, 6] * 1.0
            sine = torch.sin(turn) * torch.cos(aim[:, 6]), torch.cos(turn) * torch.sin(aim[:, 6])
            mine = torch.cat([mine[:, :6], sine[0][:, None]], 1)
            aim = torch.cat([aim[:, :6], sine[1][:, None]], 1)
            totals["box"] = totals["box"] + F.smooth_l1_loss(mine, aim, beta=1 / 9, reduction="sum")
            heading = (truth[matched[positive], 6] - self.config.dir_offset) % (2 * math.pi)
            side = (heading / math.pi).floor().long().clamp(0, 1)
            totals["direction"] = totals["direction"] + F.cross_entropy(
                directions[n][positive], side, reduction="sum"
            )
        normal = max(positives, 1)
        return {
            "class": totals["class"] / normal,
            "box": 2.0 * totals["box"] / normal,
            "direction": 0.2 * totals["direction"] / normal,
        }

    def assign(
        self, anchors: torch.Tensor, truth: torch.Tensor, classes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which anchor learns which object, class by class, by axis-nearest bird's-eye IoU.

        Args:
            anchors: (A, 7) of the network.
            truth: (N, 7) in the network's form.
            classes: (N,) int64.

        Returns:
            (A,) int64 class or -1, (A,) float32 weight of the class loss (0 between the limits),
            (A,) int64 the object matched.
        """
        labels = anchors.new_full((len(anchors),), -1, dtype=torch.long)
        weights = anchors.new_ones(len(anchors))
        matched = torch.zeros_like(labels)
        kinds = torch.arange(len(anchors), device=anchors.device) // len(ROTATIONS)
        kinds = kinds % len(self.config.classes)
        for k, name in enumerate(self.config.classes):
            objects = torch.nonzero(classes == k)[:, 0]
            if not len(objects):
                continue
            own = torch.nonzero(kinds == k)[:, 0]
            ious = box_iou(nearest_axis(anchors[own]), nearest_axis(truth[objects]))
            best, which = ious.max(1)
            anchor = ANCHORS[name]
            positive = best >= anchor.positive
            weights[own[(best >= anchor.negative) & ~positive]] = 0.0
            # Every object has its best anchors, if they are not background by far.
            top = ious.amax(0)
            forced = (ious == top) & (top >= anchor.negative)
            which = torch.where(forced.any(1), forced.float().argmax(1), which)
            positive |= forced.any(1)
            labels[own[positive]] = k
            weights[own[positive]] = 1.0
            matched[own] = objects[which]
        return labels, weights, matched

    def load_public_weights(self, path: str | Path) -> None:
        """Load a state dictionary in the layout of the public pure-PyTorch implementation.

        Raises:
            InputError: the file is missing or does not fit.
        """
        cure = "give those of three classes, of the public pure-PyTorch implementation"
        self.load_state_dict(fitted(read_weights(path), self.state_dict(), path, cure))
