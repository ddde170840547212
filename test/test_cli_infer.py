"""`amodal infer` and `amodal export`: results that `amodal eval` reads, resumable, in one piece."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch
from eoras_scenes import save_small
from training_scenes import CLASSES, Oracle, Streets, Tiny, TinyConfig, register_tiny
from typer.testing import CliRunner

from amodal_core import inference
from amodal_core.classes import ClassMap
from amodal_core.datasets import kins
from amodal_core.datasets.registry import open_dataset
from amodal_core.datasets.to_bag import write_video
from amodal_core.errors import InputError
from amodal_core.evaluation import occluded_iou
from amodal_core.evaluation.formats import read_predictions
from amodal_core.evaluation.truth import read_truth
from amodal_core.frame import Report, Tracks
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.export import export
from amodal_core.models.flagship import Flagship, FlagshipConfig
from amodal_core.pipeline import Pipeline
from amodal_core.tracking import Tracker
from amodal_ros.cli.main import app


@pytest.fixture
def data(tmp_path):
    list(kins.write(tmp_path / "kins", Streets(5).samples, CLASSES))
    return open_dataset(tmp_path / "kins")


@pytest.fixture
def model(data):
    oracle = Oracle(data)
    names = {"car": 0, "pedestrian": 1, "cyclist": 2}
    for truth in oracle.truth.values():
        truth.class_ids = np.array([names[data.classes[k]] for k in truth.class_ids])
    return oracle


def run(model, data, out, **options):
    classes = inference.classes_in(model, data, {})
    return inference.Inference(model, data, out, classes, {"model": model.name}, batch=2, **options)


def test_what_a_model_finds_is_what_evaluation_reads(model, data, tmp_path):
    written = inference.run(run(model, data, tmp_path / "out"), 0, lambda *_: None)
    assert [p.name for p in written] == ["visible.json", "amodal.json"]
    truth = read_truth(data.path)
    found = read_predictions(tmp_path / "out", truth)
    assert found.amodal == truth.set.amodal
    assert found.visible == truth.set.visible
    assert found.class_ids.tolist() == truth.set.class_ids.tolist()
    assert found.image_ids.tolist() == truth.set.image_ids.tolist()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["amodal.json", "visible.json"]


def test_an_object_that_may_be_of_several_classes_stands_once_for_each(model, data, tmp_path):
    """Every object may be a cyclist, half as likely; unless it is asked for, it is what it is."""
    for truth in model.truth.values():
        likely = np.eye(len(model.classes), dtype=np.float32)[truth.class_ids] * 2 / 3
        likely[:, 2] += 1 / 3
        truth.class_probabilities = likely
    truth = read_truth(data.path)
    inference.run(run(model, data, tmp_path / "one"), 0, lambda *_: None)
    inference.run(run(model, data, tmp_path / "all", every_class=True), 0, lambda *_: None)
    one, every = (read_predictions(tmp_path / name, truth) for name in ("one", "all"))
    assert one.class_ids.tolist() == truth.set.class_ids.tolist()
    cyclist = data.classes.index("cyclist")
    surely = every.select((every.class_ids != cyclist) | (every.scores == 1))
    assert surely.amodal == truth.set.amodal
    assert surely.class_ids.tolist() == truth.set.class_ids.tolist()
    others = every.select((every.class_ids == cyclist) & (every.scores < 1))
    assert others.scores == pytest.approx(0.5, abs=1e-6)
    assert others.amodal == [
        m for m, k in zip(one.amodal, one.class_ids, strict=True) if k != cyclist
    ]


def test_a_killed_run_infers_only_what_is_left(model, data, tmp_path):
    first = run(model, data, tmp_path / "out")
    indices = first.left()[0]
    first.step(indices, [data.frame(k) for k in indices])
    assert model.asked == 2
    told = []
    inference.run(run(model, data, tmp_path / "out"), 0, lambda *step: told.append(step))
    assert model.asked == 5
    assert (told[0], told[-1]) == ((2, 5), (5, 5))
    inference.run(run(model, data, tmp_path / "whole"), 0, lambda *_: None)
    for name in ("visible.json", "amodal.json"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_parts_of_another_run_are_not_mixed_in(model, data, tmp_path):
    first = run(model, data, tmp_path / "out")
    indices = first.left()[0]
    first.step(indices, [data.frame(k) for k in indices])
    classes = inference.classes_in(model, data, {})
    with pytest.raises(InputError, match="unfinished run of another model"):
        inference.Inference(model, data, tmp_path / "out", classes, {"model": "other"}, batch=2)


def test_reading_processes_change_nothing(model, data, tmp_path):
    inference.run(run(model, data, tmp_path / "a"), 0, lambda *_: None)
    inference.run(run(model, data, tmp_path / "b"), 2, lambda *_: None)
    assert (tmp_path / "a/amodal.json").read_text() == (tmp_path / "b/amodal.json").read_text()


def test_no_more_processes_read_than_there_are_cores(model, data, tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    inference.run(run(model, data, tmp_path / "a"), 2, lambda *_: None)
    assert not [str(w.message) for w in recwarn if "worker" in str(w.message)]


def test_classes_that_the_data_lacks_are_left_out_and_told(model, data):
    classes = inference.classes_in(model, data, {})
    assert classes.missing == ("tree",)
    assert classes.table.tolist()[3] == -1
    chosen = inference.classes_in(model, data, {"tree": "misc"})
    assert data.classes[chosen.table[3]] == "misc"
    with pytest.raises(InputError, match="has no class bush"):
        inference.classes_in(model, data, {"bush": "car"})
    model.classes = ("tree", "bush")
    with pytest.raises(InputError, match="no class of oracle"):
        inference.classes_in(model, data, {})


def test_a_frame_that_cannot_be_read_or_used_is_named(model, data, tmp_path):
    model.inputs = frozenset({"image", "points"})
    frame = data.frame(0)
    frame.points = None
    with pytest.raises(InputError, match="oracle needs points"):
        inference.tracks_of(model, [frame], Report())
    next((tmp_path / "kins/training/image_2").glob("000003*")).unlink()
    model.inputs = frozenset({"image"})
    with pytest.raises(InputError, match="000003"):
        inference.run(run(model, data, tmp_path / "out"), 2, lambda *_: None)
    assert model.asked == 2  # what was done before is kept


def test_a_run_that_did_nothing_leaves_nothing_in_a_new_folder_or_in_one_of_results(data, tmp_path):
    shutil.rmtree(tmp_path / "kins/training/velodyne")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/visible.json").write_text("[]")
    words = ["infer", str(data.path), "--model", "geometric", "--workers", "0", "--out"]
    for out in (tmp_path / "new/out", tmp_path / "old"):
        with pytest.raises(InputError, match="geometric needs points"):
            CliRunner().invoke(app, [*words, str(out)], catch_exceptions=False)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "old").rglob("*")] == ["visible.json"]


def test_nothing_found_is_a_result_too(model, data, tmp_path):
    model.infer = lambda frames, report=None: [Tracks.empty((64, 96)) for _ in frames]
    inference.run(run(model, data, tmp_path / "out"), 0, lambda *_: None)
    assert json.loads((tmp_path / "out/amodal.json").read_text()) == []


def test_the_command_runs_a_checkpoint_over_data(data, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    register_tiny()
    tiny = Tiny(TinyConfig(CLASSES))
    info = CheckpointInfo("tiny", tiny.config_json(), CLASSES)
    save_checkpoint(tmp_path / "tiny.safetensors", tiny, info)
    told = ["infer", str(data.path), "--model", "tiny", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(
        app, [*told, "--checkpoint", str(tmp_path / "tiny.safetensors"), "--workers", "0"]
    )
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out/amodal.json").read_text())
    assert {r["image_id"] for r in rows} == {image["id"] for image in data.images}
    shutil.copytree(tmp_path / "kins", tmp_path / "elsewhere")
    alone = shutil.copy(data.path, tmp_path / "alone.json")
    far = ["infer", str(alone), "--images", str(tmp_path / "elsewhere"), *told[2:4], "--workers"]
    options = ["0", "--checkpoint", str(tmp_path / "tiny.safetensors"), "--out"]
    result = CliRunner().invoke(app, [*far, *options, str(tmp_path / "far")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "far/amodal.json").read_text()) == rows
    without = CliRunner().invoke(app, told)
    assert isinstance(without.exception, InputError)
    assert "needs a checkpoint" in str(without.exception)


@pytest.fixture(scope="module")
def flagship():
    """A small input's worth of statistics in its norms, so that scores are not all alike."""
    torch.manual_seed(0)
    model = Flagship(FlagshipConfig(("car", "pedestrian"))).train()
    with torch.no_grad():
        for _ in range(10):
            model(torch.randn(2, 3, 64, 96), torch.rand(2, 2, 64, 96))
    return model.fuse()


def test_onnxruntime_gives_what_torch_gives(flagship, tmp_path):
    pytest.importorskip("onnxruntime")
    done = export(flagship, tmp_path / "flagship.onnx", (96, 64))
    assert done.error < 1e-3
    assert done.inputs == {"images": (1, 3, 64, 96), "depth": (1, 2, 64, 96), "limits": (1, 2)}
    assert [p.name for p in tmp_path.iterdir()] == ["flagship.onnx"]
    # Nothing in it tells where the code lies that wrote it.
    assert b"/amodal_core/" not in (tmp_path / "flagship.onnx").read_bytes()


def test_what_cannot_be_exported_is_refused(flagship, tmp_path):
    with pytest.raises(InputError, match="multiples of 32"):
        export(flagship, tmp_path / "x.onnx", (100, 64))
    with pytest.raises(InputError, match="tiny has no graph"):
        export(Tiny(TinyConfig(CLASSES)), tmp_path / "x.onnx", (96, 64))
    assert list(tmp_path.iterdir()) == []


class Watcher(Oracle):
    """An oracle that notes when it is told to forget."""

    def __init__(self, data):
        super().__init__(data)
        self.forgot = []

    def reset(self):
        self.forgot.append(self.asked)


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    """Two bags, which are two videos."""
    folder = tmp_path_factory.mktemp("drives")
    for name, streets in (("a", Streets(5)), ("b", Streets(4, first=5))):
        list(write_video(streets, "street", folder / name))
    return folder


def test_a_folder_of_bags_is_one_data_set_with_a_video_a_bag(drives):
    data = open_dataset(drives)
    assert data.videos == ("a", "b")
    assert [data.place(k).index for k in range(len(data))] == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    alone = open_dataset(drives / "b")
    for name in ("ids", "depths"):
        assert np.array_equal(getattr(data.truth(6), name), getattr(alone.truth(1), name))
    names = [data.classes[k] for k in data.truth(6).class_ids]
    assert names == [alone.classes[k] for k in alone.truth(1).class_ids]


def test_tracking_follows_objects_through_each_video_and_begins_anew_in_the_next(drives, tmp_path):
    data = open_dataset(drives)
    model = Watcher(data)
    model.classes = data.classes
    work = run(model, data, tmp_path / "out", tracker=Tracker())
    inference.run(work, 0, lambda *_: None)
    assert model.forgot == [0, 5]
    truth = read_truth(drives)
    found = read_predictions(tmp_path / "out", truth)
    tracker = Tracker()
    for video in data.videos:
        tracker.reset()
        for k in data.in_video(video):
            frame = Pipeline.project(data.frame(k), Report())
            expected = tracker.step(data.truth(k), frame.stamp, frame)
            mine = found.image_ids == k + 1
            assert sorted(found.instance_ids[mine]) == sorted(expected.ids.tolist())


def test_a_killed_tracking_run_begins_its_video_anew(drives, tmp_path):
    data = open_dataset(drives)
    model = Watcher(data)
    model.classes = data.classes
    first = run(model, data, tmp_path / "out", tracker=Tracker())
    for indices in first.left()[:4]:  # two at a time: video a, and the first two frames of b
        first.step(indices, [data.frame(k) for k in indices])
    again = run(model, data, tmp_path / "out", tracker=Tracker())
    assert again.left() == [[5, 6], [7, 8]]
    inference.run(again, 0, lambda *_: None)
    inference.run(run(model, data, tmp_path / "whole", tracker=Tracker()), 0, lambda *_: None)
    assert (tmp_path / "out/amodal.json").read_text() == (
        tmp_path / "whole/amodal.json"
    ).read_text()


def test_single_images_are_not_tracked(model, data, tmp_path):
    with pytest.raises(InputError, match="no video"):
        run(model, data, tmp_path / "out", tracker=Tracker())


class Completing(Oracle):
    """Takes visible masks and gives the true whole ones; counts the clips."""

    def __init__(self, data):
        super().__init__(data)
        self.clips = []

    def complete(self, frames, visible_tracks, report=None):
        self.clips.append(len(frames))
        return [self.truth[f.image.tobytes()] for f in frames]


def test_a_model_given_visible_masks_gets_whole_videos_and_keeps_their_identities(drives, tmp_path):
    data = open_dataset(drives)
    model = Completing(data)
    everything = ClassMap.exact(data.classes, data.classes)
    work = inference.Inference(model, data, tmp_path / "out", everything, {}, batch=2, given=True)
    inference.run(work, 0, lambda *_: None)
    assert model.clips == [5, 4]
    truth = read_truth(drives)
    found = read_predictions(tmp_path / "out", truth)
    assert found.instance_ids.tolist() == truth.set.instance_ids.tolist()
    result = occluded_iou.evaluate(truth.set, found, occluded_iou.PROTOCOLS["eoras"])
    assert (result.full, result.matched) == pytest.approx((1.0, 1.0), abs=1e-6)


def test_single_images_are_given_one_by_one_and_other_models_refuse(model, data, tmp_path):
    everything = ClassMap.exact(data.classes, data.classes)
    completing = Completing(data)
    work = inference.Inference(
        completing, data, tmp_path / "out", everything, {}, batch=2, given=True
    )
    inference.run(work, 0, lambda *_: None)
    assert completing.clips == [1] * 5
    with pytest.raises(InputError, match="oracle finds its objects by itself"):
        inference.Inference(model, data, tmp_path / "x", everything, {}, given=True)


def test_the_command_gives_eoras_the_true_visible_masks(drives, tmp_path):
    file = save_small(tmp_path / "eoras.safetensors", detector="geometric")
    told = ["infer", str(drives), "--boxes", "truth", "--workers", "0", "--out"]
    options = ["--model", "eoras", "--checkpoint", str(file)]
    result = CliRunner().invoke(app, [*told, str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    truth = read_truth(drives)
    found = read_predictions(tmp_path / "out", truth)
    result = occluded_iou.evaluate(truth.set, found, occluded_iou.PROTOCOLS["eoras"])
    # Random weights draw anything, but of every object.
    assert result.matched > 0.9
    other = CliRunner().invoke(app, [*told, str(tmp_path / "x"), "--model", "mask_rcnn"])
    assert "finds its objects by itself" in str(other.exception)
    for more, said in (
        (["--track", "--map", "a=b"], "not together with --map, --track"),
        (["--boxes", "model", "--tracker", "quasi_dense"], "add --track"),
        (["--boxes", "model", "--tracker-set", "min_hits=1"], "add --track"),
    ):
        wrong = CliRunner().invoke(app, [*told, str(tmp_path / "x"), *options, *more])
        assert isinstance(wrong.exception, InputError)
        assert said in str(wrong.exception)


def test_settings_of_a_model_are_given_on_the_command_line(drives, tmp_path):
    file = save_small(tmp_path / "eoras.safetensors", detector="")
    options = ["--model", "eoras", "--checkpoint", str(file), "--workers", "0"]
    told = ["infer", str(drives), *options, "--max-frames", "1", "--out"]
    without = CliRunner().invoke(app, [*told, str(tmp_path / "a")])
    assert "no detector" in str(without.exception)
    rules = ["--set", "detector=geometric"]
    result = CliRunner().invoke(app, [*told, str(tmp_path / "b"), *rules])
    assert result.exit_code == 0, result.output
    for wrong, says in (
        ("detector", "not setting=value"),
        ("bogus=1", "no setting 'bogus'"),
        ("min_score=abc", "min_score: input should be a valid number"),
        ("min_score=2", "min_score: input should be less than or equal to 1 (got 2)"),
    ):
        result = CliRunner().invoke(app, [*told, str(tmp_path / "c"), "--set", wrong])
        assert says in str(result.exception)
