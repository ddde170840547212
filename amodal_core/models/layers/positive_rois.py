"""Boxes on objects, with the true masks in them, that mask heads learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchvision.ops import roi_align

from amodal_core.models.layers.batch import Targets


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
