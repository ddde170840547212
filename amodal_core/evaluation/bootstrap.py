"""Paired bootstrap over images (or videos): how sure is a difference in AP between runs?

Images are drawn with replacement, the same draw for every run, and AP is computed anew from the
matches, which do not change: matching looks at one image at a time. The interval of the difference
is the middle 95 % of the draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from amodal_core.errors import InputError
from amodal_core.evaluation.matching import RECALLS, Matches
from amodal_core.progress import ProgressBar, no_bar

DRAWS = 500


@njit(cache=True, nogil=True)
def _average_precision(
    image: np.ndarray,
    hit: np.ndarray,
    ignored: np.ndarray,
    weights: np.ndarray,
    positives: float,
    recalls: np.ndarray,
) -> float:
    """AP of one class at one threshold; detections best first, images counted `weights` times."""
    n = len(image)
    precision = np.empty(n)
    recall = np.empty(n)
    true, false = 0.0, 0.0
    for d in range(n):
        w = weights[image[d]]
        if w and not ignored[d]:
            if hit[d]:
                true += w
            else:
                false += w
        recall[d] = true / positives
        precision[d] = true / (true + false) if true + false else 0.0
    for d in range(n - 2, -1, -1):
        precision[d] = max(precision[d], precision[d + 1])
    total, d = 0.0, 0
    for r in recalls:
        while d < n and recall[d] < r:
            d += 1
        if d < n:
            total += precision[d]
    return total / len(recalls)


class ResampledPrecision:
    """AP of one run with each image counted a given number of times.

    Args:
        matches: the run's matches.
        thresholds: which of its T IoU thresholds to average over.
    """

    def __init__(self, matches: Matches, thresholds: slice = slice(None)) -> None:
        self._truth = matches.truth
        self._by_class = []
        order = np.argsort(-matches.score, kind="stable")
        for c in range(len(matches.classes)):
            chosen = order[matches.class_id[order] == c]
            hit = np.ascontiguousarray(matches.hit[chosen, thresholds].T)
            ignored = np.ascontiguousarray(matches.ignored[chosen, thresholds].T)
            self._by_class.append((matches.image[chosen], hit, ignored))

    def __call__(self, weights: np.ndarray) -> float:
        """Mean over classes that have truth, and thresholds; NaN where no class has.

        Args:
            weights: (I,) int64, how often each image counts.
        """
        positives = weights @ self._truth
        values = [
            _average_precision(image, hit[t], ignored[t], weights, float(positives[c]), RECALLS)
            for c, (image, hit, ignored) in enumerate(self._by_class)
            if positives[c]
            for t in range(len(hit))
        ]
        return float(np.mean(values)) if values else float("nan")


@dataclass
class Difference:
    """AP of a run beside that of the first.

    Attributes:
        value: AP of the run on all images.
        base: AP of the first run.
        low: 2.5 % quantile of the difference over draws.
        high: 97.5 % quantile.
        better: share of draws in which the run is better than the first.
    """

    value: float
    base: float
    low: float
    high: float
    better: float


def compare(
    runs: Sequence[Matches],
    thresholds: slice = slice(None),
    draws: int = DRAWS,
    seed: int = 0,
    progress: ProgressBar = no_bar,
    name: str = "",
) -> list[Difference]:
    """Differences of each further run to the first, with paired bootstrap intervals.

    Args:
        runs: two or more, over the same images.
        thresholds: of IoU, to average over.
        draws: number of resamples.
        seed: of the draws.
        progress: shows the draws.
        name: what is compared, shown beside them.

    Raises:
        InputError: the runs are over different images or classes.
    """
    first = runs[0]
    for n, run in enumerate(runs[1:], start=2):
        if not np.array_equal(run.images, first.images):
            raise InputError(
                f"run {n} was evaluated on other images than run 1",
                f"{len(run.images)} and {len(first.images)} images",
                "evaluate all runs on the same ground truth",
            )
        if run.classes != first.classes or not np.array_equal(run.truth, first.truth):
            raise InputError(
                f"run {n} was evaluated on another ground truth than run 1",
                ", ".join(run.classes),
                "evaluate all runs on the same ground truth with the same protocol",
            )
    count = len(first.images)
    rng = np.random.default_rng(seed)
    every_image_once = np.ones(count, np.int64)
    precisions = [ResampledPrecision(run, thresholds) for run in runs]
    values = [precision(every_image_once) for precision in precisions]
    table = np.zeros((draws, len(runs)))
    for draw in progress(range(draws), draws, f"bootstrap {name}"):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        table[draw] = [precision(weights) for precision in precisions]
    differences = []
    for n in range(1, len(runs)):
        delta = table[:, n] - table[:, 0]
        delta = delta[~np.isnan(delta)]
        low, high = np.quantile(delta, [0.025, 0.975]) if len(delta) else (np.nan, np.nan)
        better = float(np.mean(delta > 0)) if len(delta) else float("nan")
        differences.append(Difference(values[n], values[0], float(low), float(high), better))
    return differences
