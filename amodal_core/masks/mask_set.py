"""Sets of masks: on the host as COCO RLE, on a model's device as logits inside boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from amodal_core.arrays import host, positions
from amodal_core.masks import rle
from amodal_core.masks.paste import paste_runs
from amodal_core.masks.runs import Runs


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
    """N masks as COCO compressed RLE. Immutable: every operation gives a new set.

    Args:
        size: (height, width) of the image in pixels.
        counts: compressed RLE counts of each mask, as pycocotools writes them.
    """

    def __init__(self, size: tuple[int, int], counts: Sequence[bytes]) -> None:
        self.size = (int(size[0]), int(size[1]))
        self.__dict__["counts"] = list(counts)

    @cached_property
    def counts(self) -> list[bytes]:
        """Compressed RLE counts of each mask, made when first asked for."""
        return rle.pack(self._runs.runs, self._runs.first, self.size[0] * self.size[1])

    @classmethod
    def empty(cls, size: tuple[int, int], n: int = 0) -> RleMasks:
        """As many masks without a pixel."""
        return cls._from_runs(size, np.zeros((0, 2), np.int64), np.zeros(n + 1, np.int64))

    @classmethod
    def from_dense(cls, masks: np.ndarray) -> RleMasks:
        """Encode (N, H, W) bool or uint8 masks; only the box of each is looked at closely."""
        crops, offsets = [], np.zeros((len(masks), 2), np.int64)
        for n, mask in enumerate(masks.astype(bool, copy=False)):
            rows = np.flatnonzero(mask.any(1))
            crop = mask[rows[0] : rows[-1] + 1] if len(rows) else mask[:0]
            columns = np.flatnonzero(crop.any(0))
            if len(columns):
                crop = crop[:, columns[0] : columns[-1] + 1]
                offsets[n] = columns[0], rows[0]
            crops.append(crop)
        return cls.from_crops(crops, offsets, masks.shape[1:])

    @classmethod
    def from_crops(
        cls, crops: Sequence[np.ndarray], offsets: np.ndarray, size: tuple[int, int]
    ) -> RleMasks:
        """Encode masks from the parts of the image that hold them; the rest is empty.

        Args:
            crops: N bool arrays (h, w), each of its own size; what hangs out of the image is cut.
            offsets: (N, 2) int, x and y of each crop's top left pixel; may be negative.
            size: (height, width) of the image.
        """
        return cls._from_runs(size, *rle.encode_crops(crops, offsets, size))

    @classmethod
    def from_boxes(cls, boxes: np.ndarray, size: tuple[int, int]) -> RleMasks:
        """Filled boxes (N, 4) xyxy: the pixels whose centres lie inside, cut by the image."""
        height, width = size
        limits = np.array([width, height, width, height], np.float64)
        edges = np.nan_to_num(np.asarray(boxes, np.float64), nan=0.0)
        edges = np.ceil(np.clip(edges, 0.0, limits) - 0.5).astype(np.int64)
        sides = np.maximum(edges[:, 2:] - edges[:, :2], 0)
        crops = [np.ones((h, w), bool) for w, h in sides.tolist()]
        return cls.from_crops(crops, edges[:, :2], size)

    @classmethod
    def _from_runs(cls, size: tuple[int, int], runs: np.ndarray, first: np.ndarray) -> RleMasks:
        return cls._of(size, Runs(runs, first, int(size[0])))

    @classmethod
    def _of(cls, size: tuple[int, int], runs: Runs) -> RleMasks:
        out = cls.__new__(cls)
        out.size = (int(size[0]), int(size[1]))
        out.__dict__["_runs"] = runs
        return out

    @classmethod
    def concatenated(cls, sets: Sequence[RleMasks]) -> RleMasks:
        """The masks of one or more sets, one after the other."""
        for other in sets[1:]:
            sets[0]._same_size(other)
        if all("_runs" in s.__dict__ for s in sets):
            return cls._of(sets[0].size, Runs.concatenated([s._runs for s in sets]))
        return cls(sets[0].size, [c for s in sets for c in s.counts])

    def __len__(self) -> int:
        parsed = self.__dict__.get("_runs")
        return len(self.counts) if parsed is None else len(parsed)

    def __getitem__(self, index: Any) -> RleMasks:
        chosen = positions(index, len(self))
        out = RleMasks.__new__(RleMasks)
        out.size = self.size
        if "_runs" in self.__dict__:
            out.__dict__["_runs"] = self._runs[chosen]
        if "counts" in self.__dict__:
            counts = self.counts
            out.__dict__["counts"] = [counts[i] for i in chosen.tolist()]
        return out

    def picked(self, others: RleMasks, chosen: np.ndarray) -> RleMasks:
        """Masks of two sets: at the places (K,) int64 these from 0 on, the others from N on."""
        self._same_size(others)
        return self._of(self.size, self._runs.picked(chosen, others._runs))

    def __and__(self, other: RleMasks) -> RleMasks:
        """Mask by mask, what both cover."""
        self._same_size(other)
        return self._of(self.size, self._runs & other._runs)

    def __or__(self, other: RleMasks) -> RleMasks:
        """Mask by mask, what either covers."""
        self._same_size(other)
        return self._of(self.size, self._runs | other._runs)

    def __sub__(self, other: RleMasks) -> RleMasks:
        """Mask by mask, what this covers and the other does not."""
        self._same_size(other)
        return self._of(self.size, self._runs - other._runs)

    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """(R, 2) int64 runs of all masks and (N + 1,) int64, where those of each begin and end.

        A run is [start, end) of the image's pixels, column after column.
        """
        return self._runs.runs, self._runs.first

    def rle(self) -> RleMasks:
        """Itself."""
        return self

    def coco(self) -> list[dict[str, Any]]:
        """The masks as pycocotools' dictionaries."""
        return [{"size": list(self.size), "counts": c} for c in self.counts]

    def dense(self) -> np.ndarray:
        """(N, H, W) bool."""
        out = np.zeros((len(self), *self.size), bool)
        for mask, crop, (x, y) in zip(out, *self.crops(), strict=True):
            mask[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        return out

    def crops(self) -> tuple[list[np.ndarray], np.ndarray]:
        """The inverse of `from_crops`: N bool crops of the masks' boxes, offsets (N, 2) x, y."""
        runs = self._runs
        crops = rle.decode_crops(runs.runs, runs.first, runs.boxes, self.size[0])
        return crops, runs.boxes[:, :2]

    def areas(self) -> np.ndarray:
        """(N,) int64, pixels."""
        return self._runs.areas.copy()

    def boxes(self) -> np.ndarray:
        """(N, 4) float32 xyxy around each mask, zeros where it is empty."""
        return self._runs.boxes.astype(np.float32)

    def intersections(
        self,
        other: RleMasks,
        shifts: np.ndarray | None = None,
        pairs: np.ndarray | None = None,
    ) -> np.ndarray:
        """(N, M) int64, pixels that each pair shares.

        Args:
            other: M masks over an image of the same size.
            shifts: (N, 2) int, moves each of these masks by x, y before they are compared; exact
                for masks that do not fill a column from top to bottom.
            pairs: (N, M) bool, which to compare, None for all; the others are given 0.
        """
        self._same_size(other)
        if shifts is None:
            shifts = np.zeros((len(self), 2), np.int64)
        if pairs is None:
            pairs = np.ones((len(self), len(other)), bool)
        a, b = self._runs, other._runs
        return rle.intersections(
            a.runs,
            a.first,
            a.boxes,
            b.runs,
            b.first,
            b.boxes,
            np.ascontiguousarray(shifts, np.int64),
            np.ascontiguousarray(pairs, bool),
            self.size[0],
        )

    def iou(
        self,
        other: RleMasks,
        shifts: np.ndarray | None = None,
        pairs: np.ndarray | None = None,
    ) -> np.ndarray:
        """(N, M) float64 intersection over union; 0 between empty. Arguments: see intersections."""
        shared = self.intersections(other, shifts, pairs)
        union = self._runs.areas[:, None] + other._runs.areas[None, :] - shared
        return shared / np.maximum(union, 1)

    def union(self) -> RleMasks:
        """One mask: everything that any of them covers."""
        runs = self._runs.runs
        if len(runs) == 0:
            return self.empty(self.size, 1)
        runs = runs[np.argsort(runs[:, 0], kind="stable")]
        ends = np.maximum.accumulate(runs[:, 1])
        apart = runs[1:, 0] > ends[:-1]
        starts = runs[np.append(True, apart), 0]
        merged = np.stack([starts, ends[np.append(apart, True)]], axis=1)
        return self._from_runs(self.size, merged, np.array([0, len(merged)], np.int64))

    def layered(self, order: np.ndarray) -> RleMasks:
        """What each shows when the masks lie on each other.

        Args:
            order: (N,) int, a permutation: the indices from the nearest mask to the farthest.
        """
        order = np.ascontiguousarray(order, np.int64)
        return self._from_runs(self.size, *rle.peel(self._runs.runs, self._runs.first, order))

    def moved(self, source: np.ndarray, target: np.ndarray) -> RleMasks:
        """Translate and scale each mask as its source box goes to its target box, nearest pixel.

        Args:
            source: (N, 4) float xyxy in pixels, with an area.
            target: (N, 4) float xyxy; without an area or not finite, the mask becomes empty.
        """
        boxes = np.ascontiguousarray(source, np.float64), np.ascontiguousarray(target, np.float64)
        runs = self._runs
        warped = rle.warp(runs.runs, runs.first, runs.boxes, *boxes, self.size[0], self.size[1])
        return self._from_runs(self.size, *warped)

    def check(self) -> None:
        """Make sure that masks from outside are what they claim.

        Raises:
            ValueError: a mask's counts do not describe an image of this size; names its index.
        """
        _ = self._runs

    @cached_property
    def _runs(self) -> Runs:
        return Runs.parse(self.counts, *self.size)

    def _same_size(self, other: RleMasks) -> None:
        if self.size != other.size:
            raise ValueError(f"masks over images of {self.size} and {other.size} do not compare")


class BoxMasks(Masks):
    """N masks as logits on a grid inside each one's box: tensors, or arrays of NumPy.

    Args:
        size: (height, width) of the image in pixels.
        logits: (N, S, S) float, sampled at the centres of S x S cells of the box; > 0 is inside.
        boxes: (N, 4) float xyxy in pixels, same device.
    """

    def __init__(self, size: tuple[int, int], logits: Any, boxes: Any) -> None:
        self.size = (int(size[0]), int(size[1]))
        self.logits = logits
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: Any) -> BoxMasks:
        return BoxMasks(self.size, self.logits[index], self.boxes[index])

    def rle(self) -> RleMasks:
        """Resize each grid into its box, threshold at 0 and encode."""
        return RleMasks._from_runs(self.size, *paste_runs(self.logits, self.boxes, self.size))


def concatenated(sets: Sequence[Masks]) -> Masks:
    """The masks of one or more sets, one after the other, on the host.

    As logits where all are, on grids of one size; else as RLE.
    """
    grids = [s for s in sets if isinstance(s, BoxMasks)]
    if len(grids) < len(sets) or len({g.logits.shape[1:] for g in grids}) > 1:
        return RleMasks.concatenated([s.rle() for s in sets])
    logits = np.concatenate([host(g.logits) for g in grids])
    return BoxMasks(sets[0].size, logits, np.concatenate([host(g.boxes) for g in grids]))
