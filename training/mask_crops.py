"""Masks as an augmentation changes them: each as the part of the image around its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import Masks
from amodal_core.models.layers.batch import Objects, Targets, nearest_centres, objects_of


@dataclass(frozen=True)
class MaskCrops:
    """N masks of an image, all False beyond their crops.

    Attributes:
        size: (height, width) of the image.
        crops: N of (h, w) bool.
        offsets: x, y of each crop's first pixel.
    """

    size: tuple[int, int]
    crops: Sequence[np.ndarray]
    offsets: Sequence[tuple[int, int]]

    @staticmethod
    def of(masks: Masks) -> MaskCrops:
        """Those of masks in any form."""
        rle = masks.rle()
        crops, offsets = rle.crops()
        return MaskCrops(rle.size, crops, [(x, y) for x, y in offsets.tolist()])

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: torch.Tensor) -> MaskCrops:
        """The masks at `index` (positions or a mask)."""
        which = torch.arange(len(self))[index].tolist()
        crops, offsets = [self.crops[k] for k in which], [self.offsets[k] for k in which]
        return MaskCrops(self.size, crops, offsets)

    def with_empty(self, count: int) -> MaskCrops:
        """These and as many masks more that have no pixel."""
        crops = [*self.crops, *[np.zeros((0, 0), bool)] * count]
        return MaskCrops(self.size, crops, [*self.offsets, *[(0, 0)] * count])

    def mirrored(self) -> MaskCrops:
        """Left and right exchanged."""
        width = self.size[1]
        offsets = [
            (width - x - c.shape[1], y) for c, (x, y) in zip(self.crops, self.offsets, strict=True)
        ]
        return MaskCrops(self.size, [c[:, ::-1] for c in self.crops], offsets)

    def resized(self, size: tuple[int, int]) -> MaskCrops:
        """At another (height, width), each pixel that which its centre falls into."""
        rows, columns = (nearest_centres(n, m) for n, m in zip(self.size, size, strict=True))
        crops, offsets = [], []
        for crop, (x, y) in zip(self.crops, self.offsets, strict=True):
            top, bottom = np.searchsorted(rows, (y, y + crop.shape[0])).tolist()
            left, right = np.searchsorted(columns, (x, x + crop.shape[1])).tolist()
            crops.append(crop[rows[top:bottom] - y][:, columns[left:right] - x])
            offsets.append((left, top))
        return MaskCrops(size, crops, offsets)

    def cut(self, window: tuple[int, int, int, int]) -> MaskCrops:
        """What lies in a window x0, y0, x1, y1, as an image of its own."""
        x0, y0, x1, y1 = window
        crops, offsets = [], []
        for crop, (x, y) in zip(self.crops, self.offsets, strict=True):
            down, across = max(y0 - y, 0), max(x0 - x, 0)
            crops.append(crop[down : max(y1 - y, 0), across : max(x1 - x, 0)])
            offsets.append((x + across - x0, y + down - y0))
        return MaskCrops((y1 - y0, x1 - x0), crops, offsets)

    def areas(self) -> torch.Tensor:
        """(N,) int64, pixels."""
        return torch.tensor([np.count_nonzero(c) for c in self.crops], dtype=torch.int64)

    def dense(self) -> torch.Tensor:
        """(N, H, W) bool."""
        out = np.zeros((len(self), *self.size), bool)
        for mask, crop, (x, y) in zip(out, self.crops, self.offsets, strict=True):
            if crop.size:
                mask[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        return torch.from_numpy(out)


@dataclass
class CroppedTargets(Objects):
    """The truth of one image on its way to `Targets`.

    Attributes:
        amodal: of each object.
        visible: of each object.
    """

    amodal: MaskCrops
    visible: MaskCrops

    @staticmethod
    def of(truth: Tracks) -> CroppedTargets:
        """A frame's truth at its own size."""
        masks = MaskCrops.of(truth.amodal), MaskCrops.of(truth.visible)
        return CroppedTargets(**objects_of(truth), amodal=masks[0], visible=masks[1])

    def targets(self) -> Targets:
        """With whole masks, as models learn from them."""
        return Targets(
            **{**vars(self), "amodal": self.amodal.dense(), "visible": self.visible.dense()}
        )
