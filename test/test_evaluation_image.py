"""Image-level numbers equal pycocotools and slow, obvious references."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from evaluation_data import CLASSES, HEIGHT, WIDTH, make_set, random_pair, rectangles
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from amodal_core.errors import InputError
from amodal_core.evaluation import image_level, sets
from amodal_core.evaluation.matching import curves
from amodal_core.evaluation.overlaps import overlaps
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS, Bin, legacy_size_names
from amodal_core.evaluation.run import evaluate
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks


def pycocotools_run(truth, predictions, kind, use_cats=True, truth_in=None, dt_in=None):
    """COCOeval over the same sets; bins through the area field as the published evaluations did."""

    def side(side_, inside):
        areas = side_.areas(kind) if inside is None else inside.astype(float)
        data = COCO()
        annotations = []
        for n in range(len(side_)):
            x0, y0, x1, y1 = side_.boxes[n].tolist()
            entry = {
                "id": n + 1,
                "image_id": int(side_.image_ids[n]),
                "category_id": int(side_.class_ids[n]) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(areas[n]),
                "iscrowd": int(side_.crowd[n]),
                "score": float(side_.scores[n]),
            }
            if kind != "box":
                entry["segmentation"] = side_.rle(kind)[n]
            annotations.append(entry)
        data.dataset = {
            "images": [{"id": i.id, "height": i.height, "width": i.width} for i in truth.images],
            "annotations": annotations,
            "categories": [{"id": k + 1, "name": c} for k, c in enumerate(truth.classes)],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            data.createIndex()
        return data

    run = COCOeval(
        side(truth, truth_in), side(predictions, dt_in), "bbox" if kind == "box" else "segm"
    )
    run.params.useCats = int(use_cats)
    if truth_in is not None:
        run.params.areaRng, run.params.areaRngLbl = [[0.5, 1.5]], ["all"]
    with contextlib.redirect_stdout(io.StringIO()):
        run.evaluate()
        run.accumulate()
        if truth_in is None:
            run.summarize()
    return run


@pytest.mark.parametrize("kind", ["box", "visible", "amodal"])
@pytest.mark.parametrize("seed", [0, 1])
def test_all_twelve_coco_numbers_equal_pycocotools(kind, seed):
    truth, predictions = random_pair(seed, images=150, crowd=0.08, ties=True)
    assert len(truth) > 500
    truth = truth.select(truth.areas("visible") > 0)
    scores = image_level.evaluate(truth, predictions, kind, IMAGE_PROTOCOLS["coco"])
    expected = pycocotools_run(truth, predictions, kind).stats
    names = ["AP", "AP50", "AP75", "AP small", "AP medium size", "AP large", "AR@1", "AR@10"]
    names += ["AR@100", "AR small", "AR medium size", "AR large"]
    ours = np.array([scores.values[n] for n in names])
    assert 0.05 < ours[0] < 0.95
    np.testing.assert_allclose(np.nan_to_num(ours, nan=-1.0), expected, atol=1e-9, rtol=0)


def test_class_agnostic_matching_equals_pycocotools_without_categories():
    truth, predictions = random_pair(3, images=60, crowd=0.08, ties=True)
    protocol = replace(IMAGE_PROTOCOLS["coco"], class_agnostic=True)
    ours = image_level.evaluate(truth, predictions, "amodal", protocol)
    expected = pycocotools_run(truth, predictions, "amodal", use_cats=False).stats
    assert ours.values["AP"] == pytest.approx(expected[0], abs=1e-9)
    assert ours.per_class == {}


def test_tied_scores_without_classes_keep_the_order_of_the_classes():
    """The better of two tied detections comes first by class, whatever the order of the file."""
    mask, off = rectangles([(0, 0, 20, 20)]), rectangles([(40, 0, 20, 20)])
    truth = make_set([(1, 0, 1, mask)])
    predictions = make_set([(1, 2, 1, off, 0.5), (1, 1, 2, mask, 0.5), (1, 3, 3, off, 0.5)],
                           classes=(*CLASSES, "tram"))  # fmt: skip
    protocol = replace(IMAGE_PROTOCOLS["coco"], class_agnostic=True)
    values = evaluate(truth, predictions, protocol, "image", ["amodal"]).scores["amodal"].values
    assert values["AP50"] == pytest.approx(1.0)


def test_a_rate_at_the_bound_of_a_bin_stays_there_though_tracks_hold_float32():
    """3 of 20 columns are hidden: .15; what float32 makes of it is another number."""
    boxes = (0, 0, 20, 20), (0, 0, 17, 20)
    amodal, visible = (RleMasks.from_dense(rectangles([b])[None]) for b in boxes)
    tracks = replace(
        Tracks.empty((HEIGHT, WIDTH)), amodal=amodal, visible=visible, ids=np.zeros(1, np.int64),
        amodal_boxes=amodal.boxes(), visible_boxes=visible.boxes(), depths=np.ones(1, np.float32),
        scores=np.ones(1, np.float32), class_ids=np.zeros(1, np.int64), ages=np.ones(1, np.int64),
        occlusion_rates=np.full(1, 0.15, np.float32), occluders=np.zeros((1, 1), bool),
        coasted=np.zeros(1, bool),
    )  # fmt: skip
    record = sets.ImageRecord(1, HEIGHT, WIDTH)
    assert sets.from_tracks([(record, tracks)], CLASSES).occlusion_rates == [1 - 17 / 20]
    annotated = replace(tracks, occlusion_rates=np.full(1, 0.5, np.float32))  # by an annotator
    assert sets.from_tracks([(record, annotated)], CLASSES).occlusion_rates == [0.5]


def reference_average_precision(truth, predictions, inside, counted, thresholds):
    """COCO's AP written from its definition, one loop after the other.

    Detections of a class and image, best first, take the free annotation of largest IoU at or above
    the threshold; annotations outside the bin are taken only when no other is left, and hide the
    detection that took them; unmatched detections count where `counted` is set. The precision at
    each of 101 recalls is the largest precision at that recall or above.
    """
    values = []
    for k in np.unique(truth.class_ids[inside & ~truth.crowd]):
        for threshold in thresholds:
            rows = []
            for image in truth.images:
                a = np.flatnonzero((truth.image_ids == image.id) & (truth.class_ids == k))
                b = np.flatnonzero(
                    (predictions.image_ids == image.id) & (predictions.class_ids == k)
                )
                b = b[np.argsort(-predictions.scores[b], kind="stable")][:100]
                free = {int(i) for i in a}
                for d in b:
                    best, best_iou = None, min(threshold, 1 - 1e-10)
                    for wanted in (True, False):
                        for i in a:
                            hidden = not inside[i] or truth.crowd[i]
                            if int(i) not in free or hidden == wanted:
                                continue
                            iou = coco.iou(
                                [predictions.rle("amodal")[d]],
                                [truth.rle("amodal")[i]],
                                [int(truth.crowd[i])],
                            )[0, 0]
                            if iou >= best_iou:
                                best, best_iou = int(i), iou
                        if best is not None:
                            break
                    if best is not None:
                        if not truth.crowd[best]:
                            free.discard(best)
                        if inside[best] and not truth.crowd[best]:
                            rows.append((predictions.scores[d], True))
                    elif counted[d]:
                        rows.append((predictions.scores[d], False))
            rows.sort(key=lambda r: -r[0])
            total = int((inside & ~truth.crowd & (truth.class_ids == k)).sum())
            tp = np.cumsum([r[1] for r in rows]) if rows else np.zeros(0)
            recall = tp / total
            precision = tp / np.arange(1, len(rows) + 1)
            levels = np.linspace(0, 1, 101)
            values.append(np.mean([max(precision[recall >= r], default=0.0) for r in levels]))
    return float(np.mean(values))


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.25), (0.25, 0.75), (0.15, 1.0)])
@pytest.mark.parametrize("own", [False, True])
def test_occlusion_bins_equal_an_obvious_reference(low, high, own):
    truth, predictions = random_pair(5, images=25, crowd=0.1)
    sides = image_level.subjects(truth, predictions, "amodal")
    selects = Bin(occlusion=(low, high), own_occlusion=own)
    matcher = sides.matcher(IMAGE_PROTOCOLS["default"])
    ours = curves(matcher.run(*sides.flags(selects))).average_precision(iou=0.5)
    inside = (truth.occlusion_rates >= low) & (truth.occlusion_rates <= high)
    rates = predictions.occlusion_rates
    counted = (rates >= low) & (rates <= high) if own else np.ones(len(predictions), bool)
    assert ours == pytest.approx(
        reference_average_precision(truth, predictions, inside, counted, [0.5]), abs=1e-9
    )


def test_one_hit_and_one_better_scored_miss_give_half():
    """One annotation; a false detection scores .9, the true one .8.

    At every recall up to 1 the best precision is 1 of 2, so AP = AP50 = 0.5.
    """
    truth = make_set([(1, 0, 1, rectangles([(10, 10, 20, 20)]), 1.0)])
    predictions = make_set(
        [
            (1, 0, 1, rectangles([(40, 30, 10, 10)]), 0.9),
            (1, 0, 2, rectangles([(10, 10, 20, 20)]), 0.8),
        ]
    )
    scores = image_level.evaluate(truth, predictions, "amodal", IMAGE_PROTOCOLS["default"])
    assert scores.values["AP50"] == pytest.approx(0.5)
    assert scores.values["AP"] == pytest.approx(0.5)


def test_a_detection_on_an_object_outside_the_bin_is_not_a_false_positive():
    """Two annotations, occlusion 0 and .6, both found; in either bin AP is 1."""
    masks = rectangles([(5, 5, 20, 20)]), rectangles([(40, 5, 20, 20)])
    truth = make_set([(1, 0, 1, masks[0], 1.0, 0.0), (1, 0, 2, masks[1], 1.0, 0.6)])
    predictions = make_set([(1, 0, 1, masks[0], 0.9, 0.0), (1, 0, 2, masks[1], 0.8, 0.6)])
    values = image_level.evaluate(truth, predictions, "amodal", IMAGE_PROTOCOLS["default"]).values
    assert values["AP partial"] == pytest.approx(1.0)
    assert values["AP heavy"] == pytest.approx(1.0)
    assert np.isnan(values["AP medium"])


def test_an_area_at_the_bound_of_two_sizes_is_in_both():
    """An object of 32 x 32 pixels, and one elsewhere that is drawn 32 x 32 and is not there.

    The invented one counts as false positive in both sizes: its area lies on the bound, too.
    """
    mask, invented = rectangles([(0, 0, 32, 32)]), rectangles([(40, 20, 32, 32)])
    truth = make_set([(1, 0, 1, mask)])
    predictions = make_set([(1, 0, 1, mask, 0.8), (1, 0, 2, invented, 0.9)])
    scores = image_level.evaluate(truth, predictions, "amodal", IMAGE_PROTOCOLS["coco"])
    assert scores.values["AP small"] == scores.values["AP medium size"] == pytest.approx(0.5)
    assert (scores.counts["AP small"], scores.counts["AP medium size"]) == (1, 1)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 10, 10), 1.0),
        ((9.5, 0, 19.5, 10), 5 / 195),  # half a pixel in common
        ((10, 0, 20, 10), 0.0),  # side by side
        ((12, 0, 22, 10), 0.0),
        ((0, 12, 10, 22), 0.0),
        ((20, 20, 30, 30), 0.0),  # apart in both directions
        ((0, 10, 10, 20), 0.0),
    ],
)
def test_boxes_that_do_not_meet_have_no_overlap(box, expected):
    first = np.array([[0.0, 0, 10, 10]])
    order = np.zeros(1, np.int64), np.array([0, 1])
    ious = overlaps(first, np.array([box], np.float64), order, order).ious
    assert ious == pytest.approx([expected])
    for empty in np.array([[[3.0, 0, 3, 9]], [[0.0, 3, 9, 3]]]):
        assert overlaps(empty, empty, order, order).ious == [0.0]


def test_legacy_names_are_the_vrsp_numbers_under_the_size_names():
    truth, predictions = random_pair(7, images=30)
    plain = image_level.evaluate(truth, predictions, "amodal", IMAGE_PROTOCOLS["vrsp"]).values
    legacy = image_level.evaluate(
        truth, predictions, "amodal", legacy_size_names(IMAGE_PROTOCOLS["vrsp"])
    ).values
    assert list(plain.values()) == list(legacy.values())
    assert "APs (occlusion >0.15)" in legacy
    with pytest.raises(InputError, match="vrsp"):
        legacy_size_names(IMAGE_PROTOCOLS["coco"])


def test_no_predictions_give_zero_and_say_so():
    truth, _ = random_pair(1, images=5)
    none = sets.empty_set(truth.images, truth.classes)
    scores = image_level.evaluate(truth, none, "amodal", IMAGE_PROTOCOLS["default"])
    assert scores.values["AP"] == 0.0
    assert "no predictions" in scores.warnings[0]


def test_an_empty_ground_truth_is_an_error_not_a_silent_zero():
    _, predictions = random_pair(1, images=5)
    with pytest.raises(InputError, match="no annotation"):
        sets.aligned(sets.empty_set(predictions.images, CLASSES), predictions)


def test_classes_that_the_truth_does_not_have_are_an_error():
    truth, predictions = random_pair(1, images=5)
    other = replace(predictions, classes=("tram", *predictions.classes[1:]))
    with pytest.raises(InputError, match="tram"):
        sets.aligned(truth, other)
    assert len(sets.aligned(truth, other, class_agnostic=True)) == len(other)


def test_class_ids_are_brought_into_the_order_of_the_truth_by_name():
    truth, predictions = random_pair(2, images=20)
    k = len(predictions.classes)
    turned = replace(
        predictions, classes=predictions.classes[::-1], class_ids=k - 1 - predictions.class_ids
    )
    np.testing.assert_array_equal(
        sets.aligned(truth, turned).class_ids, sets.aligned(truth, predictions).class_ids
    )


def test_unknown_images_and_other_sizes_are_errors():
    truth, predictions = random_pair(1, images=5)
    with pytest.raises(InputError, match="image ids are not in the ground truth"):
        sets.aligned(truth, replace(predictions, image_ids=predictions.image_ids + 900))
    images = [i._replace(width=i.width + 1) for i in predictions.images]
    with pytest.raises(InputError, match="masks of image"):
        sets.aligned(truth, replace(predictions, images=images))


def test_missing_masks_are_named():
    truth, predictions = random_pair(1, images=5)
    blind = replace(predictions, visible=[None] * len(predictions))
    with pytest.raises(InputError, match="no visible mask"):
        image_level.evaluate(truth, blind, "visible", IMAGE_PROTOCOLS["coco"])
