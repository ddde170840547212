"""Overlap of every annotation with every prediction of its image, for a whole data set at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from amodal_core.masks import rle


@dataclass
class Runs:
    """N masks over images of any size as runs, see `amodal_core.masks.rle`.

    Attributes:
        runs: (M, 2) int64.
        first: (N + 1,) int64.
        heights: (N,) int64, of each mask's image.
    """

    runs: np.ndarray
    first: np.ndarray
    heights: np.ndarray

    def __len__(self) -> int:
        return len(self.heights)

    @cached_property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        boxes, areas = np.zeros((len(self), 4), np.int64), np.zeros(len(self), np.int64)
        heights = np.unique(self.heights).tolist()
        if len(heights) == 1:
            found: tuple[np.ndarray, np.ndarray] = rle.bounds(self.runs, self.first, heights[0])
            return found
        for height in heights:
            members = np.flatnonzero(self.heights == height)
            runs, first = rle.gather(self.runs, self.first, members)
            boxes[members], areas[members] = rle.bounds(runs, first, height)
        return boxes, areas

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) int64 xyxy, exclusive maximum, zeros where empty."""
        return self._bounds[0]

    @property
    def areas(self) -> np.ndarray:
        """(N,) int64 pixels."""
        return self._bounds[1]

    def __getitem__(self, chosen: np.ndarray) -> Runs:
        """The masks at these positions (K,) int64; -1 gives an empty mask."""
        first = np.append(self.first, self.first[-1])  # one more mask, without a run
        runs, first = rle.gather(self.runs, first, np.asarray(chosen, np.int64) % (len(self) + 1))
        return Runs(runs, first, np.append(self.heights, 1)[chosen])

    def __and__(self, other: Runs) -> Runs:
        """Mask by mask, what both cover."""
        return self._combined(other, rle.AND)

    def __sub__(self, other: Runs) -> Runs:
        """Mask by mask, what this covers and the other does not."""
        return self._combined(other, rle.SUBTRACT)

    def _combined(self, other: Runs, how: int) -> Runs:
        if len(self) != len(other):
            raise ValueError(f"{len(self)} masks and {len(other)} cannot be combined one by one")
        last = max((int(r.max()) for r in (self.runs, other.runs) if r.size), default=0)
        runs, first = rle.combine(self.runs, self.first, other.runs, other.first, how, last)
        return Runs(runs, first, self.heights)


def parse(counts: Sequence[bytes], heights: np.ndarray, widths: np.ndarray) -> Runs:
    """Parse COCO compressed RLE.

    Args:
        counts: N masks.
        heights: (N,) int64, of each mask's image.
        widths: (N,) int64.

    Raises:
        ValueError: a mask is no RLE of an image of its size.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for k, pixels in enumerate((heights * widths).tolist()):
        members[pixels].append(k)
    parts = [rle.parse([counts[k] for k in m], pixels) for pixels, m in members.items()]
    if len(parts) == 1:
        return Runs(parts[0][0], parts[0][1], heights)
    # The groups one after the other, then back in the order of `counts`.
    shifts = np.cumsum([0] + [len(runs) for runs, _ in parts])
    runs = np.concatenate([np.zeros((0, 2), np.int64), *(runs for runs, _ in parts)])
    ends = [first[1:] + shift for (_, first), shift in zip(parts, shifts, strict=False)]
    first = np.concatenate([np.zeros(1, np.int64), *ends])
    back = np.empty(len(counts), np.int64)
    back[[k for m in members.values() for k in m]] = np.arange(len(counts))
    runs, first = rle.gather(runs, first, back)
    return Runs(runs, first, heights)


def shared(one: Runs, two: Runs) -> np.ndarray:
    """(N,) int64 pixels that both cover, mask by mask."""
    out = np.zeros(len(one), np.int64)
    _shared_each(one.runs, one.first, two.runs, two.first, out)
    return out


def grouped(places: np.ndarray, count: int, *keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort entries by image.

    Args:
        places: (N,) int, the place of each entry's image.
        count: number of images.
        keys: further keys, the last one first; ties stay in their order.

    Returns:
        Positions (N,) int64 in that order, and (count + 1,) int64, where each image begins in it.
    """
    order = np.lexsort((*keys, places)).astype(np.int64)
    return order, np.searchsorted(places[order], np.arange(count + 1)).astype(np.int64)


@dataclass
class Overlaps:
    """IoU of N annotations with M predictions, image by image.

    Attributes:
        truth: (N,) int64 positions of the annotations, by image.
        truth_first: (I + 1,) int64, where each image begins in it.
        predictions: (M,) int64.
        predictions_first: (I + 1,) int64.
        first: (I + 1,) int64, where each image's block of IoUs begins.
        ious: (P,) float64, blocks of annotations x predictions, row by row.
    """

    truth: np.ndarray
    truth_first: np.ndarray
    predictions: np.ndarray
    predictions_first: np.ndarray
    first: np.ndarray
    ious: np.ndarray

    def __len__(self) -> int:
        return len(self.first) - 1

    def __getitem__(self, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions of an image's annotations (a,) and predictions (b,), and IoUs (a, b)."""
        a = self.truth[self.truth_first[image] : self.truth_first[image + 1]]
        b = self.predictions[self.predictions_first[image] : self.predictions_first[image + 1]]
        block = self.ious[self.first[image] : self.first[image + 1]]
        return a, b, block.reshape(len(a), len(b))


def overlaps(
    truth: Runs | np.ndarray,
    predictions: Runs | np.ndarray,
    truth_order: tuple[np.ndarray, np.ndarray],
    predictions_order: tuple[np.ndarray, np.ndarray],
    crowd: np.ndarray | None = None,
) -> Overlaps:
    """IoU as COCO defines it.

    Args:
        truth: N masks, or boxes (N, 4) float64 xyxy.
        predictions: M masks or boxes.
        truth_order: what `grouped` gave for the annotations.
        predictions_order: what `grouped` gave for the predictions.
        crowd: (N,) bool; with a crowd the union is the prediction alone.
    """
    (a, first_a), (b, first_b) = truth_order, predictions_order
    if crowd is None:
        crowd = np.zeros(len(a), bool)
    first = np.zeros(len(first_a), np.int64)
    np.cumsum(np.diff(first_a) * np.diff(first_b), out=first[1:])
    ious = np.zeros(first[-1])
    if isinstance(truth, Runs) and isinstance(predictions, Runs):
        _mask_ious(
            a,
            first_a,
            truth.runs,
            truth.first,
            truth.boxes,
            truth.areas,
            crowd,
            b,
            first_b,
            predictions.runs,
            predictions.first,
            predictions.boxes,
            predictions.areas,
            first,
            ious,
        )
    else:
        _box_ious(a, first_a, truth, crowd, b, first_b, predictions, first, ious)
    return Overlaps(a, first_a, b, first_b, first, ious)


@njit(cache=True, nogil=True)
def _shared(runs_a, p, end_p, runs_b, q, end_q):  # type: ignore[no-untyped-def]
    """Pixels that two masks share."""
    shared = 0
    while p < end_p and q < end_q:
        end_a, end_b = runs_a[p, 1], runs_b[q, 1]
        overlap = min(end_a, end_b) - max(runs_a[p, 0], runs_b[q, 0])
        if overlap > 0:
            shared += overlap
        if end_a <= end_b:
            p += 1
        if end_b <= end_a:
            q += 1
    return shared


@njit(cache=True, nogil=True)
def _shared_each(runs_a, first_a, runs_b, first_b, out):  # type: ignore[no-untyped-def]
    for n in range(len(out)):
        out[n] = _shared(runs_a, first_a[n], first_a[n + 1], runs_b, first_b[n], first_b[n + 1])


@njit(cache=True, nogil=True)
def _mask_ious(  # type: ignore[no-untyped-def]
    order_a,
    first_a,
    runs_a,
    run_a,
    boxes_a,
    areas_a,
    crowd,
    order_b,
    first_b,
    runs_b,
    run_b,
    boxes_b,
    areas_b,
    first,
    out,
):
    for image in range(len(first) - 1):
        at = first[image]
        for i in range(first_a[image], first_a[image + 1]):
            a = order_a[i]
            for j in range(first_b[image], first_b[image + 1]):
                b = order_b[j]
                if (
                    boxes_a[a, 0] < boxes_b[b, 2]
                    and boxes_b[b, 0] < boxes_a[a, 2]
                    and boxes_a[a, 1] < boxes_b[b, 3]
                    and boxes_b[b, 1] < boxes_a[a, 3]
                ):
                    both = _shared(runs_a, run_a[a], run_a[a + 1], runs_b, run_b[b], run_b[b + 1])
                    if both:
                        union = areas_b[b] if crowd[a] else areas_a[a] + areas_b[b] - both
                        out[at] = both / union
                at += 1


@njit(cache=True, nogil=True)
def _box_ious(order_a, first_a, boxes_a, crowd, order_b, first_b, boxes_b, first, out):  # type: ignore[no-untyped-def]
    for image in range(len(first) - 1):
        at = first[image]
        for i in range(first_a[image], first_a[image + 1]):
            a = boxes_a[order_a[i]]
            size_a = (a[2] - a[0]) * (a[3] - a[1])
            for j in range(first_b[image], first_b[image + 1]):
                b = boxes_b[order_b[j]]
                width = min(a[2], b[2]) - max(a[0], b[0])
                height = min(a[3], b[3]) - max(a[1], b[1])
                if width > 0 and height > 0:
                    both = width * height
                    union = (b[2] - b[0]) * (b[3] - b[1])
                    if not crowd[order_a[i]]:
                        union = size_a + union - both
                    out[at] = both / union
                at += 1
