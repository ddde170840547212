"""EoRaS live: any detector, identities inside the stream, a memory that ends with its object."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from box_scenes import boxes_seen
from eoras_scenes import Told, count_crops, register_told, save_small
from training_scenes import CAMERA, Drives, K

from amodal_core.datasets.base import BEGIN, PERIOD
from amodal_core.errors import InputError
from amodal_core.frame import Calibration, Frame, Instances, Report
from amodal_core.geometry.projection import depth_image
from amodal_core.models import registry
from amodal_core.models.base import stream_of
from amodal_core.models.layers.batch import make_batch
from amodal_core.pipeline import Pipeline
from amodal_core.warm_up import warm_up_frame

SIZE = (64, 96)
WIDER = K * [[0.8], [0.8], [1]]
THING, WALL = (30, 20, 50, 40), (20, 10, 60, 50)


@pytest.fixture(autouse=True)
def told(monkeypatch):
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.setattr(Told, "scenes", {})
    register_told()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("eoras") / "small.safetensors")


@pytest.fixture
def model(checkpoint):
    return registry.create("eoras", checkpoint=checkpoint)


def told_drive(length):
    """A drive whose objects the detector finds as they are."""
    samples = Drives((length,)).samples
    for sample in samples:
        truth = sample.truth[np.asarray(sample.truth.visible_boxes).any(1)]
        names = Instances.__dataclass_fields__
        Told.scenes[sample.frame.stamp] = Instances(**{k: getattr(truth, k) for k in names})
    return samples


def picture(k, image=None):
    """The frame of a moment, without calibration or depth."""
    if image is None:
        image = np.full((*SIZE, 3), 90, np.uint8)
    return Frame(BEGIN + k * PERIOD, image=image)


def tell(k, boxes, depths):
    Told.scenes[BEGIN + k * PERIOD] = boxes_seen(SIZE, boxes, depths)


def same(a, b):
    return (
        len(a) == len(b)
        and a.amodal.rle().counts == b.amodal.rle().counts
        and a.visible.rle().counts == b.visible.rle().counts
        and np.allclose(a.amodal_boxes, b.amodal_boxes)
    )


def test_objects_are_the_detectors_and_whole_masks_those_of_a_clip_that_ends_here(model):
    samples = told_drive(5)
    frames, truths = [s.frame for s in samples], [s.truth for s in samples]
    assert model.classes == Told.classes
    for t, frame in enumerate(frames):
        (found,) = model.infer([frame])
        given = Told.scenes[frame.stamp]
        clip = model.complete(frames[: t + 1], truths[: t + 1])[-1]
        shown = truths[t].ids[np.asarray(truths[t].visible_boxes).any(1)]
        clip = clip[np.isin(clip.ids, shown)]
        assert len(found) == len(given) == len(clip)
        assert np.array_equal(found.class_ids, given.class_ids)
        assert np.array_equal(found.scores, given.scores)
        assert np.array_equal(found.depths, given.depths)
        drawn = (found.amodal.rle() - given.amodal.rle()).areas() > 0
        assert drawn.any()
        assert (np.diag(found.amodal.rle().iou(clip.amodal)) > 0.98).all()
        assert (found.visible - found.amodal).areas().sum() == 0
        assert (found.visible - given.visible).areas().sum() == 0


def test_the_memory_matters(model):
    samples = told_drive(5)
    for sample in samples[:4]:
        model.infer([sample.frame])
    (later,) = model.infer([samples[4].frame])
    model.reset()
    (alone,) = model.infer([samples[4].frame])
    assert not same(later, alone)


def test_several_frames_at_once_are_the_frames_one_by_one(model):
    frames = [s.frame for s in told_drive(4)]
    at_once = model.infer(frames)
    model.reset()
    one_by_one = [model.infer([f])[0] for f in frames]
    assert all(same(a, b) for a, b in zip(at_once, one_by_one, strict=True))
    assert model.infer([]) == []


def test_streams_of_several_cameras_share_weights_and_no_memory(model):
    frames = [s.frame for s in told_drive(4)]
    alone = model.infer(frames)
    model.reset()
    other = stream_of(model)
    assert next(other.parameters()) is next(model.parameters())
    # The other camera is two frames behind.
    for n, frame in enumerate(frames):
        assert same(*model.infer([frame]), alone[n])
        if n >= 2:
            assert same(*other.infer([frames[n - 2]]), alone[n - 2])
    model.reset()
    assert same(*other.infer([frames[2]]), alone[2])


def test_each_crop_of_a_frame_is_encoded_once_all_in_one_batch(model, monkeypatch):
    frames = [s.frame for s in told_drive(3)]
    counts = count_crops(model, monkeypatch)
    found = model.infer(frames)
    assert counts == [len(f) for f in found]
    assert min(counts) >= 3


def test_frames_without_objects_and_without_calibration_are_fine(model):
    (found,) = model.infer([picture(0)])
    assert len(found) == 0
    tell(1, [THING, (0, 0, 1, 1)], [10.0, 9.0])
    (found,) = model.infer([picture(1)])
    assert len(found) == 2
    assert np.isfinite(found.amodal_boxes).all()
    tell(2, [THING], [10.0])
    Told.scenes[BEGIN + 2 * PERIOD].amodal_boxes[:] = np.nan
    assert len(model.infer([picture(2)])[0]) == 0


def test_the_view_from_above_is_used_where_there_is_a_calibration(model):
    (sample,) = told_drive(1)
    (seen,) = model.infer([sample.frame])
    model.reset()
    (flat,) = model.infer([replace(sample.frame, calibration=None)])
    assert not same(seen, flat)
    batch = make_batch([sample.frame])
    moved = make_batch([replace(sample.frame, calibration=Calibration(WIDER, CAMERA, 96, 64))])
    window, zero = torch.tensor([[20.0, 10, 60, 50]]), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        front, above = model.tokens(batch, zero, window)
        same_front, other = model.tokens(moved, zero, window)
    assert torch.equal(front, same_front)
    assert not torch.equal(above, other)


def hide(model, begin, end):
    """A thing seen for ten frames, then only the wall before it; what is found in each frame."""
    found = []
    for k in range(end):
        boxes = [(THING, 20.0)] if k < begin else [(WALL, 8.0)]
        tell(k, *zip(*boxes, strict=True))
        found += model.infer([picture(k)])
    return found


def test_a_hidden_object_is_drawn_for_three_seconds_with_an_empty_visible_mask(model):
    found = hide(model, 20, 60)
    for k, one in enumerate(found[20:50], start=20):
        assert len(one) == 2, k
        assert one.visible.areas()[0] > 0
        assert one.visible.areas()[1] == 0
        assert not one.visible_boxes[1].any()
        assert one.occlusion_rates[1] == 1
        assert one.depths[1] == pytest.approx(20, abs=0.5)
        assert one.occluders[1, 0]
        assert one.amodal.areas()[1] > 0
    assert [len(one) for one in found[50:]] == [1] * 10
    assert len(model.stream) == 1  # the wall


def test_lidar_that_sees_something_nearer_hides_too(model):
    near = np.full((*SIZE,), 8.0, np.float32)
    for k in range(20):
        tell(k, [THING], [20.0])
        model.infer([replace(picture(k), depth=np.full(SIZE, 20.0, np.float32))])
    (blind,) = model.infer([replace(picture(20), depth=near)])
    assert len(blind) == 1
    assert blind.visible.areas()[0] == 0
    beyond = np.full(SIZE, 60.0, np.float32)
    gone = [model.infer([replace(picture(k), depth=beyond)])[0] for k in range(21, 25)]
    assert [len(g) for g in gone] == [0] * 4
    assert len(model.stream) == 0


def test_an_object_that_the_detector_overlooks_is_not_drawn_but_remembered(model):
    for k in range(6):
        tell(k, [THING], [20.0])
        model.infer([picture(k)])
    assert len(model.infer([picture(6)])[0]) == 0
    assert len(model.stream) == 1
    tell(7, [THING], [20.0])
    (again,) = model.infer([picture(7)])
    model.reset()
    (fresh,) = model.infer([picture(7)])
    assert not same(again, fresh)


def test_faint_detections_are_drawn_without_a_memory(model):
    tell(0, [THING], [20.0])
    Told.scenes[BEGIN].scores[:] = 0.2
    (found,) = model.infer([picture(0)])
    assert len(found) == 1
    assert len(model.stream) == 0


@pytest.mark.parametrize("how", ["reset", "loop"])
def test_reset_and_a_jump_back_in_time_forget_everything(model, how):
    frames = [s.frame for s in told_drive(3)]
    first = model.infer(frames)
    if how == "reset":
        model.reset()
        assert len(model.stream) == 0
        assert model.detector.resets == 1
    report = Report()
    again = model.infer(frames, report)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert any("jumped back" in w.text for w in report.warnings) == (how == "loop")


def run_long(model, steps, every=20):
    """Objects come, stay for two seconds and go; how many are remembered, and tensors alive.

    Tensors are counted at every so many steps, which takes as long as several of them.
    """
    kept, tensors = [], []
    for k in range(steps):
        boxes = [(8 * n, 10 + n, 8 * n + 14, 40 + n) for n in range(6) if (k // 20 + n) % 4]
        tell(k, boxes, [10.0 + n for n in range(len(boxes))])
        model.infer([picture(k)])
        Told.scenes.clear()
        kept.append(len(model.stream))
        if k % every == every - 1:
            tensors.append(sum(type(o) is torch.Tensor for o in gc.get_objects()))
    return kept, tensors


def is_flat(values, ignored):
    later = values[ignored:]
    return max(later) <= max(values[:ignored]) * 1.05


def test_memory_is_flat_over_a_stream(model):
    kept, tensors = run_long(model, 300)
    assert is_flat(kept, 100)
    assert is_flat(tensors, 6)
    assert max(kept) < 30


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_is_flat_over_a_long_stream(model, monkeypatch):
    # What is kept of objects does not depend on how crops are encoded.
    cheap = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Conv2d(3, 16, 1))
    monkeypatch.setattr(model.encoder, "forward", cheap.forward)
    kept, tensors = run_long(model, 10_000, every=200)
    assert is_flat(kept, 200)
    assert is_flat(tensors, 10)


# Who the detector is


def test_geometric_serves_as_the_detector_and_says_what_frames_need(checkpoint):
    model = registry.create("eoras", checkpoint=checkpoint, detector="geometric")
    assert model.inputs == {"image", "points", "calibration"}
    assert model.optional == {"depth"}
    frame = warm_up_frame()
    frame = replace(frame, depth=depth_image(frame.points, frame.calibration))
    report = Report()
    (found,) = model.infer([frame], report)
    (detected,) = registry.create("geometric").infer([frame])
    assert len(found) == len(detected) > 2
    assert np.array_equal(found.boxes3d, detected.boxes3d)
    assert {"eoras.detect", "eoras.track", "eoras.network", "eoras.instances"} <= set(
        report.timings
    )
    tracks, _ = Pipeline(model).step(frame)
    assert len(tracks) == len(found)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"detector": "nobody"}, "no model 'nobody'"),
        ({"detector": "eoras"}, "eoras cannot detect"),
        ({"detector": "aisformer"}, "'aisformer' needs a checkpoint"),
        ({"detector": "geometric", "detector_checkpoint": "x.safetensors"}, "takes no checkpoint"),
        ({"detector": "flagship", "detector_checkpoint": "x.safetensors"}, "no such checkpoint"),
    ],
)
def test_detectors_that_cannot_be_are_named(checkpoint, settings, says):
    with pytest.raises(InputError, match=says):
        registry.create("eoras", checkpoint=checkpoint, **settings)


def test_without_a_detector_a_stream_is_refused(checkpoint):
    model = registry.create("eoras", checkpoint=checkpoint, detector="")
    with pytest.raises(InputError, match="no detector"):
        model.infer([picture(0)])


# In the pipeline and in the node


def test_the_trackers_downstream_carry_the_drawn_mask_and_the_identity(model):
    pipeline = Pipeline(model)
    for k in range(60):
        boxes = [(THING, 20.0)] if k < 20 else [(WALL, 8.0)]
        tell(k, *zip(*boxes, strict=True))
        step = pipeline.run(picture(k))
        if k < 20:
            assert (step.tracks.ids.tolist(), step.tracks.coasted.tolist()) == ([0], [False])
        elif 22 <= k < 50:
            assert step.tracks.ids.tolist() == [0, 1]
            assert step.tracks.coasted.tolist() == [True, False]
            drawn = step.instances.amodal.rle().counts[1]
            assert step.tracks.amodal.rle().counts[0] == drawn
    assert step.tracks.ids.tolist() == [1]


@pytest.mark.dds
def test_the_segmentation_node_runs_it_over_the_detector_it_is_told(checkpoint, domain):
    import node_bench as bench

    from amodal_ros.nodes.segmentation import Segmentation

    values = {
        "model": "eoras", "checkpoint": str(checkpoint), "settings": "detector=geometric",
        "queue": 0, "reliability": "reliable",
    }  # fmt: skip
    inputs = ["image", "camera_info", "points", "depth/image", "/tf_static"]
    running = bench.Bench(Segmentation, values, inputs)
    try:
        running.send("/tf_static", bench.tf_static())
        for turn in range(2):  # a bag that loops
            for k in range(8):
                running.send("image", bench.image(k))
                running.send("camera_info", bench.info(k))
                running.send("points", bench.cloud(k))
                running.send("depth/image", bench.depth(k))
            arrays = running.outputs("instances", 8 * (turn + 1))
        assert all(len(a.instances) >= 3 for a in arrays)
        classes = {i.class_name for a in arrays for i in a.instances}
        assert classes <= {"car", "truck", "pedestrian", "cyclist", "other"}
        drawn = [[i.amodal.counts for i in a.instances] for a in arrays]
        assert drawn[8:] == drawn[:8]
    finally:
        running.close()
