"""Video, tracking, occluded IoU, identity, order, depth and panoptic numbers against references."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from evaluation_data import CLASSES, HEIGHT, WIDTH, make_set, random_pair, rectangles
from pycocotools import mask as coco

from amodal_core.errors import InputError
from amodal_core.evaluation import (
    assignment,
    identity,
    occluded_iou,
    order_and_depth,
    panoptic,
    tracking,
    video_level,
)
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS, VIDEO_PROTOCOLS
from amodal_core.evaluation.run import evaluate
from amodal_core.evaluation.sets import ImageRecord


def dense(side, kind):
    return [coco.decode(m).astype(bool) for m in side.rle(kind)]


def slow_video_ap(truth, predictions, kind, thresholds, bins=None, areas=None, most=None):
    """Video AP from its definition, with whole frames as arrays and one loop after the other."""
    records = {i.id: i for i in truth.images}

    def tracks(side):
        rows = defaultdict(dict)
        for n, mask in enumerate(dense(side, kind)):
            record = records[int(side.image_ids[n])]
            if mask.any():
                rows[record.video, int(side.instance_ids[n])][record.frame] = (n, mask)
        return rows

    def about(side, frames):
        members = [n for n, _ in frames.values()]
        rates = sorted((side.occlusion_rates[n] for n in members), reverse=True)
        return (
            np.bincount(side.class_ids[members]).argmax(),
            np.mean([m.sum() for _, m in frames.values()]),
            np.mean(rates[: ceil(len(rates) / 2)]),
            np.mean([side.scores[n] for n in members]),
        )

    def iou(a, b):
        inter = union = 0
        for t in set(a) | set(b):
            one = a[t][1] if t in a else np.zeros((HEIGHT, WIDTH), bool)
            two = b[t][1] if t in b else np.zeros((HEIGHT, WIDTH), bool)
            inter += (one & two).sum()
            union += (one | two).sum()
        return inter / union

    mine, theirs = tracks(truth), tracks(predictions)
    facts = {k: about(truth, v) for k, v in mine.items()}
    predicted = {k: about(predictions, v) for k, v in theirs.items()}
    table = {(d, g): iou(theirs[d], mine[g]) for d in theirs for g in mine if d[0] == g[0]}

    def inside(g):
        _, area, rate, _ = facts[g]
        return (bins is None or bins[0] <= rate <= bins[1]) and (
            areas is None or areas[0] <= area <= areas[1]
        )

    values = []
    for k in range(len(CLASSES)):
        wanted = [g for g in mine if facts[g][0] == k]
        total = sum(inside(g) for g in wanted)
        if not total:
            continue
        for threshold in thresholds:
            rows, free = [], set(wanted)
            for d in sorted(
                (d for d in theirs if predicted[d][0] == k), key=lambda d: -predicted[d][3]
            ):
                for kept in (True, False):
                    candidates = [
                        g
                        for g in wanted
                        if g in free
                        and g[0] == d[0]
                        and inside(g) == kept
                        and table[d, g] >= min(threshold, 1 - 1e-10)
                    ]
                    if candidates:
                        break
                if candidates:
                    best = max(candidates, key=lambda g: table[d, g])
                    free.discard(best)
                    if kept:
                        rows.append(True)
                elif areas is None or areas[0] <= predicted[d][1] <= areas[1]:
                    rows.append(False)
            tp = np.cumsum(rows) if rows else np.zeros(0)
            precision, recall = tp / np.arange(1, len(rows) + 1), tp / total
            values.append(
                np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)])
            )
    return float(np.mean(values)) if values else float("nan")


THRESHOLDS = np.linspace(0.5, 0.95, 10)


@pytest.mark.parametrize("kind", ["visible", "amodal"])
def test_video_ap_and_its_bins_equal_an_obvious_reference(kind):
    truth, predictions = random_pair(11, images=40, videos=4)
    values = video_level.evaluate(truth, predictions, kind, VIDEO_PROTOCOLS["default"]).values
    assert values["vAP"] == pytest.approx(
        slow_video_ap(truth, predictions, kind, THRESHOLDS), abs=1e-9
    )
    assert 0 < values["vAP50"] < 1
    for name, bins in (
        ("partial", (0, 0.25)),
        ("medium", (0.25, 0.5)),
        ("heavy", (0.5, 1.0)),
    ):
        expected = slow_video_ap(truth, predictions, kind, [0.5], bins=bins)
        assert values[f"vAP50 {name}"] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    for name, areas in (("small", (0, 1024)), ("medium size", (1024, 9216))):
        expected = slow_video_ap(truth, predictions, kind, [0.5], areas=areas)
        assert values[f"vAP50 {name}"] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_both_published_size_thresholds_are_named():
    """A track of 2000 pixels is medium for VATrack (32^2) and small for YouTube-VIS (128^2)."""
    mask = rectangles([(5, 5, 40, 50)])
    truth = make_set([(1, 0, 1, mask)])
    for name, size in (("default", "medium size"), ("youtube-vis", "small")):
        values = video_level.evaluate(truth, truth, "amodal", VIDEO_PROTOCOLS[name]).values
        assert values[f"vAP50 {size}"] == pytest.approx(1.0)
        assert np.isnan(values["vAP50 large"])


def test_spatio_temporal_iou_adds_what_is_in_one_side_only():
    """Truth in frames 1 and 2 with 400 pixels each; found in frame 1 only: IoU 400 / 800 = .5.

    AP50 is 1 at the inclusive threshold .5 and 0 at every other, so vAP = .1.
    """
    mask = rectangles([(10, 10, 20, 20)])
    truth = make_set([(1, 0, 1, mask), (2, 0, 1, mask)])
    predictions = replace(make_set([(1, 0, 7, mask)]), images=truth.images)
    values = video_level.evaluate(truth, predictions, "amodal", VIDEO_PROTOCOLS["default"]).values
    assert values["vAP50"] == pytest.approx(1.0)
    assert values["vAP"] == pytest.approx(0.1)


def test_the_best_spatio_temporal_iou_is_of_a_track_of_the_same_class():
    """Two frames. Found in one of them: 400 / 800; a perfect track of another class counts not.

    The second object has no track at all: 0.
    """
    one, two = rectangles([(10, 10, 20, 20)]), rectangles([(50, 10, 20, 20)])
    truth = make_set([(1, 0, 1, one), (2, 0, 1, one), (1, 1, 2, two)])
    predictions = replace(
        make_set([(1, 0, 7, one), (1, 2, 8, one), (2, 2, 8, one)]), images=truth.images
    )
    scores = video_level.evaluate(truth, predictions, "amodal", VIDEO_PROTOCOLS["default"])
    assert scores.best_ious is not None
    assert sorted(scores.best_ious.tolist()) == [0.0, 0.5]


def test_a_mask_that_ends_with_its_frame_and_begins_with_the_next_stays_right():
    """Runs of neighbouring frames touch when both frames are fully covered."""
    full = np.ones((HEIGHT, WIDTH), bool)
    truth = make_set([(1, 0, 1, full), (2, 0, 1, full)])
    values = video_level.evaluate(truth, truth, "amodal", VIDEO_PROTOCOLS["default"]).values
    assert values["vAP"] == pytest.approx(1.0)
    # Two tracks: the second begins where the first ends.
    apart = make_set([(1, 0, 1, full), (2, 0, 2, full)])
    scores = video_level.evaluate(apart, truth, "amodal", VIDEO_PROTOCOLS["default"])
    assert scores.best_ious is not None
    assert scores.best_ious.tolist() == [0.5, 0.5]
    masks = video_level.subjects(apart, truth, "amodal").truth.shapes
    assert masks.runs.tolist() == [[0, HEIGHT * WIDTH], [HEIGHT * WIDTH, 2 * HEIGHT * WIDTH]]
    assert masks.first.tolist() == [0, 1, 2]


def test_videos_without_ids_or_with_changing_sizes_are_refused():
    truth, predictions = random_pair(2, images=4)
    with pytest.raises(InputError, match="no instance id"):
        video_level.evaluate(
            truth,
            replace(predictions, instance_ids=np.full(len(predictions), -1)),
            "amodal",
            VIDEO_PROTOCOLS["default"],
        )
    images = [*truth.images[:-1], truth.images[-1]._replace(width=WIDTH + 1)]
    with pytest.raises(InputError, match="one size"):
        video_level.subjects(replace(truth, images=images), predictions, "amodal")


def slow_tracking_input(truth, predictions, k):
    """TrackEval's input for one class and the only video, written out plainly."""
    mine, theirs = dense(truth, "amodal"), dense(predictions, "amodal")
    ids = sorted({int(i) for i in truth.instance_ids[truth.class_ids == k]})
    predicted = sorted({int(i) for i in predictions.instance_ids[predictions.class_ids == k]})
    data = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for image in sorted(truth.images, key=lambda i: i.frame):
        a = [n for n in range(len(truth)) if truth.image_ids[n] == image.id]
        a = [n for n in a if truth.class_ids[n] == k]
        b = [n for n in range(len(predictions)) if predictions.image_ids[n] == image.id]
        b = [n for n in b if predictions.class_ids[n] == k]
        data["gt_ids"].append(np.array([ids.index(truth.instance_ids[n]) for n in a], int))
        data["tracker_ids"].append(
            np.array([predicted.index(predictions.instance_ids[n]) for n in b], int)
        )
        table = np.zeros((len(a), len(b)))
        for r, i in enumerate(a):
            for c, j in enumerate(b):
                table[r, c] = (mine[i] & theirs[j]).sum() / (mine[i] | theirs[j]).sum()
        data["similarity_scores"].append(table)
    return data | {
        "num_timesteps": len(data["gt_ids"]),
        "num_gt_ids": len(ids),
        "num_tracker_ids": len(predicted),
        "num_gt_dets": sum(map(len, data["gt_ids"])),
        "num_tracker_dets": sum(map(len, data["tracker_ids"])),
    }


def test_hota_and_idf1_equal_trackeval():
    metrics = pytest.importorskip("trackeval.metrics")
    truth, predictions = random_pair(13, images=25, objects=10)
    ours = tracking.evaluate(truth, predictions, "amodal")
    quiet = {"PRINT_CONFIG": False, "THRESHOLD": 0.5}
    for k, name in enumerate(CLASSES):
        data = slow_tracking_input(truth, predictions, k)
        hota = metrics.HOTA().eval_sequence(data)
        assert ours[name]["HOTA"] == pytest.approx(np.mean(hota["HOTA"]), abs=1e-12)
        assert ours[name]["AssA"] == pytest.approx(np.mean(hota["AssA"]), abs=1e-12)
        identities = metrics.Identity(quiet).eval_sequence(data)
        assert ours[name]["IDF1"] == pytest.approx(identities["IDF1"], abs=1e-12)
        clear = metrics.CLEAR(quiet).eval_sequence(data)
        assert ours[name]["MOTA"] == pytest.approx(clear["MOTA"], abs=1e-12)
    assert ours["all"]["HOTA"] == pytest.approx(np.mean([ours[c]["HOTA"] for c in CLASSES]))


def test_predictions_on_crowds_are_no_false_positives():
    pytest.importorskip("trackeval")
    one, two = rectangles([(5, 5, 20, 20)]), rectangles([(40, 5, 20, 20)])
    truth = make_set([(1, 0, 1, one), (1, 0, 2, two)])
    truth.crowd[1] = True
    assert tracking.evaluate(truth, make_set([(1, 0, 1, one), (1, 0, 2, two)]))["all"]["MOTA"] == 1


def test_a_prediction_that_is_paired_stays_though_it_lies_on_a_crowd_too():
    pytest.importorskip("trackeval")
    one = rectangles([(5, 5, 20, 20)])
    truth = make_set([(1, 0, 1, one), (1, 0, 2, one)])
    truth.crowd[1] = True
    values = tracking.evaluate(truth, make_set([(1, 0, 1, one)]))["all"]
    assert values["MOTA"] == values["IDF1"] == pytest.approx(1.0)


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


def test_an_identity_twice_in_an_image_is_named():
    mask, other = rectangles([(0, 0, 20, 20)]), rectangles([(40, 0, 20, 20)])
    once = make_set([(3, 0, 5, mask), (3, 0, 6, other)])
    twice = make_set([(3, 0, 5, mask), (3, 0, 5, other)])
    for truth, predictions, where in ((once, twice, "results"), (twice, once, "ground truth")):
        with pytest.raises(InputError, match="identity 5 stands 2 times in image 3") as caught:
            evaluate(truth, predictions, VIDEO_PROTOCOLS["default"], "video", where="results")
        assert caught.value.where == where
    nameless = make_set([(3, 0, -1, mask), (3, 0, -1, other)])
    evaluate(once, nameless, IMAGE_PROTOCOLS["default"], "image")


def test_a_track_on_a_crowd_is_ignored_from_an_iou_of_one_half_as_for_any_track():
    """YouTube-VIS: a track that lies within a larger crowd is a false positive, unlike COCO's."""
    crowd, part = rectangles([(0, 0, 40, 20)]), rectangles([(0, 0, 19, 20)])
    one = rectangles([(50, 0, 20, 20)])
    truth = make_set([(1, 0, 1, crowd), (1, 0, 2, one)])
    truth.crowd[0] = True
    for mask, expected in ((part, 0.5), (rectangles([(0, 0, 20, 20)]), 1.0)):
        predicted = make_set([(1, 0, 7, mask, 0.9), (1, 0, 8, one, 0.8)])
        scores = video_level.evaluate(truth, predicted, "amodal", VIDEO_PROTOCOLS["default"])
        assert scores.values["vAP50"] == pytest.approx(expected)


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


def hidden_walk(back_id, hidden_frames=3, carried=True):
    """An object visible in frames 0-1, hidden `hidden_frames`, visible in two more."""
    images = [ImageRecord(t + 1, HEIGHT, WIDTH, str(t), "v", t) for t in range(4 + hidden_frames)]
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    true, predicted = [], []
    for t in range(4 + hidden_frames):
        mask = rectangles([(2 + 4 * t, 10, 20, 20)])
        away = 2 <= t < 2 + hidden_frames
        true.append((t + 1, 0, 5, mask, 1.0, None, nothing if away else mask))
        if not away or carried:
            predicted.append((t + 1, 0, 9 if t < 2 + hidden_frames else back_id, mask))
    return make_set(true, images), make_set(predicted, images)


def test_identity_kept_counts_reappearances_by_length():
    same = identity.evaluate(*hidden_walk(9, hidden_frames=3))
    assert (same.reappearances, same.kept, same.carried) == (1, 1.0, 1.0)
    assert same.by_length["1-5 frames"] == (1, 1.0)
    other = identity.evaluate(*hidden_walk(10, hidden_frames=8, carried=False))
    assert (other.kept, other.switched, other.lost, other.carried) == (0.0, 1.0, 0.0, 0.0)
    assert other.by_length["6-10 frames"] == (1, 0.0)
    assert other.occlusions[0].frames == 8


def walk(states):
    """An object over frames: None where it is not in the image, else (is it visible, its id)."""
    images = [ImageRecord(t + 1, HEIGHT, WIDTH, str(t), "v", t) for t in range(len(states))]
    mask = rectangles([(5, 5, 20, 20)])
    nothing = np.zeros_like(mask)
    true, predicted = [], []
    for t, state in enumerate(states, start=1):
        if state is not None:
            true.append((t, 0, 5, mask, 1.0, None, mask if state[0] else nothing))
            if state[1] is not None:
                predicted.append((t, 0, state[1], mask))
    return make_set(true, images), make_set(predicted, images)


IN_VIEW, UNTRACKED, HIDDEN, AWAY = (True, 9), (True, None), (False, None), None


@pytest.mark.parametrize(
    ("states", "occlusions"),
    [
        # Leaving the image is no occlusion, and ends what was known of the id.
        ([IN_VIEW, AWAY, IN_VIEW], []),
        ([IN_VIEW, AWAY, UNTRACKED, HIDDEN, IN_VIEW], [(-1, 9)]),
        # An object that is not found between two occlusions is not tracked before the second.
        ([IN_VIEW, HIDDEN, UNTRACKED, HIDDEN, IN_VIEW], [(9, -1), (-1, 9)]),
        # The id before is the last one, the id after the first one.
        ([(True, 8), IN_VIEW, UNTRACKED, HIDDEN, UNTRACKED, (True, 7), IN_VIEW], [(9, 7)]),
        # A frame of the gap outside of the image leaves it an occlusion.
        ([IN_VIEW, HIDDEN, AWAY, HIDDEN, IN_VIEW], [(9, 9)]),
        # An id found only after the next occlusion is not the id after the first.
        ([IN_VIEW, HIDDEN, UNTRACKED, AWAY, IN_VIEW], [(9, -1)]),
        # Nothing is tracked before the first id.
        ([UNTRACKED, HIDDEN, IN_VIEW], [(-1, 9)]),
        # An occlusion at the end of the video has no reappearance.
        ([IN_VIEW, HIDDEN, HIDDEN], []),
    ],
)
def test_the_id_before_an_occlusion_and_the_id_after_it(states, occlusions):
    kept = identity.evaluate(*walk(states))
    assert [(o.before, o.after) for o in kept.occlusions] == occlusions
    tracked = [o for o in occlusions if o[0] >= 0]
    assert (kept.reappearances, kept.untracked) == (len(tracked), len(occlusions) - len(tracked))


def test_an_id_is_carried_where_its_mask_covers_half_of_the_union_in_a_hidden_frame():
    """Of four hidden frames: on the place, IoU exactly 1/2, below 1/2, and another id's mask."""
    images = [ImageRecord(t + 1, HEIGHT, WIDTH, str(t), "v", t) for t in range(6)]
    mask = rectangles([(0, 0, 20, 20)])
    nothing = np.zeros_like(mask)
    true = [(t, 0, 5, mask, 1.0, None, mask if t in (1, 6) else nothing) for t in range(1, 7)]
    half, less = rectangles([(0, 0, 20, 10)]), rectangles([(0, 0, 20, 9)])
    predicted = [(t, 0, 9, m) for t, m in enumerate((mask, mask, half, less), 1)]
    predicted += [(5, 0, 8, mask), (6, 0, 9, mask)]
    kept = identity.evaluate(make_set(true, images), make_set(predicted, images))
    assert kept.occlusions[0].carried == 0.5


def test_shares_of_kept_switched_and_lost_are_of_the_reappearances():
    """Three occlusions: 9 comes back as 7, 7 as 7, and then nothing is found."""
    other = True, 7
    kept = identity.evaluate(*walk([IN_VIEW, HIDDEN, other, HIDDEN, other, HIDDEN, UNTRACKED]))
    assert kept.reappearances == 3
    assert kept.kept == kept.switched == kept.lost == pytest.approx(1 / 3)


def test_an_object_that_is_never_seen_has_no_identity_to_keep():
    amodal = rectangles([(5, 5, 20, 20)])
    nothing = np.zeros_like(amodal)
    truth = make_set([(k, 0, 1, amodal, 1.0, None, nothing) for k in (1, 2, 3)])
    kept = identity.evaluate(truth, truth)
    assert (kept.reappearances, kept.untracked) == (0, 0)


def test_leaving_the_image_is_no_occlusion():
    truth, predictions = hidden_walk(9)
    out = truth.select(truth.areas("visible") > 0)
    assert identity.evaluate(out, predictions).reappearances == 0


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


def test_panoptic_quality_of_a_case_worked_by_hand():
    """Two cars: one in full view found exactly, one half hidden; a third, invented prediction.

    Car 2 is 20x20 with 10x20 visible; predicted 20x20 with 10x20 visible but moved down 10 px:
    visible IoU 100 / 300 = 1/3, hidden IoU 1/3.
    Visible: IoU 1 + 1/3 over 2 TP + 1 FP = 4/9. Hidden: 1/3 over 1 TP = 1/3.
    APQ = (4/3 + 1/3) / (3 + 1) = 5/12.
    APC = (400 + 200/3 + 200/3) / (400 + 200 + 200) = 2/3.
    """
    near = rectangles([(0, 0, 20, 20)])
    far, far_visible = rectangles([(40, 0, 20, 20)]), rectangles([(40, 0, 10, 20)])
    off, off_visible = rectangles([(40, 10, 20, 20)]), rectangles([(40, 10, 10, 20)])
    truth = make_set([(1, 0, 1, near), (1, 0, 2, far, 1.0, None, far_visible)])
    predicted = make_set(
        [
            (1, 0, 1, near),
            (1, 0, 2, off, 1.0, None, off_visible),
            (1, 0, 3, rectangles([(0, 40, 10, 10)])),
        ]
    )
    scores = panoptic.evaluate(truth, predicted)
    assert scores.apq_visible == pytest.approx(4 / 9)
    assert scores.apq_occluded == pytest.approx(1 / 3)
    assert scores.apq == pytest.approx(5 / 12)
    assert scores.apc == pytest.approx(2 / 3)
