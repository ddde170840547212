"""Numbers equal those of the published evaluators, recorded by test/record_evaluators.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import PAIRS, layered

from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS, VIDEO_PROTOCOLS
from amodal_core.evaluation.run import evaluate

RECORDED = json.loads((Path(__file__).parent / "fixtures" / "evaluators.json").read_text())
# Where each of our columns stands in the statistics of the original.
SIZES = {"AP50 small": 3, "AP50 medium size": 4, "AP50 large": 5}
BINS = {"AP50 P": 6, "AP50 M": 7, "AP50 H": 8}
VRSP = {"AP": 0, "AP50": 1, "AP75": 2, "AR@100": 8}
VRSP |= {f"AP occluded >{rate}": 3 + n for n, rate in enumerate(("0.15", "0.25", "0.40"))}
VIDEO = {"AP": 0, "AP50": 1, "AP75": 2, **SIZES, **BINS, "AR@1": 9, "AR@10": 10, "AR@100": 11}
VIDEO = {f"v{name}": n for name, n in VIDEO.items()}
COLUMNS = {
    "image vatrack": {"AP": 0, "AP50": 1, **SIZES, "AP50 P": 6, "AP50 H": 8, "AR@100": 11},
    "image s-amodal": {"AP": 0, "AP50": 1, **SIZES, **BINS},
    "image vrsp": VRSP,
    "image aisformer": VRSP,
    "video vatrack": VIDEO,
    "video s-amodal": VIDEO,
}


@pytest.mark.parametrize("name", list(PAIRS))
@pytest.mark.parametrize("evaluator", list(COLUMNS))
def test_average_precision_equals_the_published_evaluator(name, evaluator):
    truth, predictions = PAIRS[name]()
    level, protocol = evaluator.split()
    chosen = {"image": IMAGE_PROTOCOLS, "video": VIDEO_PROTOCOLS}[level][protocol]
    assert {c.name for c in chosen.columns} == set(COLUMNS[evaluator])
    for kind in ("amodal", "visible"):
        shown = truth.select(truth.areas(kind) > 0)
        values = evaluate(shown, predictions, chosen, level, [kind]).scores[kind].values
        recorded = RECORDED[name][f"{evaluator} {kind}"]
        for column, index in COLUMNS[evaluator].items():
            ours = -1.0 if np.isnan(values[column]) else values[column]
            assert ours == pytest.approx(recorded[index], abs=1e-12), (kind, column)


@pytest.mark.parametrize("name", list(PAIRS))
@pytest.mark.parametrize("protocol", ["eoras", "savos"])
def test_iou_of_hidden_parts_equals_the_published_evaluation(name, protocol):
    truth, predictions = PAIRS[name]()
    truth = truth.select(~truth.crowd)
    if protocol == "savos":
        truth, predictions = truth.select(truth.areas("visible") > 0), layered(predictions)
    result = evaluate(truth, predictions, IMAGE_PROTOCOLS[protocol], "image")
    (table,) = result.tables.values()
    ours = [table.values["mIoU_full"], table.values["mIoU_occ"]]
    recorded = [np.nan if x is None else x for x in RECORDED[name][f"hidden {protocol}"]]
    assert ours == pytest.approx(recorded, abs=1e-7, nan_ok=True)
