"""Changes of the scan alone: points stay on their objects, objects apart, streets in the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from training_scenes import CLASSES, Streets, run_config, street

from amodal_core.datasets import kins, kitti_write
from amodal_core.datasets.kitti import KittiObject
from amodal_core.errors import InputError
from amodal_core.geometry.boxes3d import iou_bev, points_in_boxes
from amodal_core.geometry.projection import in_view, project
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.layers import pillars
from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.models.pointpillars import PointPillars
from training import config
from training.config import ScanAugment
from training.mask_crops import CroppedTargets
from training.object_bank import ObjectBank, bank_of, collect
from training.scan_augment import augmented_scan, moved_street
from training.sources import Samples
from training.train import train

STILL = ScanAugment(move=0.0, spin=0.0, turn=0.0, scale=(1.0, 1.0))
GRID = {"low": [0, -10.24, -3], "high": [25.6, 10.24, 1]}


@pytest.fixture
def scene():
    sample = street(3)
    return sample.frame, CroppedTargets.of(sample.truth)


def held(frame, targets):
    """Returns in each box."""
    return points_in_boxes(frame.points, targets.boxes3d.numpy(), 1e-3).sum(axis=1)


def changed(scene, options, bank=None, flip=0.0, seed=0):
    return augmented_scan(*scene, options, flip, bank, np.random.default_rng(seed))


def test_a_turned_scaled_and_shifted_street_projects_to_where_it_was(scene):
    frame, targets = moved_street(*scene, 0.4, 1.05, np.array([0.3, -0.2, 0.1]))
    before = project(scene[0].points, scene[0].calibration).pixels
    assert (before[:, 0] >= 0).mean() > 0.5
    after = project(frame.points, frame.calibration).pixels
    assert (after == before).all(axis=1).mean() > 0.99
    assert np.array_equal(held(frame, targets), held(*scene))
    np.testing.assert_allclose(targets.boxes3d[:, 3:6], 1.05 * scene[1].boxes3d[:, 3:6], rtol=1e-6)
    # A quarter turn takes what is ahead to the left.
    ahead = replace(frame, points=np.array([[10.0, 0, 0, 0.5]], np.float32))
    left, _ = moved_street(ahead, targets, np.pi / 2, 1.0, np.zeros(3))
    np.testing.assert_allclose(left.points[0, :3], (0, 10, 0), atol=1e-5)


def test_moved_objects_keep_their_points_and_their_distance(scene):
    centres = scene[1].boxes3d[:, :3].numpy()
    spread = np.random.default_rng(0).uniform(-0.25, 0.25, (20, len(centres), 3))
    points = np.insert((centres + spread).reshape(-1, 3), 3, 0.5, axis=1).astype(np.float32)
    scene = replace(scene[0], points=points), scene[1]
    frame, targets = changed(scene, replace(STILL, move=0.5, spin=0.3))
    moved = (targets.boxes3d - scene[1].boxes3d).numpy()
    assert (np.abs(moved[:, :2]) > 0).all()
    assert np.abs(moved[:, 6]).max() <= 0.3
    assert held(frame, targets).tolist() == [20] * len(targets)
    boxes = targets.boxes3d.numpy().astype(float)
    assert not (iou_bev(boxes, boxes) - np.eye(len(boxes)) > 1e-6).any()
    assert len(frame.points) == len(scene[0].points)


def bank_of_one(x, y=0.0, count=7):
    """A car with returns of their own intensity."""
    box = np.array([[x, y, -0.8, 3.9, 1.6, 1.5, 0.2]], np.float32)
    points = np.tile(np.float32([x, y + 0.1, -0.5, 0.77]), (count, 1))
    return ObjectBank(CLASSES, box, np.array([0]), np.array([0, count]), points)


def test_a_scan_is_filled_up_with_objects_where_nothing_stands(scene):
    own = int((scene[1].labels == 0).sum())
    options = replace(STILL, objects={"car": own + 3})
    frame, targets = changed(scene, options, bank_of_one(40.0))
    assert len(targets) == len(scene[1]) + 1
    assert targets.labels[-1] == 0
    assert held(frame, targets)[-1] == 7
    assert not targets.occluders[-1].any()
    assert len(set(targets.ids.tolist())) == len(targets)
    taken = bank_of_one(*scene[1].boxes3d[0, :2].tolist())
    assert len(changed(scene, options, taken)[1]) == len(scene[1])
    full = replace(STILL, objects={"car": own})
    assert len(changed(scene, full, bank_of_one(40.0))[1]) == len(scene[1])


def test_returns_of_the_scan_in_an_object_put_in_are_gone(scene):
    inside = np.tile(np.float32([40.0, 0, -0.8, 0.123]), (5, 1))
    frame = replace(scene[0], points=np.concatenate([scene[0].points, inside]))
    options = replace(STILL, objects={"car": 9})
    result, _ = changed((frame, scene[1]), options, bank_of_one(40.0))
    assert not (result.points[:, 3] == np.float32(0.123)).any()
    assert (result.points[:, 3] == np.float32(0.77)).sum() == 7


def test_mirroring_takes_points_and_boxes_along(scene):
    frame, targets = changed(scene, STILL, flip=1.0)
    np.testing.assert_allclose(targets.boxes3d[:, 1], -scene[1].boxes3d[:, 1], atol=1e-6)
    assert np.array_equal(held(frame, targets), held(*scene))


@pytest.fixture(scope="module")
def kitti(tmp_path_factory) -> Path:
    """Four streets as KITTI has them, two with large objects, and a list of three."""
    root = tmp_path_factory.mktemp("kitti") / "object"
    data = Streets(4, objects=3)
    list(kitti_write.write(root, data, data.classes))
    for number in range(2):
        path = root / "training" / "label_2" / f"{number:06d}.txt"
        rows = [line.split() for line in path.read_text().splitlines()]
        easy = [[r[0], "0", "0", r[3], "0", "0", "50", "60", *r[8:]] for r in rows]
        path.write_text("".join(" ".join(r) + "\n" for r in easy))
    (root / "train.txt").write_text("000000\n000001\n000003\n")
    return root


def test_a_list_names_the_frames_that_are_read(kitti):
    data = KittiObject(kitti, frames=kitti / "train.txt")
    assert [data.place(k).name[-6:] for k in range(len(data))] == ["000000", "000001", "000003"]
    (kitti / "wrong.txt").write_text("000009")
    with pytest.raises(InputError, match="no image 000009"):
        KittiObject(kitti, frames=kitti / "wrong.txt")


UNKNOWN = {name: None for name in KittiObject.classes if name.lower() not in CLASSES}


def test_the_bank_has_the_objects_with_their_returns_and_none_that_is_too_hard(kitti, tmp_path):
    data = KittiObject(kitti)
    samples = Samples([(data, range(len(data)))], CLASSES, UNKNOWN)
    bank = collect(samples, CLASSES, {}, lambda *_: None)
    expected = sum(int((~samples.hard(k)).sum()) for k in range(len(samples)))
    everything = sum(len(samples.truth(k)) for k in range(len(samples)))
    assert 0 < len(bank.labels) <= expected < everything
    for number, box in enumerate(bank.boxes):
        assert points_in_boxes(bank.points_of(number), box[None]).all()
    counts = np.diff(bank.first)
    label = int(bank.labels[counts.argmax()])
    few = collect(samples, CLASSES, {CLASSES[label]: int(counts.max())}, lambda *_: None)
    assert len(few.of_class(label)) == (counts[bank.labels == label] == counts.max()).sum()
    for _ in range(2):  # made, then read
        kept = bank_of(samples, CLASSES, {}, tmp_path, lambda *_: None)
        assert np.array_equal(kept.points, bank.points)


def run(kitti, out, **values):
    base = {
        "model": "pointpillars",
        "settings": {"grid": GRID, "lidar": False, "min_score": 0.05},
        "classes": list(CLASSES),
        "class_map": UNKNOWN,
        "metric": "box AP50",
        "optimiser": {"name": "adamw", "rate": 2e-3},
        "augment": {"flip": 0.5, "scan": {"objects": {"car": 4}}},
    }
    return run_config(out, kitti, **(base | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "flagship", "settings": {}, "augment": {}}, "boxes, no masks"),
        ({"model": "flagship", "settings": {}}, "sees the image"),
        ({"smallest": 4}, "no masks to measure"),
    ],
)
def test_what_boxes_cannot_teach_is_refused(kitti, tmp_path, values, said):
    with pytest.raises(InputError, match=said):
        train(run(kitti, tmp_path, **values))


@pytest.mark.slow
def test_pointpillars_learns_kitti_with_all_changes(kitti, tmp_path):
    assert train(run(kitti, tmp_path / "run", steps=2, batch_size=2)).steps == 2


@pytest.mark.slow
def test_kitti_frames_are_learnt_through_all_published_changes(kitti, tmp_path, monkeypatch):
    """Every step sees them otherwise, filled up with each other's objects, moved and turned."""
    # Norms follow the data by a hundredth a step, too slowly for so short a run.
    monkeypatch.setattr(pillars, "_MOMENTUM", 0.1)
    published = yaml.safe_load(Path("training/configs/kitti/pointpillars.yaml").read_text())
    frames = tmp_path / "frames.txt"
    frames.write_text("000000\n000001\n")
    source = {"path": str(kitti), "format": "kitti_object", "options": {"frames": str(frames)}}
    settings = {"grid": {**GRID, "cell": 0.32}, "lidar": False}
    changes = {name: published[name] for name in ("augment", "optimiser", "schedule")}
    values = {"train": [source], "settings": settings, "steps": 30, **changes}
    train(run(kitti, tmp_path / "run", **values))
    data = KittiObject(kitti, frames=frames)
    scans, truths = [], []
    for index in range(2):
        frame, truth = data.frame(index), data.truth(index)
        names = [data.classes[k].lower() for k in truth.class_ids]
        truth.class_ids = np.array([CLASSES.index(name) for name in names])
        scan = frame.points[in_view(frame.points, frame.calibration)]
        scans.append(replace(frame, points=scan))
        truths.append(targets_of(truth))
    batch = make_batch(scans, truths)
    totals = []
    torch.manual_seed(0)
    learnt = PointPillars.from_checkpoint(str(tmp_path / "run" / "final.safetensors"))
    for model in (PointPillars.from_config({**settings, "classes": list(CLASSES)}), learnt):
        with torch.no_grad():
            totals.append(sum(float(v) for v in model.train().losses(batch).values()))
    assert totals[1] < 0.7 * totals[0]  # 5.1 and 2.9


def test_the_published_configuration_is_read():
    read = config.read("training/configs/kitti/pointpillars.yaml")
    scan = read.augment.scan
    assert scan.objects == {"car": 15, "pedestrian": 10, "cyclist": 10}
    assert (scan.move, scan.tries, scan.scale) == (0.25, 100, (0.95, 1.05))
    assert PointPillars.from_config({**read.settings, "classes": read.classes}).camera_view


@pytest.mark.slow
@pytest.mark.parametrize("predictor", ["lidar", "image"])
def test_kins_over_kitti_trains_with_either_predictor(tmp_path, predictor):
    data = Streets(2, objects=3)
    list(kins.write(tmp_path / "kins", data, data.classes))
    weights = tmp_path / "pointpillars.safetensors"
    detector = PointPillars.from_config({"grid": GRID})
    save_checkpoint(
        weights, detector, CheckpointInfo(detector.name, detector.config_json(), detector.classes)
    )
    path = f"training/configs/kins/aisformer_{predictor}_proposals.yaml"
    changes = {
        "train.0.path": tmp_path / "kins" / "update_train_2020.json",
        "held_out": [],
        "settings.backbone": "resnet18",
        "settings.weights": "",
        "settings.short_side": 64,
        "settings.long_side": 96,
        "out": tmp_path / "run",
        "cache": tmp_path / "cache",
        "init": "",
        "steps": 2,
        "workers": 0,
        "device": "cpu",
    }
    if predictor == "lidar":
        changes["settings.lidar_weights"] = weights
    wanted = config.read(path, [f"{key}={value}" for key, value in changes.items()])
    assert train(wanted).steps == 2


@pytest.mark.slow
def test_the_pedestrian_of_a_real_frame_is_learnt_and_found_again(kitti_object_root):
    torch.manual_seed(0)
    data = KittiObject(kitti_object_root)
    (index,) = [k for k in range(len(data)) if data.place(k).name.endswith("/000000")]
    frame, truth = data.frame(index), data.truth(index)
    scan = frame.points[in_view(frame.points, frame.calibration)]
    targets = targets_of(truth)
    targets.labels[:] = 0  # the model's pedestrian
    batch = make_batch([replace(frame, points=scan)], [targets])
    grid = {"low": [0, -5.12, -3], "high": [15.36, 5.12, 1]}
    model = PointPillars.from_config({"grid": grid, "min_score": 0.3}).train()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    totals = []
    for _ in range(60):
        total = torch.stack(list(model.losses(batch).values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.1 * totals[0]
    # Norms follow slowly (momentum .01) what so few steps have changed.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.losses(batch)
    (found,) = model.infer([frame])  # which cuts the whole scan as training was cut
    box = truth.boxes3d[0]
    np.testing.assert_allclose(found.boxes3d[0, :6], box[:6], atol=0.15)
    off = (float(found.boxes3d[0, 6]) - box[6] + np.pi / 2) % np.pi - np.pi / 2
    assert abs(off) < 0.2
