"""What may be of several classes, once for each of them, as average precision takes detections.

Detectors that score every class of every place are judged so (COCO): one that is not sure whether
it sees a bus or a truck says both, each with its score.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from amodal_core.classes import ClassMap
from amodal_core.frame import Instances

LEAST = 0.02  # score of a second class that is worth a detection
_T = TypeVar("_T", bound=Instances)


def by_class(detections: _T, classes: ClassMap, least: float = LEAST) -> _T:
    """N objects as M >= N hypotheses, those of an object one after the other.

    An object's own class keeps its score; another's is less by as much as it is less likely. What
    are one class elsewhere is one here.

    Args:
        detections: on the host; without `class_probabilities` each object has its class alone.
        classes: from theirs to those of the result.
        least: score of another class than the likeliest from which on it counts.

    Returns:
        Instances of the targets' class ids, without probabilities; objects none of whose classes
        has a target are not among them.
    """
    n, count = len(detections), len(classes.targets)
    own = np.asarray(detections.class_ids, np.int64)
    likely = np.eye(len(classes.sources))[own]
    if detections.class_probabilities is not None:
        likely = np.asarray(detections.class_probabilities, np.float64)
    theirs = likely @ np.eye(count + 1)[classes.table]  # the last column has no target
    best = theirs[np.arange(n), classes.table[own]]
    scores = np.asarray(detections.scores)[:, None] * theirs / np.maximum(best, 1e-9)[:, None]
    counts = scores >= least
    counts[np.arange(n), classes.table[own]] = True
    rows, columns = np.nonzero(counts[:, :count])
    return replace(
        detections[rows],
        scores=np.minimum(scores[rows, columns], 1.0).astype(np.float32),
        class_ids=columns,
        class_probabilities=None,
    )
