"""A frozen PointPillars inside an image model: proposals and depth from the objects it finds.

After "3D Amodal Instance Segmentation Using Sensor Fusion": 3D boxes found in the LiDAR are
projected into the image as regions of interest, and the points inside them become a depth channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torchvision.ops import box_iou

from amodal_core.classes import ClassMap
from amodal_core.errors import InputError
from amodal_core.frame import Calibration
from amodal_core.geometry.projection import to_camera
from amodal_core.models.layers.batch import Batch, LidarBoxes, depth_channels
from amodal_core.models.layers.box_silhouettes import outlines_in_image
from amodal_core.models.layers.object_depth import object_depth
from amodal_core.models.pointpillars import Boxes3d, PointPillars, PointPillarsConfig

IMAGE, LIDAR, BOTH = "image", "lidar", "both"
OBJECTS = "objects"
_SAME = 0.5  # IoU from which a projected box is an object's


class LidarObjects(nn.Module):
    """PointPillars that never learns: always as in inference, without gradients.

    Its classes are the image model's by name; those without a name there are left out.

    Args:
        config: of PointPillars; that of `weights` takes its place.
        classes: of the image model.
        weights: checkpoint of PointPillars, or public weights (.pth); "" where the weights come
            with the image model's own checkpoint.
        depth: whether to make depth channels from the objects.

    Attributes:
        network: PointPillars.

    Raises:
        InputError: weights that are missing or do not fit, or no class in common.
    """

    def __init__(
        self, config: PointPillarsConfig, classes: Sequence[str], weights: str, depth: bool
    ) -> None:
        super().__init__()
        self.network = _network(config, weights)
        self.requires_grad_(False)
        self.eval()
        self._makes_depth = depth
        self._has_weights = bool(weights)
        self.register_load_state_dict_post_hook(_loaded)
        table = ClassMap.between(self.network.classes, classes).table
        if table.max() < 0:
            raise InputError(
                f"no class of PointPillars ({', '.join(self.network.classes)}) is the model's",
                "classes",
                f"the model has: {', '.join(classes)}",
            )
        self._table: torch.Tensor
        self.register_buffer("_table", torch.from_numpy(table), persistent=False)

    def train(self, mode: bool = True) -> LidarObjects:
        """As it was: in inference."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Batch:
        """The batch with `lidar_boxes`, and with the depth of objects where that is wanted.

        Raises:
            InputError: no points or no calibration, or PointPillars has no weights.
        """
        if batch.points is None or batch.calibrations is None:
            raise InputError(
                "LiDAR proposals and the depth of objects need points and a calibration",
                "frames",
                "record both",
            )
        if not self._has_weights:
            raise InputError(
                "PointPillars is frozen and has no weights",
                "settings.lidar_weights",
                "name a checkpoint of it",
            )
        scans = self.network.in_view(batch.points, batch.calibrations)
        # The same boxes whatever the precision of the training.
        with torch.autocast(batch.images.device.type, enabled=False):
            results = [self._of_own_classes(one) for one in self.network.detect3d(scans)]
        boxes = []
        depth = torch.zeros_like(batch.images[:, :2]) if self._makes_depth else batch.depth
        for n, (one, calibration) in enumerate(zip(results, batch.calibrations, strict=True)):
            host = one.boxes.cpu().double().numpy()
            place = calibration, batch.scales[n], batch.sizes[n]
            boxes.append(_projected(one, host, *place))
            if self._makes_depth:
                assert depth is not None
                metres = object_depth(scans[n].cpu().numpy(), host, *place)
                height, width = batch.sizes[n]
                channels = depth_channels(torch.from_numpy(metres))
                depth[n, :, :height, :width] = channels.to(depth)
        return replace(batch, lidar_boxes=boxes, depth=depth)

    def _of_own_classes(self, boxes3d: Boxes3d) -> Boxes3d:
        """The objects of the image model's classes, with its class ids."""
        labels = self._table[boxes3d.labels]
        own = labels >= 0
        return Boxes3d(boxes3d.boxes[own], boxes3d.scores[own], labels[own])


def _network(config: PointPillarsConfig, weights: str) -> PointPillars:
    if not weights or weights.endswith(".pth"):
        network = PointPillars(config)
        if weights:
            network.load_public_weights(weights)
        return network
    trained = PointPillars.from_checkpoint(weights)
    assert isinstance(trained, PointPillars)
    if config not in (PointPillarsConfig(), trained.config):
        raise InputError(
            "lidar_detector differs from the settings of lidar_weights",
            weights,
            "leave lidar_detector out: the checkpoint has its own",
        )
    return trained


def _loaded(module: nn.Module, _: Any) -> None:
    assert isinstance(module, LidarObjects)
    module._has_weights = True


def _projected(
    boxes3d: Boxes3d,
    host: np.ndarray,
    calibration: Calibration,
    scale: torch.Tensor,
    size: tuple[int, int],
) -> LidarBoxes:
    """What of the found boxes is in the image; `host` are the boxes as an array."""
    rows, _, rects = outlines_in_image(host, calibration, scale, size)
    centres = np.clip(to_camera(host[rows, :3], calibration)[:, 2], 0, None)
    index = torch.tensor(rows, dtype=torch.long, device=boxes3d.boxes.device)
    return LidarBoxes(
        torch.from_numpy(rects).to(boxes3d.boxes),
        boxes3d.scores[index],
        boxes3d.labels[index],
        torch.from_numpy(centres).to(boxes3d.boxes),
    )


def with_truth(boxes: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The true boxes and those found that are one of them, one each at most.

    Args:
        boxes: (M, 4) xyxy, found in the LiDAR.
        truth: (N, 4) xyxy.

    Returns:
        (P, 4) boxes, the true ones first, and (P,) int64 the true box of each.
    """
    every = torch.arange(len(truth), device=truth.device)
    overlaps = box_iou(boxes, truth)
    overlaps = torch.where(overlaps >= _SAME, overlaps, 0.0).cpu().numpy()
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    pairs = [(r, c) for r, c in zip(rows, columns, strict=True) if overlaps[r, c] > 0]
    index = torch.tensor(pairs, dtype=torch.long, device=truth.device).reshape(-1, 2)
    return torch.cat([truth, boxes[index[:, 0]]]), torch.cat([every, index[:, 1]])
