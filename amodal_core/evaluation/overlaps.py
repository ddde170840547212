"""Overlap of every annotation with every prediction of its image, for a whole data set at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from amodal_core.masks.rle import shared
from amodal_core.masks.runs import Runs


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
        assert isinstance(truth, np.ndarray)
        assert isinstance(predictions, np.ndarray)
        _box_ious(a, first_a, truth, crowd, b, first_b, predictions, first, ious)
    return Overlaps(a, first_a, b, first_b, first, ious)


@njit(cache=True, nogil=True)
def _mask_ious(
    order_a: np.ndarray,
    first_a: np.ndarray,
    runs_a: np.ndarray,
    run_a: np.ndarray,
    boxes_a: np.ndarray,
    areas_a: np.ndarray,
    crowd: np.ndarray,
    order_b: np.ndarray,
    first_b: np.ndarray,
    runs_b: np.ndarray,
    run_b: np.ndarray,
    boxes_b: np.ndarray,
    areas_b: np.ndarray,
    first: np.ndarray,
    out: np.ndarray,
) -> None:
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
                    both = shared(runs_a, run_a[a], run_a[a + 1], runs_b, run_b[b], run_b[b + 1], 0)
                    if both:
                        union = areas_b[b] if crowd[a] else areas_a[a] + areas_b[b] - both
                        out[at] = both / union
                at += 1


@njit(cache=True, nogil=True)
def _box_ious(
    order_a: np.ndarray,
    first_a: np.ndarray,
    boxes_a: np.ndarray,
    crowd: np.ndarray,
    order_b: np.ndarray,
    first_b: np.ndarray,
    boxes_b: np.ndarray,
    first: np.ndarray,
    out: np.ndarray,
) -> None:
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
