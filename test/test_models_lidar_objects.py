"""LiDAR proposals and the depth of objects: exact scenes, any scale, a detector at rest."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_scenes import truth
from training_scenes import run_config, write_streets

from amodal_core.errors import InputError
from amodal_core.frame import Calibration, Frame
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, read_info, save_checkpoint
from amodal_core.models.layers.batch import DEPTH_CHANNELS, make_batch, targets_of
from amodal_core.models.layers.object_depth import object_depth
from amodal_core.models.layers.pillars import Grid
from amodal_core.models.lidar_objects import with_truth
from amodal_core.models.pointpillars import Boxes3d, PointPillars, PointPillarsConfig
from training.train import train

SIZE = (96, 128)
CALIBRATION = Calibration(
    np.array([[100.0, 0, 63.5], [0, 100.0, 47.5], [0, 0, 1]]),
    np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    SIZE[1],
    SIZE[0],
)
CAR = (12.0, 0, 0, 4, 2, 2, 0)  # its front is 2 m x 2 m, 10 m away
CAR_RECT = (54.0, 38, 74, 58)
BEHIND = (-10.0, 0, 0, 4, 2, 2, 0)
BESIDE = (0.0, 2, 0, 4, 2, 2, 0)  # beginning 2 m behind the camera, ending 2 m before it
BESIDE_RECT = (0.0, 0, 14, 96)
# Every box scores a little with random weights: enough to have some.
GRID = Grid(low=(0.0, -10.24, -3.0), high=(20.48, 10.24, 1.0), cell=0.32)
DETECTOR = PointPillarsConfig(grid=GRID, min_score=0.0, max_instances=8)
SMALL = {
    "classes": ("car", "person"), "backbone": "resnet18", "norm": "group", "frozen_stages": 0,
    "samples": 16, "proposals": 10, "proposals_train": 20, "max_instances": 10, "min_score": 0.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("detector") / "pointpillars.safetensors"
    model = PointPillars(DETECTOR)
    save_checkpoint(path, model, CheckpointInfo(model.name, model.config_json(), model.classes))
    return str(path)


def model_of(name, weights, **changes):
    return registry.learned(name).from_config(SMALL | {"lidar_weights": weights} | changes)


def finds(model, *boxes, scores=None, labels=None):
    """Let the detector find these boxes in every scan, whatever is there."""
    n = len(boxes)
    found = Boxes3d(
        torch.tensor(boxes, dtype=torch.float32).reshape(n, 7),
        torch.tensor([0.9] * n if scores is None else scores),
        torch.tensor([2] * n if labels is None else labels, dtype=torch.long),  # cars
    )
    model.lidar_objects.network.detect3d = lambda scans: [found] * len(scans)


def scan(seed=0, n=400):
    draw = np.random.default_rng(seed)
    return draw.uniform((3, -6, -2, 0), (20, 6, 1, 1), (n, 4)).astype(np.float32)


def frame(seed=0, points=None):
    image = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    given = scan(seed) if points is None else points
    return Frame(1, image=image, points=given, calibration=CALIBRATION)


def batch(*boxes, points=None, **options):
    """Frames with these true rectangles."""
    frames = [frame(n, points) for n in range(len(boxes))]
    return make_batch(frames, [targets_of(truth(SIZE, b)) for b in boxes], **options)


def finite(losses):
    return all(torch.isfinite(v) for v in losses.values())


# Proposals


@pytest.mark.parametrize("short_side", [48, 96, 192])
def test_a_box_at_a_known_place_gives_a_known_rectangle_at_any_scale(weights, short_side):
    model = model_of("mask_rcnn", weights, proposals_from="lidar")
    finds(model, CAR, BEHIND, BESIDE)
    (found,) = model.sensed(batch([], short_side=short_side)).lidar_boxes
    ratio = short_side / SIZE[0]
    expected = np.array([CAR_RECT, BESIDE_RECT]) * ratio
    np.testing.assert_allclose(found.boxes, expected, atol=1e-3)
    assert found.depths.tolist() == [12, 0]


@pytest.mark.parametrize("short_side", [0, 48, 192])
def test_boxes_classes_and_scores_of_the_lidar_are_the_detections(weights, short_side):
    model = model_of(
        "aisformer", weights, proposals_from="lidar", short_side=short_side, lidar=False, hidden=16
    )
    # A cyclist has no name among the model's classes, a pedestrian is a person.
    far = (18.0, 0, 0, 2, 2, 2, 0)
    finds(model, CAR, CAR, far, scores=[0.9, 0.8, 0.7], labels=[2, 1, 0])
    (found,) = model.infer([frame()])
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert [model.classes[k] for k in found.class_ids] == ["car", "person"]
    np.testing.assert_allclose(found.amodal_boxes[0], CAR_RECT, atol=0.01)
    assert found.depths.tolist() == pytest.approx([12, 18])
    strict = replace(model.config, min_score=0.8)
    model.config = strict
    assert len(model.infer([frame()])[0]) == 1


def test_without_points_boxes_or_anything_in_view_nothing_is_found_and_training_goes_on(weights):
    model = model_of("mask_rcnn", weights, proposals_from="lidar")
    nothing = np.zeros((0, 4), np.float32)
    # The detector's own answer to no points.
    losses = model.train().losses(batch([], points=nothing))
    assert finite(losses)
    sum(losses.values()).backward()
    for boxes in ([], [BEHIND]):
        finds(model, *boxes)
        assert [len(r) for r in model.infer([frame()])] == [0]
        assert finite(model.train().losses(batch([], [(10, 10, 60, 50)])))


def test_one_box_an_object_and_as_many_as_fit():
    """Greedy matching could give object 0 the box that only object 1 can do with."""
    truth = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]])
    found = torch.tensor([[1.0, 0, 11, 10], [-2.5, 0, 7.5, 10], [54, 50, 64, 60]])  # IoU .43
    boxes, matched = with_truth(found, truth)
    assert torch.equal(boxes[:3], truth)
    assert torch.equal(boxes[3:], found[[0, 1]])
    assert matched.tolist() == [0, 1, 2, 1, 0]
    boxes, matched = with_truth(found[:0], truth[:0])
    assert boxes.shape == (0, 4)
    assert matched.tolist() == []


@pytest.mark.parametrize("name", ["mask_rcnn", "orcnn", "aisformer", "vrsp"])
def test_the_image_model_learns_from_lidar_boxes_and_the_detector_does_not(name, weights):
    extra = {"aisformer": {"hidden": 16}, "vrsp": {"reclassification_hidden": 8, "centres": 8}}
    settings = {"proposals_from": "lidar", "depth": "objects", **extra.get(name, {})}
    model = model_of(name, weights, **settings).train()
    before = {k: v.clone() for k, v in model.lidar_objects.state_dict().items()}
    losses = model.losses(batch([(54, 38, 74, 58), (10, 10, 50, 40)]))
    assert finite(losses)
    assert not {"rpn_box", "class", "box"} & set(losses)
    sum(losses.values()).backward()
    own = dict(model.named_parameters())
    detector = [n for n in own if n.startswith("lidar_objects.")]
    assert len(detector) > 20
    assert not any(own[n].requires_grad for n in detector)
    still = [n for n, p in own.items() if n not in detector and (p.grad is None)]
    assert still == []
    assert model.backbone.body.conv1.weight.grad.abs().sum() > 0
    assert not any(m.training for m in model.lidar_objects.modules())
    assert all(torch.equal(before[k], v) for k, v in model.lidar_objects.state_dict().items())
    assert not [n for n in own if n.startswith(("rpn.", "heads."))]
    (found,) = model.infer([frame()])
    assert len(found) == len(found.scores)


def test_lidar_boxes_join_the_proposals_of_the_image(weights, monkeypatch):
    model = model_of("mask_rcnn", weights, proposals_from="both")
    finds(model, CAR)
    offered = []
    predict = model.heads.predict
    monkeypatch.setattr(
        model.heads, "predict", lambda f, boxes, b: offered.extend(boxes) or predict(f, boxes, b)
    )
    rect = torch.tensor(CAR_RECT)
    model.infer([frame()])
    assert len(offered[0]) == SMALL["proposals"] + 1
    assert torch.allclose(offered[0][-1], rect, atol=1e-3)
    some = model.sensed(batch([(10, 10, 60, 50)]))
    features = model.backbone(some.inputs(True))
    proposals, losses = model.train().propose(features, some.targets, some)
    assert torch.allclose(proposals[0][-1], rect, atol=1e-3)
    assert set(losses) == {"rpn_objectness", "rpn_box"}
    assert finite(model.losses(batch([(10, 10, 60, 50)], [])))


def test_models_of_likeness_take_lidar_proposals_beside_their_own_only(weights):
    with pytest.raises(InputError, match="likeness"):
        model_of("vatrack", weights, proposals_from="lidar")
    model = model_of("vatrack", weights, proposals_from="both", depth="objects").train()
    pair = batch([(10, 10, 60, 50)], [(12, 10, 62, 50)])
    pair.clip = 2
    assert finite(model.losses(pair))
    assert len(model.infer([frame()])) == 1


def test_rescoring_leaves_lidar_scores_alone(weights):
    model = model_of("vrsp", weights, proposals_from="lidar", reclassification_hidden=8, centres=8)
    finds(model, CAR, CAR, scores=[0.9, 0.8])
    (found,) = model.infer([frame()])
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])


def test_batched_and_single_inference_agree(weights):
    model = model_of("mask_rcnn", weights, proposals_from="lidar", depth="objects")
    frames = [frame(n) for n in range(3)]
    together = [r.numpy() for r in model.infer(frames)]
    assert all(len(r) for r in together)
    for one, expected in zip(frames, together, strict=True):
        alone = model.infer([one])[0].numpy()
        np.testing.assert_allclose(alone.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(alone.amodal_boxes, expected.amodal_boxes, atol=0.05)


def test_a_frame_must_have_points_and_calibration(weights):
    model = model_of("mask_rcnn", weights, depth="objects")
    assert model.inputs == {"image", "points", "calibration"}
    assert model.optional == frozenset()
    assert registry.learned("mask_rcnn").from_config(SMALL).inputs == {"image"}
    with pytest.raises(InputError, match="need points"):
        model.infer([replace(frame(), points=None)])


# Depth of objects


def plate(x=10.0, y=(-1.0, 1.0), z=(-1.0, 1.0), steps=21, slope=0.0):
    """Returns on a plate across the road; the depth grows by `slope` for each metre to the left."""
    across, up = np.meshgrid(np.linspace(*y, steps), np.linspace(*z, steps))
    points = np.stack([x + slope * across, across, up, np.full_like(up, 0.7)], -1)
    return points.reshape(-1, 4).astype(np.float32)


def depth(points, *boxes, scale=1.0):
    size = round(SIZE[0] * scale), round(SIZE[1] * scale)
    return object_depth(
        points, np.array(boxes).reshape(-1, 7), CALIBRATION, torch.full((2,), scale), size
    )


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_an_object_has_its_depth_between_its_returns_and_nothing_else_has_any(scale):
    wall = plate(19.0, y=(-8, 8), z=(-4, 4))
    found = depth(np.concatenate([wall, plate()]), CAR, scale=scale)
    # The outermost returns are centred on 53.5 and 73.5, the corners of pixels of whole size.
    x0, y0, x1, y1 = (round(v * scale) for v in (54, 38, 74, 58))
    inner = found[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1]
    np.testing.assert_allclose(inner, 10.0, atol=1e-5)
    outside = found.copy()
    outside[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = 0
    assert not outside.any()


def test_depth_is_along_the_optical_axis_and_linear_between_returns():
    corners = np.array(
        [[10, 1, 0.9, 0.1], [12, -1.2, 1.08, 0.9], [10, 1, -0.9, 0.5], [12, -1.2, -1.08, 0]],
        np.float32,
    )
    found = depth(corners, (11.0, 0, 0, 4, 4, 4, 0))
    columns = np.arange(54, 73)
    expected = 10 + 2 * (columns - 53.5) / 20  # from column 53.5 to column 73.5
    np.testing.assert_allclose(found[48, 54:73], expected, atol=1e-4)
    np.testing.assert_allclose(found[41, 54:73], expected, atol=1e-4)
    without_intensity = corners * np.array([1, 1, 1, 0], np.float32)
    assert np.array_equal(depth(without_intensity, (11.0, 0, 0, 4, 4, 4, 0)), found)


def test_depth_is_the_same_at_every_scale():
    points = plate(slope=0.8)
    small, large = (depth(points, (10.0, 0, 0, 4, 4, 4, 0), scale=s) for s in (1.0, 2.0))
    # A pixel's centre is the corner between four pixels of half its size.
    mean = large.reshape(SIZE[0], 2, SIZE[1], 2).mean((1, 3))
    inner = slice(40, 56), slice(56, 72)
    np.testing.assert_allclose(mean[inner], small[inner], atol=1e-3)


def test_the_nearest_object_shows_where_two_overlap():
    near, far = plate(8.0, y=(0, 1)), plate(15.0, y=(-2, 2), z=(-2, 2))
    boxes = (8.0, 0.5, 0, 1, 2, 3, 0), (15.0, 0, 0, 1, 5, 5, 0)
    for order in (boxes, boxes[::-1]):
        found = depth(np.concatenate([near, far]), *order)
        assert found[48, 58] == pytest.approx(8.0)
        assert found[48, 68] == pytest.approx(15.0)


@pytest.mark.parametrize("count", [0, 1, 2, 21])
def test_too_few_returns_for_an_area_show_in_their_own_pixels(count):
    line = plate(steps=21)[:21][:count]  # all at the same height
    found = depth(line, CAR)
    pixels = {(round(47.5 + 10), round(63.5 - 10 * p[1])) for p in line.astype(float)}
    assert (found > 0).sum() == len(pixels)
    assert all(found[row, column] == pytest.approx(10.0) for row, column in pixels)


def test_a_turned_box_holds_what_lies_in_it_and_no_more():
    turned = (10.0, 0, 0, 6, 1, 2, np.pi / 2)  # 6 m across the road
    points = np.array([[10, 2.5, 0, 0], [10.8, 0, 0, 0], [10.4, -2.5, 0, 0]], np.float32)
    found = depth(points, turned)
    assert sorted(set(found[found > 0].tolist())) == pytest.approx([10.0, 10.4])


def test_depth_channels_show_objects_only_and_reach_the_stem(weights):
    model = model_of("orcnn", weights, depth="objects").train()
    finds(model, CAR)
    some = batch([(54, 38, 74, 58)], points=plate())
    sensed = model.sensed(some)
    assert sensed.depth.shape == (1, DEPTH_CHANNELS, *some.images.shape[2:])
    known = sensed.depth[0, 1] > 0
    assert known[40:56, 56:72].all()
    assert known.sum() <= 22 * 22
    assert sensed.depth[0, 0, 48, 64] == pytest.approx(np.log(10) / np.log(80))
    sum(model.losses(some).values()).backward()
    assert model.backbone.body.conv1.weight.grad[:, 3:].abs().sum() > 0
    finds(model)
    assert not model.sensed(some).depth.any()


# Settings and checkpoints


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proposals_from": "radar"}, "should be 'image', 'lidar' or 'both'"),
        ({"depth": "all"}, "should be 'frame' or 'objects'"),
        ({"depth": "objects", "lidar": False}, "lidar: true"),
        ({"depth": "objects", "classes": ("tram",)}, "no class of PointPillars"),
        ({"depth": "objects", "lidar_detector": {"nms": 0.5}}, "the checkpoint has its own"),
        ({"depth": "objects", "lidar_weights": "none.safetensors"}, "no such checkpoint"),
        ({"depth": "objects", "lidar_weights": "none.pth"}, "no such weights"),
    ],
)
def test_settings_that_cannot_be_are_named(weights, changes, message):
    with pytest.raises(InputError, match=message):
        model_of("mask_rcnn", weights, **changes)


def test_a_detector_without_weights_is_refused():
    model = model_of("mask_rcnn", "", proposals_from="lidar")
    with pytest.raises(InputError, match="no weights"):
        model.infer([frame()])


def test_public_weights_begin_a_training(tmp_path):
    detector = PointPillars(DETECTOR)
    torch.save(detector.state_dict(), tmp_path / "epoch.pth")
    settings = {"grid": {"low": list(GRID.low), "high": list(GRID.high), "cell": 0.32}}
    model = model_of(
        "mask_rcnn", str(tmp_path / "epoch.pth"), depth="objects", lidar_detector=settings
    )
    own = model.lidar_objects.network
    assert torch.equal(own.head.conv_cls.weight, detector.head.conv_cls.weight)


def test_a_few_steps_train_and_the_checkpoint_holds_the_detector(weights, tmp_path):
    streets = write_streets(tmp_path / "streets", 3)
    gone = tmp_path / "detector.safetensors"
    shutil.copy(weights, gone)
    settings = {k: v for k, v in SMALL.items() if k != "classes"}
    settings |= {"proposals_from": "lidar", "depth": "objects", "lidar_weights": str(gone)}
    values = {
        "model": "aisformer", "settings": settings | {"hidden": 16}, "steps": 3, "ema": 0.9,
        "schedule": {"kind": "cosine"}, "optimiser": {"name": "adamw", "rate": 1e-3},
        "augment": {"flip": 0.5, "depth_dropout": 0.3, "scale": [0.9, 1.1]},
        "held_out": [{"path": str(streets), "stop": 1}],
    }  # fmt: skip
    outcome = train(run_config(tmp_path / "run", streets, **values))
    gone.unlink()
    path = str(outcome.checkpoints[-1])
    assert read_info(path).config["lidar_weights"] == ""
    model = registry.create("aisformer", "cpu", checkpoint=path, runtime="torch")
    assert model.config.lidar_detector == DETECTOR
    detector = PointPillars.from_checkpoint(weights)
    theirs = model.lidar_objects.network.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in detector.state_dict().items())
    again = registry.create("aisformer", "cpu", checkpoint=path, runtime="torch")
    one, two = (m.infer([frame()])[0].numpy() for m in (model, again))
    assert len(one) > 0
    assert np.array_equal(one.scores, two.scores)
    assert one.amodal.rle().counts == two.amodal.rle().counts
    with pytest.raises(InputError, match="weights for depth objects"):
        registry.create("aisformer", "cpu", checkpoint=path, depth="frame")
