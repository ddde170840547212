"""What may be of several classes is judged once for each."""

from __future__ import annotations

import numpy as np
import pytest

from amodal_core.classes import ClassMap
from amodal_core.evaluation.hypotheses import by_class
from amodal_core.frame import Instances
from amodal_core.masks.mask_set import RleMasks

CLASSES = ("car", "truck", "bus")
SAME = ClassMap.exact(CLASSES, CLASSES)


def objects(class_ids, scores, probabilities):
    n = len(class_ids)
    masks = RleMasks.from_boxes(
        np.array([[k, 0, k + 2, 2] for k in range(n)]).reshape(n, 4), (4, 9)
    )
    return Instances(
        size=(4, 9),
        amodal_boxes=masks.boxes(),
        visible_boxes=masks.boxes(),
        scores=np.array(scores, np.float32),
        class_ids=np.array(class_ids, np.int64),
        amodal=masks,
        visible=masks,
        occlusion_rates=np.zeros(n, np.float32),
        depths=np.ones(n, np.float32),
        occluders=np.zeros((n, n), bool),
        class_probabilities=None if probabilities is None else np.array(probabilities, np.float32),
    )


def said(detections):
    """(left edge of the object, class, score) of each hypothesis."""
    left = np.asarray(detections.amodal_boxes)[:, 0].astype(int).tolist()
    scores = np.round(detections.scores.astype(float), 4).tolist()
    return list(zip(left, detections.class_ids.tolist(), scores, strict=True))


def test_an_object_is_a_hypothesis_of_each_class_with_a_score_as_much_less_as_it_is_less_likely():
    both = objects([1, 0], [0.8, 0.5], [[0.0, 0.6, 0.4], [0.99, 0.0, 0.01]])
    assert said(by_class(both, SAME, least=0.02)) == [(0, 1, 0.8), (0, 2, 0.5333), (1, 0, 0.5)]


def test_the_likeliest_class_counts_however_low_it_scores():
    assert said(by_class(objects([0], [0.001], [[0.5, 0.3, 0.2]]), SAME)) == [(0, 0, 0.001)]


def test_without_probabilities_each_object_is_of_its_class_alone():
    assert said(by_class(objects([2, 0], [0.8, 0.5], None), SAME)) == [(0, 2, 0.8), (1, 0, 0.5)]


def test_classes_that_are_one_elsewhere_are_one_hypothesis():
    merged = ClassMap.renaming(CLASSES, {"bus": "truck"})
    one = objects([0], [0.4], [[0.4, 0.3, 0.3]])
    assert merged.targets == ("car", "truck")
    assert said(by_class(one, merged)) == [(0, 0, 0.4), (0, 1, 0.6)]


def test_what_has_no_class_elsewhere_is_left_out_unless_it_may_be_another():
    elsewhere = ClassMap.exact(CLASSES, ("car", "bus"))
    sure = objects([1, 1], [0.8, 0.8], [[0, 1, 0], [0, 0.5, 0.5]])
    assert said(by_class(sure, elsewhere)) == [(1, 1, 0.8)]


@pytest.mark.parametrize("probabilities", [None, np.zeros((0, 3))])
def test_nothing_stays_nothing(probabilities):
    assert len(by_class(objects([], [], probabilities), SAME)) == 0
