"""KITTI's numbers equal those of its own development kit (record_kitti.py), digit by digit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kitti_scenes import CASES, write_scenes
from typer.testing import CliRunner

from amodal_core.datasets.kitti import KittiObject
from amodal_core.datasets.kitti_labels import KittiLabel, read_object_labels
from amodal_core.errors import InputError
from amodal_core.evaluation.kitti_benchmark import evaluate
from amodal_core.evaluation.kitti_files import read_pairs, write_results

OFFICIAL = json.loads((Path(__file__).parent / "fixtures" / "kitti.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_every_number_is_the_development_kits(tmp_path, case):
    labels, results = write_scenes(case, tmp_path)
    scores = evaluate(*read_pairs(labels, results))
    for recalls, ours in (("R40", scores.r40), ("R11", scores.r11)):
        for name, kinds in OFFICIAL[case][recalls].items():
            for kind, wanted in kinds.items():
                assert ours[name][kind] == pytest.approx(wanted, abs=1e-12), (recalls, name, kind)
                assert max(wanted) > 0


def car(**changes):
    box = (100.0, 100.0, 200.0, 160.0)
    return replace(
        KittiLabel("Car", 0.0, 0, 0.0, box, (1.5, 1.6, 3.9), (0, 1.6, 20), 0.0), **changes
    )


def test_a_perfect_detection_is_all_and_none_is_nothing():
    (scores, nothing) = (evaluate([[car()]], [one]) for one in ([car(score=0.9)], []))
    assert scores.r11["Car"]["3D"][1] == pytest.approx(1 / 11)  # one object: one recall of 41
    assert nothing.r40["Car"]["3D"] == (0, 0, 0)
    assert math.isnan(scores.r40["Cyclist"]["3D"][0])
    assert scores.objects["Car"] == (1, 1, 1)


@pytest.mark.parametrize(("right", "expected"), [(170.0, 0.0), (171.0, 1 / 11)])
def test_an_overlap_at_the_limit_is_none(right, expected):
    found = car(score=0.9, box=(100.0, 100.0, right, 160.0))  # of 0.7 and of 0.71
    assert evaluate([[car()]], [[found]]).r11["Car"]["2D"][1] == pytest.approx(expected)


def test_orientation_that_nobody_tells_is_no_number():
    scores = evaluate([[car()]], [[car(score=0.9, alpha=-10.0)]])
    assert np.isnan(scores.r40["Car"]["orientation"]).all()
    assert not np.isnan(scores.r40["Car"]["2D"]).any()


def test_the_command_prints_and_writes_the_same(tmp_path):
    from amodal_ros.cli.eval import app

    labels, results = write_scenes("random", tmp_path)
    out = tmp_path / "out"
    options = ["kitti", "--gt", str(labels), "--dt", str(results), "--out", str(out)]
    shown = CliRunner().invoke(app, options, catch_exceptions=False)
    assert shown.exit_code == 0
    written = json.loads((out / "kitti.json").read_text())
    wanted = OFFICIAL["random"]["R40"]["Car"]["3D"]
    assert written["R40"]["Car"]["3D"] == pytest.approx(wanted, abs=1e-12)
    assert f"{100 * wanted[1]:.2f}" in shown.output
    assert written["images"] == 60


def test_results_that_do_not_fit_the_labels_are_refused(tmp_path):
    labels, results = write_scenes("random", tmp_path)
    with pytest.raises(InputError, match="no label_2"):
        read_pairs(tmp_path / "results" / "none", results)
    # Results are labels with a score: against themselves they would be perfect.
    with pytest.raises(InputError, match="given as labels and as results"):
        read_pairs(results, labels / ".." / results.name)
    (results / "000003.txt").write_text("Car 0 0 0 1 2 3 4 1 1 1 0 0 9 0\n")
    with pytest.raises(InputError, match="no score"):
        read_pairs(labels, results)
    (results / "000003.txt").unlink()
    assert len(read_pairs(labels, results)[0]) == 59
    with pytest.raises(InputError, match=r"no results of 000003"):
        read_pairs(labels, results, ["000002", "000003"])
    (labels / "000004.txt").unlink()
    with pytest.raises(InputError, match=r"no labels of 000004"):
        read_pairs(labels, results)
    assert (
        read_object_labels(labels / "000002.txt") == read_pairs(labels, results, ["000002"])[0][0]
    )


def test_results_written_of_the_truth_are_the_labels(tmp_path, kitti_object_root):
    data = KittiObject(kitti_object_root)
    for k in range(len(data)):
        truth = data.truth(k)
        name = data.place(k).name.rpartition("/")[2]
        types = [data.classes[c] for c in truth.class_ids]
        write_results(tmp_path / "kitti" / f"{name}.txt", truth, types, data.calibration(k))
    for labels, results in zip(*read_pairs(kitti_object_root, tmp_path), strict=True):
        for label, result in zip(labels, results, strict=False):
            assert (label.type, result.score) == (result.type, 1.0)
            np.testing.assert_allclose(result.location, label.location, atol=1e-3)
            np.testing.assert_allclose(result.size, label.size, atol=1e-3)
            np.testing.assert_allclose(result.box, label.box, atol=1e-3)
            turned = (result.rotation_y - label.rotation_y + math.pi) % (2 * math.pi) - math.pi
            assert abs(turned) < 0.02  # a heading in the LiDAR's plane
