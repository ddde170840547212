"""Features of regions from a pyramid, each from the level that fits its size (RoIAlign)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import _setup_scales

from amodal_core.models.layers.backbone import LEVELS
from amodal_core.models.layers.roi_kernel import pool

RoiAlign = Literal["torchvision", "aligned"]


class RoiFeatures(MultiScaleRoIAlign):
    """Features in boxes, from P2 to P5.

    Args:
        side: cells along each side of the result.
        kind: "aligned": cells' centres lie where the box has them, with as many samples as a cell
            has pixels (detectron2, mmdetection); "torchvision": half a pixel of the level farther
            down and right, with two samples along each side of a cell.

    Attributes:
        by_kernel: without gradients on a CPU, torchvision's sums come from `roi_kernel`, a tenth of
            the time and equal but for rounding.
    """

    def __init__(self, side: int, kind: RoiAlign) -> None:
        super().__init__(list(LEVELS), side, 2)
        self.kind = kind
        self.by_kernel = False

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
        levels = [x[name] for name in LEVELS]
        exact = levels[0].device.type == "cpu" and levels[0].dtype == torch.float32
        kernel = self.by_kernel and exact and not torch.is_grad_enabled()
        if self.kind == "torchvision" and not kernel:
            pooled: torch.Tensor = super().forward(x, boxes, image_shapes)
            return pooled
        scales, level_of = _setup_scales(
            levels, image_shapes, self.canonical_scale, self.canonical_level
        )
        own = level_of(boxes)
        if kernel:
            return self._by_kernel(levels, scales, own, boxes)
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

    def _by_kernel(
        self,
        levels: list[torch.Tensor],
        scales: list[float],
        own: torch.Tensor,
        boxes: list[torch.Tensor],
    ) -> torch.Tensor:
        """The same, on the host; `own` is each box's level."""
        side, channels = self.output_size[0], levels[0].shape[1]
        result = np.empty((len(own), channels, side, side), np.float32)
        aligned = self.kind == "aligned"
        samples = 0 if aligned else self.sampling_ratio
        image = np.repeat(np.arange(len(boxes)), [len(b) for b in boxes])
        every, of_level = torch.cat(boxes).numpy().astype(np.float32), own.numpy()
        for k, (level, scale) in enumerate(zip(levels, scales, strict=True)):
            for n in np.unique(image[of_level == k]):
                places = np.flatnonzero((of_level == k) & (image == n))
                # Channels lie side by side where a graph has made them.
                pixels = np.ascontiguousarray(level[n].permute(1, 2, 0).numpy())
                pool(pixels, every[places], places, np.float32(scale), aligned, samples, result)
        return torch.from_numpy(result)
