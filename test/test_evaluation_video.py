"""Video, tracking and panoptic numbers against references."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from evaluation_data import CLASSES, HEIGHT, WIDTH, dense, make_set, random_pair, rectangles

from amodal_core.errors import InputError
from amodal_core.evaluation import panoptic, tracking, video_level
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS, VIDEO_PROTOCOLS
from amodal_core.evaluation.run import evaluate


def slow_video_ap(truth, predictions, kind, thresholds, bins=None, areas=None):
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
