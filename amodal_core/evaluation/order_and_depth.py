"""Are occluders named rightly, and are depths right: numbers over paired objects."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amodal_core.evaluation.sets import AnnotationSet

DEPTH_BINS = ((0.0, 10.0), (10.0, 20.0), (20.0, 40.0), (40.0, float("inf")))


@dataclass
class OcclusionOrder:
    """How well "j hides part of i" is predicted over pairs of objects that were both found.

    Attributes:
        pairs: ordered pairs of the truth, both objects found.
        correct: share of them that the prediction names in the same order.
        reversed: share named the other way round only.
        unnamed: share not named at all.
        precision: share of predicted pairs (both objects paired) that are in the truth.
        judged: share of all ordered pairs of the truth whose two objects were found.
    """

    pairs: int
    correct: float
    reversed: float
    unnamed: float
    precision: float
    judged: float


def occlusion_order(
    truth: AnnotationSet, predictions: AnnotationSet, matched: np.ndarray
) -> OcclusionOrder:
    """Accuracy of the occluders.

    Args:
        truth: with occluders.
        predictions: with occluders.
        matched: (N,) the prediction of each annotation or -1 (`assignment.assign`).
    """
    nan = float("nan")
    if truth.occluders is None or predictions.occluders is None:
        return OcclusionOrder(0, nan, nan, nan, nan, nan)
    back = {int(p): n for n, p in enumerate(matched) if p >= 0}
    true_pairs = {(i, j) for i, hides in enumerate(truth.occluders) for j in hides}
    predicted = {
        (back[i], back[j])
        for i, hides in enumerate(predictions.occluders)
        for j in hides
        if i in back and j in back
    }
    judged = {(i, j) for i, j in true_pairs if matched[i] >= 0 and matched[j] >= 0}
    n = len(judged)
    correct = len(judged & predicted)
    turned = sum((j, i) in predicted and (i, j) not in predicted for i, j in judged)
    return OcclusionOrder(
        n,
        correct / n if n else nan,
        turned / n if n else nan,
        (n - correct - turned) / n if n else nan,
        len(predicted & true_pairs) / len(predicted) if predicted else nan,
        n / len(true_pairs) if true_pairs else nan,
    )


@dataclass
class DepthError:
    """Error of instance depths along the optical axis, over paired objects that have both.

    Attributes:
        objects: objects compared.
        with_depth: share of the paired objects with true depth that have a predicted one.
        mean_absolute: metres.
        median_absolute: metres.
        rmse: metres.
        relative: mean of |error| / true depth.
        by_range: (objects, mean absolute error in metres) by range of true depth in metres.
    """

    objects: int
    with_depth: float
    mean_absolute: float
    median_absolute: float
    rmse: float
    relative: float
    by_range: dict[str, tuple[int, float]] = field(default_factory=dict)


def depth_error(
    truth: AnnotationSet, predictions: AnnotationSet, matched: np.ndarray
) -> DepthError:
    """Errors of instance depth.

    Args:
        truth: depths of 0 are unknown.
        predictions: depths of 0 are unknown.
        matched: (N,) the prediction of each annotation or -1 (`assignment.assign`).
    """
    nan = float("nan")
    comparable = (matched >= 0) & (truth.depths > 0)
    predicted = np.where(comparable, predictions.depths[matched] if len(predictions) else 0.0, 0.0)
    both = comparable & (predicted > 0)
    if not both.any():
        return DepthError(0, 0.0 if comparable.any() else nan, nan, nan, nan, nan)
    true = truth.depths[both]
    error = np.abs(predicted[both] - true)
    by_range = {}
    for low, high in DEPTH_BINS:
        inside = (true >= low) & (true < high)
        name = f"{low:g}-{high:g} m" if np.isfinite(high) else f">{low:g} m"
        by_range[name] = (int(inside.sum()), float(error[inside].mean()) if inside.any() else nan)
    return DepthError(
        int(both.sum()),
        float(both.sum() / comparable.sum()),
        float(error.mean()),
        float(np.median(error)),
        float(np.sqrt(np.mean(error**2))),
        float(np.mean(error / true)),
        by_range,
    )
