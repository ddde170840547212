"""Runs are compared with paired intervals, failures are named, and the command writes it all."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from evaluation_data import HEIGHT, WIDTH, make_set, random_pair, rectangles
from scipy.stats import binom
from typer.testing import CliRunner

from amodal_core.errors import InputError
from amodal_core.evaluation import (
    assignment,
    failures,
    formats,
    image_level,
    panels,
    report,
    results,
)
from amodal_core.evaluation.bootstrap import ResampledPrecision, compare
from amodal_core.evaluation.matching import Matches
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS, VIDEO_PROTOCOLS
from amodal_core.evaluation.run import evaluate
from amodal_core.evaluation.sets import ImageRecord
from amodal_core.evaluation.stream import StreamAccuracy
from amodal_core.evaluation.truth import Truth, read_truth
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_ros.cli.main import app

IDS = (1, 2, 3)


def matches(truth, predictions, kind="amodal") -> Matches:
    scores = image_level.evaluate(truth, predictions, kind, IMAGE_PROTOCOLS["default"])
    assert scores.matches is not None
    return scores.matches


@pytest.mark.parametrize("seed", [0, 1])
def test_ap_of_a_resample_equals_ap_of_a_data_set_that_repeats_its_images(seed):
    """Drawing an image twice is the same as having it twice under two ids."""
    truth, predictions = random_pair(seed, images=30, crowd=0.05)
    weights = np.random.default_rng(seed).integers(0, 3, 30)
    ours = ResampledPrecision(matches(truth, predictions))(weights)

    def repeated(predictions):
        rows, ids = [], []
        for k in range(int(weights.max())):
            chosen = weights[predictions.image_ids - 1] > k
            rows.append(np.flatnonzero(chosen))
            ids.append(predictions.image_ids[chosen] + 1000 * k)
        out = predictions.select(np.concatenate(rows))
        images = [
            i._replace(id=i.id + 1000 * k)
            for k in range(int(weights.max()))
            for i in predictions.images
            if weights[i.id - 1] > k
        ]
        return replace(out, image_ids=np.concatenate(ids), images=images)

    expected = image_level.evaluate(
        repeated(truth), repeated(predictions), "amodal", IMAGE_PROTOCOLS["default"]
    ).values["AP"]
    assert ours == pytest.approx(expected, abs=1e-9)


def test_a_run_against_itself_differs_by_nothing():
    truth, predictions = random_pair(3, images=20)
    (difference,) = compare([matches(truth, predictions)] * 2, draws=50)
    assert (difference.low, difference.high, difference.better) == (0.0, 0.0, 0.0)


def test_a_clearly_better_run_has_an_interval_above_zero_and_a_worse_one_below():
    truth, predictions = random_pair(4, images=60)
    none = predictions.select(np.arange(len(predictions)) % 4 == 0)
    full, empty = matches(truth, predictions), matches(truth, none)
    (better,) = compare([empty, full], draws=200)
    (worse,) = compare([full, empty], draws=200)
    assert better.low > 0
    assert better.better == 1.0
    assert better.value - better.base == pytest.approx(worse.base - worse.value)
    assert worse.high < 0


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    """Two runs of equal quality: of 40 pairs of data sets, about 38 intervals hold 0."""
    covered = 0
    for seed in range(40):
        truth, predictions = random_pair(100 + seed, images=40, objects=3)
        rng = np.random.default_rng(seed)
        halves = [
            predictions.select(rng.random(len(predictions)) < 0.6),
            predictions.select(rng.random(len(predictions)) < 0.6),
        ]
        (difference,) = compare([matches(truth, h) for h in halves], draws=120, seed=seed)
        covered += difference.low <= 0 <= difference.high
    assert covered >= 32


def test_the_interval_holds_95_percent_of_the_draws():
    """Half of 100 objects are found and nothing else: a draw's AP follows its binomial count."""
    images = [ImageRecord(n, HEIGHT, WIDTH, str(n)) for n in range(1, 101)]
    truth = make_set([(n, 0, -1, A) for n in range(1, 101)], images)
    half = make_set([(n, 0, -1, A) for n in range(1, 51)], images)
    none = half.select(np.zeros(50, bool))
    (difference,) = compare([matches(truth, none), matches(truth, half)], draws=400)
    low, high = binom.ppf([0.025, 0.975], 100, 0.5) / 100
    assert difference.value == pytest.approx(51 / 101)
    assert difference.low == pytest.approx(low, abs=0.01)
    assert difference.high == pytest.approx(high, abs=0.01)


def test_runs_over_other_images_or_another_truth_do_not_compare():
    truth, predictions = random_pair(5, images=10)
    other, other_predictions = random_pair(6, images=11)
    with pytest.raises(InputError, match="other images"):
        compare([matches(truth, predictions), matches(other, other_predictions)])
    less = truth.select(np.arange(len(truth)) > 0)
    with pytest.raises(InputError, match="another ground truth"):
        compare([matches(truth, predictions), matches(less, predictions)])


def test_matches_come_back_from_their_file_and_a_broken_file_is_named(tmp_path):
    truth, predictions = random_pair(7, images=10)
    one = matches(truth, predictions)
    one.save(tmp_path / "matches_amodal.npz")
    back = Matches.load(tmp_path / "matches_amodal.npz")
    assert back.classes == one.classes
    for name in ("images", "image", "class_id", "rank", "score", "hit", "ignored", "truth"):
        np.testing.assert_array_equal(getattr(back, name), getattr(one, name))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04nothing")
    for name in ("broken.npz", "none.npz"):
        with pytest.raises(InputError, match="cannot read the matches"):
            Matches.load(tmp_path / name)


A, B, C = (rectangles([(x, 10, 16, 20)]) for x in (4, 30, 56))


def test_confusion_counts_classes_by_occlusion_and_what_was_missed():
    """Three cars: in view and found, 30 % hidden and called cyclist, 60 % hidden and missed."""
    truth = make_set(
        [(1, 0, 1, A, 1.0, 0.0), (1, 0, 2, B, 1.0, 0.3), (1, 0, 3, C, 1.0, 0.6)],
    )
    predictions = make_set([(1, 0, 1, A, 0.9), (1, 2, 2, B, 0.9)])
    tables = failures.confusion(
        truth, predictions, assignment.assign(truth, predictions, class_agnostic=True)
    )
    counts = {
        name: dict(zip(t.columns, t.counts[0].tolist(), strict=True)) for name, t in tables.items()
    }
    assert counts == {
        "in view (< 5 % hidden)": {"car": 1, "cyclist": 0, "missed": 0},
        "medium (25-50 %)": {"car": 0, "cyclist": 1, "missed": 0},
        "heavy (50-100 %)": {"car": 0, "cyclist": 0, "missed": 1},
    }


def test_a_wholly_hidden_object_is_heavily_occluded_and_every_bound_opens_the_next_bin():
    rates = (0.05, 0.25, 0.5, 1.0)
    truth = make_set([(1, 0, n, A, 1.0, rate) for n, rate in enumerate(rates)])
    tables = failures.confusion(truth, truth, np.arange(4))
    assert {name.split()[0]: t.counts.sum() for name, t in tables.items()} == {
        "partial": 1, "medium": 1, "heavy": 2,
    }  # fmt: skip


def test_the_worst_failures_lose_most_pixels_and_show_an_instance_once():
    """A (320 pixels) is missed in both frames, B is half found: A once, then B's worse frame."""
    half = rectangles([(30, 10, 16, 10)])
    truth = make_set([(1, 0, 1, A), (1, 0, 2, B), (2, 0, 1, A), (2, 0, 2, B)])
    predictions = make_set([(1, 0, 7, half, 0.9), (2, 0, 7, B, 0.9)], truth.images)
    worst = failures.worst(truth, assignment.image_overlaps(truth, predictions, "amodal"))
    assert [(f.annotation, f.prediction) for f in worst] == [(0, -1), (1, 0)]
    assert worst[0].lost == 320
    assert worst[1].iou == pytest.approx(0.5)
    assert worst[1].lost == pytest.approx(160)


def test_single_images_give_one_failure_each():
    truth = make_set([(1, 0, 1, A), (1, 0, 2, B), (2, 0, 3, C)])
    truth.images = [i._replace(video="") for i in truth.images]
    predictions = make_set([(1, 0, 7, B, 0.1)], truth.images)
    worst = failures.worst(truth, assignment.image_overlaps(truth, predictions, "amodal"))
    assert [f.image_id for f in worst] == [1, 2]


def test_failures_are_drawn_with_and_without_their_image():
    truth = make_set([(1, 0, 1, A), (1, 0, 2, B)])
    predictions = make_set([(1, 1, 7, rectangles([(30, 10, 16, 10)]), 0.9)], truth.images)
    worst = failures.worst(truth, assignment.image_overlaps(truth, predictions, "amodal"))
    image = np.full((HEIGHT, WIDTH, 3), (10, 200, 30), np.uint8)
    for images in ({}, {1: image}):
        drawn = panels.draw(worst, truth, predictions, images)
        assert all(p.truth[:2] == p.prediction[:2] == b"\xff\xd8" for p in drawn)
    assert drawn[0].caption == "car, 0% hidden: missed; what was found near it"
    assert [p.where for p in drawn] == ["1", "1"]


def test_a_found_object_is_shown_beside_its_own_prediction_alone():
    truth = make_set([(1, 0, 1, A)])
    half, other = rectangles([(4, 10, 16, 10)]), rectangles([(14, 12, 16, 16)])
    one = make_set([(1, 0, 7, half, 0.9)], truth.images)
    two = make_set([(1, 0, 7, half, 0.9), (1, 0, 8, other, 0.9)], truth.images)
    shown = [
        panels.draw(
            failures.worst(truth, assignment.image_overlaps(truth, p, "amodal")), truth, p, {}
        )[0]
        for p in (one, two)
    ]
    assert shown[0].prediction == shown[1].prediction
    assert shown[0].prediction != shown[0].truth


def test_what_there_is_nothing_of_is_a_dash_never_a_zero():
    truth = make_set([(1, 0, 1, A, 1.0, 0.0)])
    result = evaluate(truth, truth, IMAGE_PROTOCOLS["default"], "image")
    assert math.isnan(result.scores["amodal"].values["AP heavy"])
    values = result.as_json()["scores"]["amodal"]["values"]
    assert values["AP heavy"] is None
    assert values["AP"] == pytest.approx(1.0)


def test_renaming_classes_joins_them_and_refuses_nonsense():
    _, predictions = random_pair(8, images=5)
    joined = results.renamed(predictions, ["cyclist=pedestrian"])
    assert joined.classes == ("car", "pedestrian")
    np.testing.assert_array_equal(joined.class_ids, np.minimum(predictions.class_ids, 1))
    with pytest.raises(InputError, match="no class van"):
        results.renamed(predictions, ["van=car"])
    with pytest.raises(InputError, match="not class=class"):
        results.renamed(predictions, ["car"])


def a_frame(shift: int, empty: bool = False) -> Tracks:
    boxes = [] if empty else [(4 + shift, 10, 16, 20), (40 + shift, 10, 16, 20)]
    masks = np.array([rectangles([b]) for b in boxes], bool).reshape(-1, HEIGHT, WIDTH)
    amodal = RleMasks.from_dense(masks) if len(masks) else RleMasks.empty((HEIGHT, WIDTH))
    n = len(amodal)
    return replace(
        Tracks.empty((HEIGHT, WIDTH)),
        amodal=amodal,
        visible=amodal,
        amodal_boxes=amodal.boxes(),
        visible_boxes=amodal.boxes(),
        scores=np.ones(n, np.float32),
        class_ids=np.arange(n),
        occlusion_rates=np.zeros(n, np.float32),
        depths=np.full(n, 5.0, np.float32),
        occluders=np.zeros((n, n), bool),
        ids=np.arange(n),
        ages=np.ones(n, np.int64),
        coasted=np.zeros(n, bool),
    )


def test_a_stream_is_evaluated_whatever_its_class_ids_mean(tmp_path):
    """Two objects, classes 0 and 1 in the truth and the other way round in the tracks.

    Without class names the headline numbers are perfect; with them, every class is wrong.
    """
    stream = StreamAccuracy("drive")
    assert not stream
    assert stream.values() == {}
    for k in range(4):
        turned = replace(a_frame(k), class_ids=np.array([1, 0]))
        stream.add(k + 1, a_frame(k), turned)
    values = stream.values()
    assert values["amodal_AP"] == values["HOTA"] == values["IDF1"] == pytest.approx(1.0)
    result, truth, tracks = stream.evaluation({0: "car", 1: "van"}, ["car", "van", "bus"])
    assert result.scores["amodal"].values["vAP"] == 0.0
    assert result.confusion["in view (< 5 % hidden)"].counts.tolist() == [[0, 4, 0], [4, 0, 0]]
    results.write(result, tmp_path, {"gt": "bag", "dt": "tracks"}, truth, tracks)
    assert (tmp_path / "report.html").exists()


def test_a_stream_counts_its_full_occlusions():
    """Hidden twice, tracked before the first time only, back under the same id."""
    stream = StreamAccuracy()
    for k, (shows, tracked) in enumerate([(1, 1), (0, 0), (1, 1), (0, 0), (1, 0), (0, 0), (1, 1)]):
        truth = a_frame(k)[:1]
        if not shows:
            truth = replace(truth, visible=RleMasks.empty(truth.size, 1))
        stream.add(k + 1, truth, a_frame(k)[:1] if tracked else a_frame(k, empty=True))
    values = stream.values()
    counts = ("occlusions", "occlusions_of_tracks", "occlusions_survived")
    assert [values[name] for name in counts] == [3, 2, 1]
    assert values["identity_kept"] == 0.5


def test_a_stream_without_objects_in_its_truth_has_no_accuracy():
    stream = StreamAccuracy()
    stream.add(1, a_frame(0, empty=True), a_frame(0))
    assert stream.values() == {}


def test_one_of_a_kind_is_counted_as_one():
    counts = {"images": 1200, "videos": 1, "annotations": 0, "predictions": 1}
    assert report._counts(SimpleNamespace(counts=counts)) == "1 200 images, 1 video, 1 prediction"


# The command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coco_files(tmp_path_factory):
    """A COCO ground truth and two folders of results, the second one poorer."""
    folder = tmp_path_factory.mktemp("eval")
    truth, predictions = random_pair(9, images=25)
    formats.write_results(predictions, folder / "good", IDS)
    formats.write_results(
        predictions.select(np.arange(len(predictions)) % 3 > 0), folder / "poor", IDS
    )
    amodal_masks, visible_masks = truth.rle("amodal"), truth.rle("visible")
    data = {
        "images": [
            {"id": i.id, "file_name": f"{i.name}.png", "height": i.height, "width": i.width}
            for i in truth.images
        ],
        "categories": [{"id": k, "name": n} for k, n in zip(IDS, truth.classes, strict=True)],
        "annotations": [
            {
                "id": n + 1,
                "image_id": int(truth.image_ids[n]),
                "category_id": IDS[truth.class_ids[n]],
                "iscrowd": 0,
                "bbox": [0, 0, 1, 1],
                "area": 1,
                "segmentation": {**amodal_masks[n], "counts": amodal_masks[n]["counts"].decode()},
                "visible_mask": {**visible_masks[n], "counts": visible_masks[n]["counts"].decode()},
            }
            for n in range(len(truth))
        ],
    }
    (folder / "gt.json").write_text(json.dumps(data))
    return folder


def amodal(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_prints_and_writes_numbers_report_and_matches(coco_files, tmp_path):
    output = amodal(
        "eval", "image", "--gt", coco_files / "gt.json", "--dt", coco_files / "good",
        "--out", tmp_path,
    )  # fmt: skip
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "matches_amodal.npz",
        "matches_box.npz",
        "matches_visible.npz",
        "metrics.json",
        "report.html",
    ]
    assert metrics["protocol"]["says"] in " ".join(output.split()).replace("> =", ">=")
    for kind in ("box", "visible", "amodal"):
        value = metrics["scores"][kind]["values"]["AP50"]
        assert 0.1 < value < 1
        assert f"{100 * value:.1f}" in output
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page), "the page needs nothing beside it"
    for words in ("Precision over recall at IoU 0.75", "Confusion by occlusion", "Worst failures"):
        assert words in page


def test_failures_of_a_data_set_are_drawn_on_its_images(coco_files, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    data = json.loads((coco_files / "gt.json").read_text())
    (tmp_path / "gt.json").write_text(json.dumps(data))
    cv2.imwrite(str(tmp_path / data["images"][2]["file_name"]), image[..., ::-1])
    images = read_truth(tmp_path / "gt.json").images([1, 3])
    assert list(images) == [3]  # the other image is not there
    np.testing.assert_array_equal(images[3], image)


def test_runs_are_compared_from_their_folders(coco_files, tmp_path):
    for name in ("good", "poor"):
        amodal(
            "eval", "image", "--gt", coco_files / "gt.json", "--dt", coco_files / name,
            "--kind", "amodal", "--out", tmp_path / name,
        )  # fmt: skip
    output = amodal(
        "eval", "compare", tmp_path / "good", tmp_path / "poor", "--draws", 100,
        "--out", tmp_path / "both",
    )  # fmt: skip
    assert "against good" in output
    rows = json.loads((tmp_path / "both" / "comparison.json").read_text())["rows"]
    assert [r["name"] for r in rows] == ["AP", "AP50", "AP75"]
    assert rows[0]["others"]["poor"]["high"] < 0
    assert "Differences to good" in (tmp_path / "both" / "report.html").read_text()


def test_folders_that_are_no_evaluations_are_named(tmp_path):
    with pytest.raises(InputError, match="no evaluation"):
        results.read(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match="no metrics of `amodal eval`"):
        results.read(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(InputError, match="no evaluation: Expecting"):
        results.read(tmp_path)


def test_other_protocols_do_not_compare(tmp_path):
    truth, predictions = random_pair(10, images=8)
    for name, protocol, level in (
        ("a", IMAGE_PROTOCOLS["default"], "image"),
        ("b", IMAGE_PROTOCOLS["vrsp"], "image"),
        ("c", VIDEO_PROTOCOLS["default"], "video"),
    ):
        result = evaluate(truth, predictions, protocol, level, ["amodal"])
        results.write(
            result, tmp_path / name, {"gt": "g", "dt": name}, Truth(truth, {}), predictions
        )
    runs = [results.read(tmp_path / name) for name in "abc"]
    with pytest.raises(InputError, match="another protocol"):
        results.compare_runs(runs[:2])
    with pytest.raises(InputError, match="another level"):
        results.compare_runs([runs[0], runs[2]])
    with pytest.raises(InputError, match="nothing to compare with"):
        results.compare_runs(runs[:1])


def test_the_options_change_what_they_say(coco_files, tmp_path):
    base = ["eval", "image", "--gt", coco_files / "gt.json", "--dt", coco_files / "good"]
    output = amodal(*base, "--protocol", "vrsp", "--legacy-names", "--out", tmp_path / "1")
    assert "APs (occlusion >0.15)" in output
    output = amodal(*base, "--protocol", "eoras", "--out", tmp_path / "e")
    assert "mIoU_occ" in output
    amodal(*base, "--class-agnostic", "--kind", "amodal", "--out", tmp_path / "2")
    metrics = json.loads((tmp_path / "2" / "metrics.json").read_text())
    assert list(metrics["scores"]) == ["amodal"]
    assert metrics["scores"]["amodal"]["per_class"] == {}
    single = coco_files / "good" / "amodal.json"
    amodal(
        "eval", "image", "--gt", coco_files / "gt.json", "--dt", single, "--kind", "amodal",
        "--out", tmp_path / "3",
    )  # fmt: skip
    for bad, words in (
        (["--protocol", "best"], "no protocol 'best'"),
        (["--kind", "whole"], "no kind 'whole'"),
        (["--map", "tram=car"], "no class tram"),
        (["--legacy-names"], "VRSP's evaluation only"),
    ):
        with pytest.raises(InputError, match=words):
            amodal(*base, *bad, "--out", tmp_path / "4")


@pytest.mark.parametrize("command", ["image", "video"])
def test_a_protocol_of_hidden_parts_alone_prints_and_writes_its_numbers(tmp_path, command):
    """Predictions of any score count; ids are those of the truth, which COCO files can carry."""
    truth, predictions = random_pair(9, images=12)
    stream = replace(predictions, scores=predictions.scores * 0.2)
    chosen = (IMAGE_PROTOCOLS if command == "image" else VIDEO_PROTOCOLS)["eoras"]
    result = evaluate(truth, stream, chosen, command)
    assert list(result.tables) == ["mIoU eoras"]
    assert (result.scores, result.failures) == ({}, [])
    assert 0.1 < result.tables["mIoU eoras"].values["mIoU_occ"] < 1
    results.write(result, tmp_path, {"gt": "g", "dt": "d"}, Truth(truth, {}), stream)
    assert "Hidden parts, protocol eoras" in (tmp_path / "report.html").read_text()
    assert results.read(tmp_path).matches == {}


def test_protocols_are_listed_with_what_they_say():
    output = " ".join(amodal("eval", "protocols").split())
    for protocols in (IMAGE_PROTOCOLS, VIDEO_PROTOCOLS):
        for name, protocol in protocols.items():
            assert name in output
            assert protocol.says[-40:] in output
