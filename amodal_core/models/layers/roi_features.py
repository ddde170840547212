"""Features of regions from a pyramid, each from the level that fits its size (RoIAlign)."""

from __future__ import annotations

from typing import Literal

import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import _setup_scales

from amodal_core.models.layers.backbone import LEVELS

RoiAlign = Literal["torchvision", "aligned"]


class RoiFeatures(MultiScaleRoIAlign):
    """Features in boxes, from P2 to P5.

    Args:
        side: cells along each side of the result.
        kind: "aligned": cells' centres lie where the box has them, with as many samples as a cell
            has pixels (detectron2, mmdetection); "torchvision": half a pixel of the level farther
            down and right, with two samples along each side of a cell.
    """

    def __init__(self, side: int, kind: RoiAlign) -> None:
        super().__init__(list(LEVELS), side, 2)
        self.kind = kind

    def forward(
        self,
        x: dict[str, torch.Tensor],
        boxes: list[torch.Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> torch.Tensor:
        """(N, C, side, side) features of the (N, 4) boxes of all images in a row.

        Args:
            x: levels by name, (B, C, H, W) each.
            boxes: per image, xyxy in pixels.
            image_shapes: (height, width) of each image.
        """
        if self.kind == "torchvision":
            pooled: torch.Tensor = super().forward(x, boxes, image_shapes)
            return pooled
        levels = [x[name] for name in LEVELS]
        scales, level_of = _setup_scales(
            levels, image_shapes, self.canonical_scale, self.canonical_level
        )
        own = level_of(boxes)
        rois = torch.cat(
            [torch.cat([b.new_full((len(b), 1), n), b], 1) for n, b in enumerate(boxes)]
        )
        features, side = levels[0], self.output_size[0]
        result = features.new_zeros((len(rois), features.shape[1], side, side))
        for k, (level, scale) in enumerate(zip(levels, scales, strict=True)):
            some = torch.where(own == k)[0]
            cells = roi_align(level, rois[some].to(level.dtype), side, scale, aligned=True)
            result[some] = cells.to(result.dtype)
        return result
