"""Sets of masks: on the host as COCO RLE, on a model's device as logits inside boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco

if TYPE_CHECKING:
    import torch


class Masks(ABC):
    """N binary masks over images of `size` = (height, width) pixels."""

    size: tuple[int, int]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Any) -> Masks: ...

    @abstractmethod
    def rle(self) -> RleMasks:
        """The masks on the host as COCO RLE."""


class RleMasks(Masks):
    """N masks as COCO compressed RLE.

    Args:
        size: (height, width) of the image in pixels.
        counts: compressed RLE counts of each mask, as pycocotools writes them.
    """

    def __init__(self, size: tuple[int, int], counts: Sequence[bytes]) -> None:
        self.size = (int(size[0]), int(size[1]))
        self.counts = list(counts)

    @classmethod
    def empty(cls, size: tuple[int, int]) -> RleMasks:
        """No masks."""
        return cls(size, [])

    @classmethod
    def from_dense(cls, masks: np.ndarray) -> RleMasks:
        """Encode (N, H, W) bool or uint8 masks."""
        n, height, width = masks.shape
        stack = np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))
        return cls((height, width), [r["counts"] for r in coco.encode(stack)] if n else [])

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Any) -> RleMasks:
        chosen = np.arange(len(self.counts))[np.asarray(index) if not isinstance(index, slice) else index]
        return RleMasks(self.size, [self.counts[i] for i in np.atleast_1d(chosen)])

    def rle(self) -> RleMasks:
        """Itself."""
        return self

    def coco(self) -> list[dict[str, Any]]:
        """The masks as pycocotools' dictionaries."""
        return [{"size": list(self.size), "counts": c} for c in self.counts]

    def dense(self) -> np.ndarray:
        """(N, H, W) bool."""
        if not self.counts:
            return np.zeros((0, *self.size), bool)
        return coco.decode(self.coco()).transpose(2, 0, 1).astype(bool)

    def areas(self) -> np.ndarray:
        """(N,) int64, pixels."""
        return np.asarray(coco.area(self.coco()) if self.counts else [], np.int64)

    def boxes(self) -> np.ndarray:
        """(N, 4) float32 xyxy around each mask, zeros where it is empty."""
        if not self.counts:
            return np.zeros((0, 4), np.float32)
        xywh = np.asarray(coco.toBbox(self.coco()), np.float32)
        return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)

    def iou(self, other: RleMasks) -> np.ndarray:
        """(N, M) float64 intersection over union; 0 between empty masks."""
        if not self.counts or not other.counts:
            return np.zeros((len(self), len(other)))
        return np.asarray(coco.iou(self.coco(), other.coco(), [False] * len(other)))


class BoxMasks(Masks):
    """N masks as logits on a grid inside each one's box, on the model's device.

    Args:
        size: (height, width) of the image in pixels.
        logits: (N, S, S) float, sampled at the centres of S x S cells of the box; > 0 is inside.
        boxes: (N, 4) float xyxy in pixels, same device.
    """

    def __init__(self, size: tuple[int, int], logits: torch.Tensor, boxes: torch.Tensor) -> None:
        self.size = (int(size[0]), int(size[1]))
        self.logits = logits
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: Any) -> BoxMasks:
        return BoxMasks(self.size, self.logits[index], self.boxes[index])

    def rle(self) -> RleMasks:
        """Resize each grid into its box, threshold at 0 and encode."""
        from amodal_core.masks.paste import paste_rle

        return paste_rle(self.logits, self.boxes, self.size)
