"""Hypotheses of class: an object once for each class that it may be of.

COCO's average precision takes detections of models that score every class so: one that cannot tell
a bus from a truck gives both, each with its score.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from amodal_core.classes import ClassMap, scores_of_classes
from amodal_core.frame import Instances

LEAST = 0.02  # score of a second class, from which on it is a hypothesis
_T = TypeVar("_T", bound=Instances)


def by_class(detections: _T, classes: ClassMap, least: float = LEAST) -> _T:
    """N objects as M >= N hypotheses, those of an object one after the other.

    An object's own class keeps its score; another's is less by as much as it is less probable. Two
    classes with one target are one.

    Args:
        detections: on the host; without `class_probabilities` each object has its class alone.
        classes: from theirs to those of the result.
        least: score from which on another class than its own is a hypothesis.

    Returns:
        Instances of the targets' class ids, without probabilities; objects none of whose classes
        has a target are not among them.
    """
    own = np.asarray(detections.class_ids, np.int64)
    probabilities = classes.probabilities(own, detections.class_probabilities)
    own = classes.table[own] % probabilities.shape[1]  # the last column is no target's
    scores = scores_of_classes(np.asarray(detections.scores), own, probabilities)
    judged = scores >= least
    judged[np.arange(len(own)), own] = True
    judged = judged[:, :-1]
    rows, columns = np.nonzero(judged)
    return replace(
        detections[rows],
        scores=np.minimum(scores[rows, columns], 1.0).astype(np.float32),
        class_ids=columns,
        class_probabilities=None,
    )
