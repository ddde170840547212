"""How far apart the outputs of two runtimes of a network are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

Precision = Literal["auto", "float32", "bfloat16", "int8"]
Arithmetic = Literal["float32", "bfloat16", "int8"]
# How far outputs of torch and of another runtime are apart, and how far they may be.
Measures = Mapping[
    Arithmetic, tuple[Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], float], float]
]

# Of objects that count in any use.
_SCORE, _SCORE_APART, _OVERLAP = 0.3, 0.1, 0.8


def difference(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """The largest difference of any output, relative to that output's largest value.

    Equally good instances may come in another order: each of an image's is compared with the one
    in the nearest box among the other side's. Suppressed ones, of score 0, do not count.

    Args:
        expected: (B, K, ...) each, boxes first, then visible boxes, then scores.
        actual: the same of the other side.
    """
    worst = 0.0
    for n in range(len(expected[0])):
        real = np.flatnonzero(expected[2][n] > 0)
        if not len(real):
            continue
        apart = np.abs(expected[0][n, real, None] - actual[0][n, None]).sum(-1)
        apart += np.abs(expected[2][n, real, None] - actual[2][n, None]) * expected[0].max()
        twin = apart.argmin(1)
        for a, b in zip(expected, actual, strict=True):
            ours, theirs = a[n, real].astype(float), b[n, twin].astype(float)
            scale = max(float(np.abs(ours).max()), 1e-6)
            worst = max(worst, float(np.abs(ours - theirs).max()) / scale)
    return worst


def disagreement(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """The share of instances, of either side, that the other side does not have.

    It has one if a score is within 0.1, the label is the same and the boxes' IoU is at least 0.8.
    Instances that score less than 0.3 do not count.

    Args:
        expected: (B, K, ...) each: boxes, visible boxes, scores, labels.
        actual: the same of the other side.
    """
    alone = total = 0
    for n in range(len(expected[0])):
        boxes, others = expected[0][n], actual[0][n]
        low = np.maximum(boxes[:, None, :2], others[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
        shared = (high - low).clip(min=0).prod(-1)
        areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (boxes, others))
        union = areas[:, None] + other_areas[None] - shared
        same = shared >= _OVERLAP * np.maximum(union, 1e-6)
        same &= expected[3][n][:, None] == actual[3][n][None]
        scores, other_scores = expected[2][n], actual[2][n]
        same &= np.abs(scores[:, None] - other_scores[None]) <= _SCORE_APART
        for values, paired in ((scores, same.any(1)), (other_scores, same.any(0))):
            total += int((values >= _SCORE).sum())
            alone += int(((values >= _SCORE) & ~paired).sum())
    return alone / max(total, 1)


def distance(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """The largest difference of any number of any output, relative to its output's largest.

    Args:
        expected: of any sizes.
        actual: the same of the other side.
    """
    return max(
        float(np.abs(a - b).max(initial=0)) / max(float(np.abs(a).max(initial=0)), 1e-6)
        for a, b in zip(expected, actual, strict=True)
    )


# Of parts of a network whose results are numbers; measured with seeded weights: 1e-5 and 0.02.
OF_TENSORS: Measures = {"float32": (distance, 1e-4), "bfloat16": (distance, 0.1)}
# Measured on the sample drive: 3e-5 and 0.05.
OF_INSTANCES: Measures = {
    "float32": (difference, 1e-3),
    "bfloat16": (disagreement, 0.25),
    "int8": (disagreement, 0.5),  # its graph says what it costs
}
