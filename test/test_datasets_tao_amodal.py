"""TAO-Amodal: boxes beyond the border, and numbers that are those of its own evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tao_scenes
from typer.testing import CliRunner

from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.evaluation.federated import judged
from amodal_core.evaluation.formats import read_predictions
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS
from amodal_core.evaluation.run import evaluate
from amodal_core.evaluation.truth import read_truth
from amodal_ros.cli.main import app

FIXTURE = Path(__file__).parent / "fixtures" / "tao_amodal.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("tao")
    file, results = tao_scenes.write(root)
    (root / "results.json").write_text(json.dumps(results))
    return file, root / "results.json"


@pytest.mark.parametrize("amodal_key", [True, False])
def test_boxes_are_the_amodal_ones_beyond_the_border_too(amodal_key, tmp_path):
    file, _ = tao_scenes.write(tmp_path, amodal_key=amodal_key)
    data = open_dataset(file)
    assert (data.name, data.classes) == ("tao_amodal validation_lvis_v1", tao_scenes.NAMES)
    rows = json.loads(file.read_text())["annotations"]
    key = "amodal_bbox" if amodal_key else "bbox"
    beyond = 0
    for k in range(len(data)):
        truth, own = data.truth(k), [r for r in rows if r["image_id"] == data.images[k]["id"]]
        assert truth.ids.tolist() == [r["track_id"] for r in own]
        x, y, w, h = np.array([r[key] for r in own]).reshape(-1, 4).T
        np.testing.assert_allclose(truth.amodal_boxes, np.c_[x, y, x + w, y + h], atol=1e-4)
        np.testing.assert_allclose(truth.occlusion_rates, [1 - r["visibility"] for r in own])
        beyond += (truth.amodal_boxes < 0).any(axis=1).sum()
    assert beyond > 4


def test_frames_are_found_and_videos_are_in_order(written):
    data = open_dataset(written[0])
    assert data.videos == tao_scenes.VIDEOS
    assert [data.place(k).index for k in data.in_video(tao_scenes.VIDEOS[1])] == [
        *(30 * n for n in range(6))
    ]
    assert [int(data.frame(k).image[0, 0, 0]) for k in range(3)] == [0, 40, 80]
    assert not [f for f in data.check() if f is not None]


def test_a_folder_or_its_annotations_stand_for_the_file(written):
    assert open_dataset(written[0].parent).path == written[0]
    assert open_dataset(written[0].parents[1]).path == written[0]


def test_merged_categories_are_the_ones_that_they_were_merged_into(written):
    assert open_dataset(written[0]).category_ids[901] == 0


def test_numbers_are_those_of_its_own_evaluation(written):
    truth = read_truth(written[0])
    predictions = judged(read_predictions(written[1], truth), truth.verified)
    result = evaluate(truth.set, predictions, IMAGE_PROTOCOLS["tao-amodal"], "image")
    published = json.loads(FIXTURE.read_text())
    scores = result.scores["box"].values
    assert scores.keys() == published.keys()
    for name, value in published.items():
        assert scores[name] == pytest.approx(value, abs=1e-9), name


def test_the_command_line_judges_by_the_classes_that_each_image_is_annotated_with(
    written, tmp_path
):
    words = ["eval", "image", "--gt", str(written[0]), "--dt", str(written[1])]
    words += ["--out", str(tmp_path / "out"), "--protocol", "tao-amodal"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    published = json.loads(FIXTURE.read_text())
    assert metrics["scores"]["box"]["values"]["AP HO"] == pytest.approx(published["AP HO"])


@pytest.mark.parametrize("junk", [None, [], {}, "x", -1, 1e300, [1, 2], [0, 0, 0, 5]])
@pytest.mark.parametrize("field", ["amodal_bbox", "track_id", "category_id", "visibility"])
def test_any_value_in_an_annotation_is_a_finding_or_left_out(field, junk, tmp_path):
    file, _ = tao_scenes.write(tmp_path)
    content = json.loads(file.read_text())
    content["annotations"][0][field] = junk
    file.write_text(json.dumps(content))
    data = open_dataset(file, "tao_amodal")
    try:
        assert np.isfinite(data.truth(0).amodal_boxes).all()
        assert len(list(data.check())) >= len(data)
    except InputError:
        pass


@pytest.mark.parametrize(
    ("part", "field", "junk"),
    [
        ("categories", "merged", [{"id": float("inf")}]),
        ("categories", "merged", 5),
        ("categories", "merged", [{"id": {}}]),
        ("videos", "id", {}),
        ("videos", "id", None),
    ],
)
def test_malformed_categories_and_videos_are_one_error(part, field, junk, tmp_path):
    file, _ = tao_scenes.write(tmp_path)
    content = json.loads(file.read_text())
    content[part][0][field] = junk
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="malformed categories or videos"):
        open_dataset(file)
