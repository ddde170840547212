"""What hides what, how far it is and what is hidden: order, depth, hidden parts, occluded IoU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluation_data import dense, make_set, random_pair, rectangles

from amodal_core.evaluation import assignment, occluded_iou, order_and_depth, panoptic


def test_occluded_iou_without_empty_parts_equals_an_obvious_reference():
    truth, predictions = random_pair(17, images=25, videos=3)
    ours = occluded_iou.evaluate(truth, predictions, occluded_iou.PROTOCOLS["skip-empty"])
    amodal, visible = dense(truth, "amodal"), dense(truth, "visible")
    predicted = dense(predictions, "amodal")
    matched = assignment.assign(truth, predictions, "visible", 0.5, class_agnostic=True)
    full, hidden = [], []
    for n in range(len(truth)):
        A, V = amodal[n], visible[n]
        P = predicted[matched[n]] if matched[n] >= 0 else np.zeros_like(A)
        full.append((P & A).sum() / (P | A).sum())
        a, p = A & ~V, P & ~V
        if a.any():
            hidden.append((a & p).sum() / (a | p).sum())
    assert ours.full == pytest.approx(np.mean(full), abs=1e-12)
    assert ours.occluded == pytest.approx(np.mean(hidden), abs=1e-12)
    assert ours.hidden == len(hidden)


def test_savos_takes_the_amodal_mask_where_another_prediction_shows():
    """The nearest prediction shows all 20 columns and completes 10; the other one shows the rest.

    Within the other's columns its amodal mask counts, which is empty there: 200 of 400 pixels.
    """
    left, right, both = (rectangles([b]) for b in ((0, 0, 10, 20), (10, 0, 10, 20), (0, 0, 20, 20)))
    truth = make_set([(1, 0, 1, both)])
    predicted = make_set([(1, 0, 1, left, 1.0, 0.0, both), (1, 0, 2, right)])
    iou = occluded_iou.evaluate(truth, predicted, occluded_iou.PROTOCOLS["savos"])
    assert (iou.full, iou.occluded) == pytest.approx((0.5, 0.0), abs=1e-6)


def test_the_two_protocols_differ_where_an_object_in_full_view_is_overdrawn():
    """One object half hidden and found exactly, one in full view drawn 10 px too wide.

    EoRaS leaves out the exact one (IoU 1) and counts 0 for the overdrawn one: mIoU_occ = 0.
    Without empty occlusions only the exact one counts: mIoU_occ = 1.
    """
    near, right = rectangles([(0, 0, 20, 20)]), rectangles([(40, 0, 20, 20)])
    half = rectangles([(0, 0, 10, 20)])
    truth = make_set([(1, 0, 1, near, 1.0, None, half), (1, 0, 2, right)])
    wide = rectangles([(40, 0, 30, 20)])
    predictions = make_set([(1, 0, 1, near, 1.0, None, half), (1, 0, 2, wide, 1.0, None, right)])
    by = {
        n: occluded_iou.evaluate(truth, predictions, occluded_iou.PROTOCOLS[n]).occluded
        for n in ("eoras", "skip-empty")
    }
    assert by == {"eoras": 0.0, "skip-empty": 1.0}


def test_occlusion_order_counts_right_turned_and_unnamed_pairs():
    masks = [rectangles([(x, 5, 12, 12)]) for x in (0, 15, 30, 45)]
    truth = make_set([(1, 0, n, m) for n, m in enumerate(masks)])
    truth.occluders = [(1,), (2,), (3,), ()]
    predicted = make_set([(1, 0, n, m) for n, m in enumerate(masks)])
    predicted.occluders = [(1,), (), (), (2,)]
    order = order_and_depth.occlusion_order(truth, predicted, assignment.assign(truth, predicted))
    assert (order.pairs, order.judged) == (3, 1.0)
    assert order.correct == order.reversed == order.unnamed == pytest.approx(1 / 3)
    assert order.precision == 0.5


def test_depth_error_is_over_objects_that_have_both_depths():
    masks = [rectangles([(x, 5, 12, 12)]) for x in (0, 15, 30)]
    truth = make_set([(1, 0, n, m) for n, m in enumerate(masks)])
    truth.depths = np.array([10.0, 30.0, 50.0])
    predicted = make_set([(1, 0, n, m) for n, m in enumerate(masks)])
    predicted.depths = np.array([11.0, 27.0, 0.0])
    error = order_and_depth.depth_error(truth, predicted, np.arange(3))
    assert (error.objects, error.with_depth) == (2, pytest.approx(2 / 3))
    assert error.mean_absolute == pytest.approx(2.0)
    assert error.relative == pytest.approx(0.1)
    assert error.by_range["20-40 m"] == (1, pytest.approx(3.0))


def test_a_depth_at_a_bound_belongs_to_the_range_that_begins_there():
    """True depths of 10, 20 and 40 m, one unknown, and one whose object is not found."""
    truth = make_set([(1, 0, n, rectangles([(15 * n, 5, 12, 12)])) for n in range(5)])
    truth.depths = np.array([10.0, 20.0, 40.0, 0.0, 9.0])
    predicted = replace(truth, depths=np.array([11.0, 22.0, 44.0, 7.0, 1.0]))
    error = order_and_depth.depth_error(truth, predicted, np.array([0, 1, 2, 3, -1]))
    assert (error.objects, error.with_depth) == (3, 1.0)
    assert [objects for objects, _ in error.by_range.values()] == [0, 1, 1, 1]
    assert list(error.by_range) == ["0-10 m", "10-20 m", "20-40 m", ">40 m"]
    assert error.mean_absolute == pytest.approx(7 / 3)


def test_a_needless_hidden_part_is_a_false_positive_of_the_hidden_column():
    """Car 1 is in full view, its prediction half hidden; car 2 is half hidden and found exactly.

    Hidden: IoU 1 of car 2 over 1 TP + 1 FP = 1/2. Visible: (1/2 + 1) over 2 TP = 3/4.
    """
    near, near_visible = rectangles([(0, 0, 20, 20)]), rectangles([(0, 0, 10, 20)])
    far, far_visible = rectangles([(40, 0, 20, 20)]), rectangles([(40, 0, 10, 20)])
    truth = make_set([(1, 0, 1, near), (1, 0, 2, far, 1.0, None, far_visible)])
    predicted = make_set(
        [(1, 0, 1, near, 1.0, None, near_visible), (1, 0, 2, far, 1.0, None, far_visible)]
    )
    scores = panoptic.evaluate(truth, predicted)
    assert scores.apq_occluded == pytest.approx(1 / 2)
    assert scores.apq_visible == pytest.approx(3 / 4)
    assert scores.apq == pytest.approx(2.5 / 4)


def test_a_missed_object_is_a_false_negative_of_both_columns():
    """Car 1 in full view is found exactly, car 2, half hidden, is missed.

    Visible: 1 over 1 TP + 1 FN. Hidden: 0 over 1 FN, for car 1 hides nothing. APQ: 1 / 3.
    """
    near, far, far_visible = (
        rectangles([b]) for b in ((0, 0, 20, 20), (40, 0, 20, 20), (40, 0, 10, 20))
    )
    truth = make_set([(1, 0, 1, near), (1, 0, 2, far, 1.0, None, far_visible)])
    scores = panoptic.evaluate(truth, make_set([(1, 0, 1, near)]))
    assert (scores.apq_visible, scores.apq_occluded) == (0.5, 0.0)
    assert scores.apq == pytest.approx(1 / 3)


def test_hidden_parts_are_covered_only_where_the_visible_ones_meet():
    """The hidden halves agree, the visible ones lie apart: nothing is covered."""
    masks = [
        rectangles([b]) for b in ((0, 0, 20, 20), (0, 0, 10, 20), (10, 0, 30, 20), (20, 0, 20, 20))
    ]
    truth = make_set([(1, 0, 1, masks[0], 1.0, None, masks[1])])
    scores = panoptic.evaluate(truth, make_set([(1, 0, 1, masks[2], 1.0, None, masks[3])]))
    assert (scores.apc, scores.apc_occluded) == (0.0, 0.0)


def test_objects_of_another_class_are_assigned_only_where_classes_do_not_count():
    mask = rectangles([(0, 0, 20, 20)])
    truth, predicted = make_set([(1, 0, 1, mask)]), make_set([(1, 1, 1, mask)])
    assert assignment.assign(truth, predicted).tolist() == [-1]
    assert assignment.assign(truth, predicted, class_agnostic=True).tolist() == [0]
