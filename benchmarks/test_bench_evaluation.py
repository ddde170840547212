"""Matching and counting of evaluation, with pycocotools beside it."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from evaluation_scale import IMAGE_PROTOCOLS, drive
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from amodal_core.evaluation import assignment, image_level, occluded_iou

IMAGES = 30


@pytest.fixture(scope="module")
def sets():
    return drive(IMAGES)


def as_coco(part, images) -> COCO:
    data = COCO()
    masks, areas = part.rle("amodal"), part.areas("amodal")
    data.dataset = {
        "images": [{"id": i.id, "height": i.height, "width": i.width} for i in images],
        "categories": [{"id": k + 1, "name": n} for k, n in enumerate(part.classes)],
        "annotations": [
            {
                "id": n + 1,
                "image_id": int(part.image_ids[n]),
                "category_id": int(part.class_ids[n]) + 1,
                "area": float(areas[n]),
                "iscrowd": 0,
                "score": float(part.scores[n]),
                "bbox": [0, 0, 1, 1],
                "segmentation": masks[n],
            }
            for n in range(len(part))
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
    return data


def test_amodal_ap_of_all_bins(benchmark, sets):
    """Thirteen numbers in eight bins."""
    truth, predictions = sets

    def run():
        truth.release()
        predictions.release()
        return image_level.evaluate(truth, predictions, "amodal", IMAGE_PROTOCOLS["default"])

    benchmark.group = f"amodal AP, {IMAGES} images"
    assert benchmark(run).values["AP"] > 0.3


def test_amodal_ap_by_pycocotools(benchmark, sets):
    """Twelve numbers in four bins."""
    truth, predictions = sets
    mine, theirs = as_coco(truth, truth.images), as_coco(predictions, truth.images)

    def run():
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(mine, theirs, "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats

    benchmark.group = f"amodal AP, {IMAGES} images"
    assert benchmark(run)[0] > 0.3


def test_pixels_of_hidden_parts(benchmark, sets):
    truth, predictions = sets
    found = assignment.image_overlaps(truth, predictions, "visible")
    benchmark.group = f"hidden parts, {IMAGES} images"
    pixels = benchmark(lambda: occluded_iou.count_pixels(truth, predictions, "visible", found))
    assert (pixels.ap > 0).any()


def test_pixels_of_hidden_parts_decoded(benchmark, sets):
    """The obvious way: masks as arrays."""
    truth, predictions = sets
    matched = assignment.assign(truth, predictions, "visible", class_agnostic=True)
    rows = [(n, p) for n, p in enumerate(matched) if p >= 0]
    amodal, visible = truth.rle("amodal"), truth.rle("visible")
    predicted = predictions.rle("amodal")

    def run():
        total = 0
        for n, p in rows:
            a, v, g = (coco.decode(m).astype(bool) for m in (amodal[n], visible[n], predicted[p]))
            total += np.count_nonzero(a & g & ~v) + np.count_nonzero((a | g) & ~v)
        return total

    benchmark.group = f"hidden parts, {IMAGES} images"
    assert benchmark.pedantic(run, rounds=1) > 0
