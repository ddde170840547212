from __future__ import annotations

import cv2
import numpy as np
import pytest
from geometry_scenes import camera, scan, standing

from amodal_core.frame import Calibration, Frame, Report
from amodal_core.geometry.boxes3d import corners, from_kitti_labels, image_boxes, project_convex
from amodal_core.geometry.calibration import read_kitti, read_kitti_raw
from amodal_core.geometry.silhouette import draw
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models.base import Model
from amodal_core.models.geometric import Geometric
from amodal_core.models.registry import create

CAMERA = camera()


@pytest.fixture(scope="module")
def model():
    return Geometric()


def detect(model, boxes, seed=1, calibration=CAMERA):
    points, _ = scan(boxes, seed=seed)
    return model.infer([Frame(7, points=points, calibration=calibration)])[0]


def truck(x, y, length=8, axles=(-2.8, -1.8, 3)):
    """A body on wheels."""
    body = standing(x, y, length, 2.5, 2.3)
    body[2] += 0.7
    wheels = [standing(x + dx, y + dy, 0.9, 0.25, 0.9) for dx in axles for dy in (-1, 1)]
    return [body, *wheels]


def sign(x, y):
    board = standing(x, y, 0.1, 2.2, 1.2)
    board[2] += 1.5
    return board


def cyclist(x, y, yaw):
    return [standing(x, y, 1.75, 0.1, 1.0, yaw), standing(x, y, 0.35, 0.45, 1.75, yaw)]


def box_mask(box) -> RleMasks:
    """The box's exact projection as a mask."""
    full = np.zeros((1, CAMERA.height, CAMERA.width), np.uint8)
    ((crop, x, y),) = draw([[project_convex(corners(box)[0], CAMERA)]], CAMERA)
    full[0, y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return RleMasks.from_dense(full)


def test_it_is_a_model_and_the_registry_knows_it():
    model = create("geometric", device="cpu")
    assert isinstance(model, Model)
    assert model.inputs == {"points", "calibration"}
    assert model.optional == {"image"}
    assert model.classes == ("car", "truck", "pedestrian", "cyclist", "other")


@pytest.mark.parametrize(
    ("name", "boxes", "truth"),
    [
        ("car", [standing(12, 0, 4.2, 1.8, 1.5)], None),
        ("car", [standing(12, 4, 4.2, 1.8, 1.5)], None),
        ("car", [standing(14, 4, 4.2, 1.8, 1.5, np.pi / 2)], None),
        ("car", [standing(18, -5, 4.2, 1.8, 1.5, 0.6)], None),
        ("truck", truck(15, -3), standing(15, -3, 8, 2.5, 3.0)),
        ("pedestrian", [standing(10, 1, 0.5, 0.6, 1.75)], None),
        ("cyclist", cyclist(10, 1, np.pi / 2), standing(10, 1, 1.75, 0.5, 1.75, np.pi / 2)),
    ],
)
def test_one_object_is_found_with_class_place_and_whole_mask(model, name, boxes, truth):
    truth = boxes[0] if truth is None else truth
    detections = detect(model, boxes)
    assert [model.classes[k] for k in detections.class_ids] == [name]
    box = detections.boxes3d[0]
    assert np.hypot(*(box[:2] - truth[:2])) < 0.6
    assert box[2] - box[5] / 2 == pytest.approx(truth[2] - truth[5] / 2, abs=0.1)
    assert abs(box[5] - truth[5]) < 0.35
    if name in ("car", "truck"):
        off = (box[6] - truth[6] + np.pi / 2) % np.pi - np.pi / 2
        assert abs(off) < np.radians(4)
        assert np.abs(box[3:5] - truth[3:5]).max() < 0.9
    least = {"car": 0.75, "truck": 0.75, "pedestrian": 0.6, "cyclist": 0.5}[name]
    assert detections.amodal.iou(box_mask(truth))[0, 0] > least
    assert detections.occlusion_rates[0] < 0.02
    assert detections.scores[0] > 0.7


def test_the_unseen_far_side_is_completed_from_a_view_of_the_rear_alone(model):
    detections = detect(model, [standing(14, 0, 4.2, 1.8, 1.5)])
    # Nothing but the rear face at x = 11.9 and the roof's edge returns anything.
    box = detections.boxes3d[0]
    assert box[3] == pytest.approx(4.2, abs=0.3)
    assert box[0] - box[3] / 2 == pytest.approx(11.9, abs=0.15)


def test_a_car_behind_a_car_is_whole_in_its_amodal_mask_and_cut_in_its_visible_one(model):
    near, far = standing(9, 0, 4.2, 1.8, 1.5), standing(20, 2, 4.2, 1.8, 1.5)
    detections = detect(model, [near, far])
    assert len(detections) == 2
    i, j = np.argsort(detections.depths)
    assert detections.amodal[[j]].iou(box_mask(far))[0, 0] > 0.75
    truth = box_mask(far).dense()[0] & ~box_mask(near).dense()[0]
    visible = detections.visible.dense()[j]
    assert (visible & truth).sum() / (visible | truth).sum() > 0.6
    rate = 1 - truth.sum() / box_mask(far).areas()[0]
    assert detections.occlusion_rates[j] == pytest.approx(rate, abs=0.1)
    assert detections.occluders[j, i]
    assert detections.occluders.sum() == 1
    assert detections.occlusion_rates[i] == 0


def test_a_pedestrian_before_a_car_hides_its_middle_and_leaves_it_one_object(model):
    detections = detect(model, [standing(9, 0, 0.5, 0.5, 1.8), standing(15, 0, 4.2, 1.8, 1.5)])
    names = [model.classes[k] for k in detections.class_ids]
    assert sorted(names) == ["car", "pedestrian"]
    car, person = names.index("car"), names.index("pedestrian")
    assert detections.occluders[car, person]
    assert not detections.occluders[person, car]
    visible = detections.visible.dense()[car]
    x0, _, x1, _ = detections.amodal_boxes[car].astype(int)
    middle = (x0 + x1) // 2
    assert visible[:, x0 + 8].any()
    assert visible[:, x1 - 8].any()
    assert visible[:, middle].sum() < 0.3 * visible[:, x0 + 12].sum()


def test_a_post_is_no_object_but_what_it_hides_is_not_visible(model):
    car, post = standing(12, 0, 4.2, 1.8, 1.5), standing(7, 0.2, 0.12, 0.12, 3.0)
    detections = detect(model, [car, post])
    assert [model.classes[k] for k in detections.class_ids] == ["car"]
    hidden = box_mask(post).dense()[0] & box_mask(car).dense()[0]
    amodal, visible = detections.amodal.dense()[0], detections.visible.dense()[0]
    assert (amodal & hidden).sum() > 0.8 * hidden.sum()
    assert (visible & hidden).sum() < 0.2 * hidden.sum()
    assert 0.05 < detections.occlusion_rates[0] < 0.2
    assert not detections.occluders.any()


@pytest.mark.parametrize(("gap", "lengths"), [(0.9, [14]), (1.2, [14]), (1.7, [5, 8])])
def test_a_tractor_and_its_trailer_are_one_truck_and_a_queue_is_two(model, gap, lengths):
    tractor, trailer = truck(7, -7, 5, (-1.75, 1.75)), truck(13.5 + gap, -7, 8)
    detections = detect(model, [*tractor, *trailer])
    assert [model.classes[k] for k in detections.class_ids] == ["truck"] * len(lengths)
    assert np.sort(detections.boxes3d[:, 3]) == pytest.approx(lengths, abs=0.4)


def test_cars_side_by_side_stay_three(model):
    boxes = [standing(12, y, 4.2, 1.8, 1.5) for y in (-2.6, 0, 2.6)]
    detections = detect(model, boxes)
    assert [model.classes[k] for k in detections.class_ids] == ["car"] * 3
    assert np.abs(np.sort(detections.boxes3d[:, 1]) - (-2.6, 0, 2.6)).max() < 0.15


def test_a_car_that_leaves_the_image_is_cut_at_its_border_but_not_in_space(model):
    box = standing(3, 3.5, 4.2, 1.8, 1.5)
    detections = detect(model, [box])
    assert len(detections) == 1
    assert detections.boxes3d[0, 3] == pytest.approx(4.2, abs=0.2)
    assert np.abs(detections.amodal_boxes[0] - image_boxes(box[None], CAMERA)[0]).max() < 12
    assert detections.amodal.dense().shape == (1, 375, 1242)


@pytest.mark.parametrize("lean", [-0.25, 0.25])
def test_a_persons_mask_follows_the_returns_and_not_a_usual_shape(model, lean):
    """A wide step to one side below an upright body: no two people look alike."""
    parts = [standing(9, 1, 0.25, 0.45, 0.9), standing(9, 1, 0.22, 0.2, 1.75)]
    parts[0][2] += 0.6
    parts += [standing(9, 1 + lean * (2 * k + 1) / 4, 0.15, 0.2, 0.62 - 0.1 * k) for k in range(4)]
    truth = np.any([box_mask(part).dense()[0] for part in parts], axis=0)
    detections = detect(model, parts)
    assert [model.classes[k] for k in detections.class_ids] == ["pedestrian"]
    mask = detections.amodal.dense()[0]
    assert (mask & truth).sum() / (mask | truth).sum() > 0.75
    columns, true_columns = (np.flatnonzero(m.any(axis=0)) for m in (mask, truth))
    assert abs(columns[0] - true_columns[0]) <= 3
    assert abs(columns[-1] - true_columns[-1]) <= 3


@pytest.mark.parametrize("y", [4.5, -4.5], ids=["left", "right"])
def test_a_car_that_leaves_the_scans_field_of_view_is_completed_beyond_it(model, y):
    box = standing(4.3, y, 4.2, 1.8, 1.5)
    points, _ = scan([box], seed=1)
    ahead = np.abs(np.arctan2(points[:, 1], points[:, 0])) < np.radians(45)
    detections = model.infer([Frame(0, points=points[ahead], calibration=CAMERA)])[0]
    assert len(detections) == 1
    # 2.2 m of its length lie outside.
    assert np.abs(detections.boxes3d[0, :2] - box[:2]).max() < 0.4
    assert detections.amodal.iou(box_mask(box))[0, 0] > 0.75


@pytest.mark.parametrize(
    "body",
    [standing(13, 0, 8, 2.4, 3.0), standing(15, -4, 8, 2.4, 3.0), standing(12, 0, 4.9, 1.9, 2.1)],
    ids=["its rear alone", "its rear and side", "a van"],
)
def test_a_body_that_reaches_the_ground_is_a_vehicle_where_it_stands_free(model, body):
    detections = detect(model, [body])
    assert [model.classes[k] for k in detections.class_ids] == ["truck"]
    assert detections.amodal.iou(box_mask(body))[0, 0] > 0.7


@pytest.mark.parametrize(
    "boxes",
    [
        [],
        [standing(-12, 0, 4.2, 1.8, 1.5)],
        [standing(20, 0, 0.3, 30, 4)],
        [standing(15, 2, 0.15, 0.15, 4)],
        [standing(10, 0, 1, 1, 0.2)],
        [standing(14, 0, 0.1, 5, 1.3)],
        [standing(14, 4, 5, 0.1, 2.4)],
        [sign(12, 3)],
    ],
    ids=["empty road", "behind", "wall", "pole", "kerb", "fence", "hoarding", "traffic sign"],
)
def test_what_is_no_object_in_view_gives_none(model, boxes):
    detections = detect(model, boxes)
    assert len(detections) == 0
    assert detections.size == (375, 1242)
    assert detections.amodal.dense().shape == (0, 375, 1242)


def test_masks_boxes_and_rates_agree_with_each_other(model):
    detections = detect(
        model, [*truck(14, 3), standing(9, 0, 4.2, 1.8, 1.5), standing(20, -1, 4.2, 1.8, 1.5)]
    )
    amodal, visible = detections.amodal.dense(), detections.visible.dense()
    assert len(detections) == 3
    assert not (visible & ~amodal).any(), "a visible mask is part of its amodal mask"
    assert (visible.sum(axis=0) <= 1).all(), "a pixel shows one object"
    assert np.array_equal(detections.amodal_boxes, detections.amodal.boxes())
    assert np.array_equal(detections.visible_boxes, detections.visible.boxes())
    rates = 1 - visible.sum(axis=(1, 2)) / amodal.sum(axis=(1, 2))
    assert np.allclose(detections.occlusion_rates, rates, atol=1e-6)
    assert not (detections.occluders & detections.occluders.T).any()
    assert (detections.depths > 0).all()
    for values in (detections.boxes3d, detections.scores, detections.depths):
        assert values.dtype == np.float32


@pytest.mark.parametrize("count", [0, 1, 5])
def test_hardly_any_points_give_no_objects(model, count):
    points = np.tile(np.array([[10, 0, -1, 0.5]], np.float32), (count, 1))
    assert len(model.infer([Frame(0, points=points, calibration=CAMERA)])[0]) == 0


def test_bad_points_are_dropped_and_change_nothing(model):
    points, _ = scan([standing(12, 0, 4.2, 1.8, 1.5)], seed=1)
    bad = points[::50].copy()
    bad[:, np.arange(len(bad)) % 4] = np.nan
    bad[::2] = np.inf
    dirty = np.insert(points, np.arange(0, len(points), 50), bad, axis=0)
    clean = model.infer([Frame(0, points=points, calibration=CAMERA)])[0]
    detections = model.infer([Frame(0, points=dirty, calibration=CAMERA)])[0]
    assert np.array_equal(detections.boxes3d, clean.boxes3d)
    assert detections.amodal.counts == clean.amodal.counts
    points[:] = np.nan
    assert len(model.infer([Frame(0, points=points, calibration=CAMERA)])[0]) == 0


@pytest.mark.parametrize("xyz", [(0, 0, 0), (1e-40, -1e-40, 1e-40), (0.3, -0.2, 0.1)])
def test_returns_nearer_than_the_minimum_range_are_dropped_and_change_nothing(model, xyz):
    points, _ = scan([standing(12, 0, 4.2, 1.8, 1.5)], seed=1)
    clean = model.infer([Frame(0, points=points, calibration=CAMERA)])[0]
    near = np.array([(*xyz, 0.5)], np.float32)
    for given in (np.concatenate([near, points]), np.insert(points, len(points) // 2, near, 0)):
        detections = model.infer([Frame(0, points=given, calibration=CAMERA)])[0]
        assert np.array_equal(detections.boxes3d, clean.boxes3d)
        assert detections.visible.counts == clean.visible.counts
    assert len(model.infer([Frame(0, points=near, calibration=CAMERA)])[0]) == 0


def test_the_minimum_range_is_a_setting_and_without_it_nothing_breaks():
    points, _ = scan([standing(12, 0, 4.2, 1.8, 1.5), standing(4.5, 0, 1, 1, 1.5)], seed=1)
    points[::3, :3] = 0
    points[1::3, :3] = 1e-40
    frame = Frame(0, points=points, calibration=CAMERA)
    create("geometric", minimum_range=0.0).infer([frame])
    points, _ = scan([standing(12, 0, 4.2, 1.8, 1.5), standing(25, 6, 4.2, 1.8, 1.5)], seed=1)
    frame = Frame(0, points=points, calibration=CAMERA)
    nearest = [
        create("geometric", minimum_range=metres).infer([frame])[0].depths.min()
        for metres in (0.5, 16.0)
    ]
    assert nearest[0] < 14 < 16 < nearest[1]


def test_a_frame_without_points_or_calibration_warns_and_is_empty(model):
    report = Report()
    image = np.zeros((20, 30, 3), np.uint8)
    frames = [Frame(0, image=image), Frame(0, image=image, calibration=CAMERA)]
    detections = model.infer(frames, report)
    assert [len(f) for f in detections] == [0, 0]
    assert detections[0].size == (20, 30)
    assert len(report.warnings) == 2


def test_the_same_frame_gives_the_same_result(model):
    points, _ = scan([*truck(14, 3), standing(9, 0, 4.2, 1.8, 1.5)], seed=2)
    frame = Frame(0, points=points, calibration=CAMERA)
    first, second = model.infer([frame, frame])
    assert first.visible.counts == second.visible.counts
    assert np.array_equal(first.boxes3d, second.boxes3d)


def test_the_image_tells_the_height_of_what_is_taller_than_the_scan(model):
    body = standing(11, 3, 6, 2.3, 2.1)
    body[2] += 0.5
    wheels = [standing(11 + dx, 3 + dy, 0.8, 0.25, 0.8) for dx in (-2, 2) for dy in (-0.9, 0.9)]
    points, _ = scan([body, *wheels], seed=4)
    tall = body.copy()
    tall[5] = 2.6
    image = np.full((375, 1242, 3), 200, np.uint8)
    ((crop, x, y),) = draw([[project_convex(corners(tall)[0], CAMERA)]], CAMERA)
    image[y : y + crop.shape[0], x : x + crop.shape[1]][crop > 0] = (140, 20, 20)
    with_image = model.infer([Frame(0, image=image, points=points, calibration=CAMERA)])[0]
    top = tall[2] + tall[5] / 2
    assert len(with_image) == 1
    assert with_image.boxes3d[0, 2] + with_image.boxes3d[0, 5] / 2 == pytest.approx(top, abs=0.2)


def test_a_wall_between_two_parked_cars_is_no_third_one(model):
    wall = standing(12, 9, 20, 0.3, 4)
    cars = [standing(x, 5, 4.4, 1.8, 1.5) for x in (7, 14.5)]
    detections = detect(model, [wall, *cars])
    assert [model.classes[k] for k in detections.class_ids] == ["car", "car"]
    assert np.abs(np.sort(detections.boxes3d[:, 0]) - (7, 14.5)).max() < 0.6


def kitti_frames(drive):
    calibration = read_kitti_raw(drive).calibration(1242, 375)
    for path in sorted((drive / "velodyne_points" / "data").glob("*.bin")):
        image = cv2.imread(str(drive / "image_02" / "data" / f"{path.stem}.png"))
        points = np.fromfile(path, np.float32).reshape(-1, 4)
        yield Frame(0, image[..., ::-1], points, calibration=calibration)


@pytest.fixture(scope="module")
def drive_results(kitti_raw_drive, model):
    return [model.infer([frame])[0] for frame in kitti_frames(kitti_raw_drive)]


def near(detections, low, high, name):
    """Indices of a class whose box's centre lies in a rectangle on the ground."""
    xy = detections.boxes3d[:, :2]
    inside = ((xy >= low) & (xy <= high)).all(axis=1)
    return np.flatnonzero(inside & (detections.class_ids == Geometric.classes.index(name)))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("car", (7, -1), (10.5, 0.6)), ("truck", (7, 2.8), (15.5, 4.2))],
    ids=["the grey estate ahead", "the red truck on the left"],
)
def test_real_vehicles_are_found_once_in_every_frame_and_steadily(drive_results, name, low, high):
    previous = None
    for number, detections in enumerate(drive_results):
        index = near(detections, low, high, name)
        assert len(index) == 1, f"frame {number}: {len(index)} of them"
        box, mask = detections.boxes3d[index[0]], detections.amodal[index]
        assert detections.scores[index[0]] > 0.5
        if previous is not None:
            assert np.hypot(*(box[:2] - previous[0][:2])) < 0.8, f"frame {number} jumps"
            assert abs(box[6] - previous[0][6]) < np.radians(8), f"frame {number} turns"
            assert mask.iou(previous[1])[0, 0] > 0.75, f"frame {number}: the mask changes"
        previous = box, mask


def test_real_frames_are_not_littered_with_objects(drive_results):
    assert max(len(detections) for detections in drive_results) <= 16
    for detections in drive_results:
        xy, n = detections.boxes3d[:, :2], len(detections)
        apart = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)) + 9 * np.eye(n)
        assert apart.min() > 1.0, "two objects in one place"


def test_real_returns_of_an_object_lie_in_its_amodal_mask(drive_results, kitti_raw_drive):
    from amodal_core.geometry.boxes3d import points_in_boxes
    from amodal_core.geometry.projection import project

    shares = []
    frames = zip(kitti_frames(kitti_raw_drive), drive_results, strict=True)
    for frame, detections in list(frames)[::9]:
        result = project(frame.points, frame.calibration)
        masks = detections.amodal.dense()
        for box, mask in zip(detections.boxes3d, masks, strict=True):
            inside = points_in_boxes(frame.points, box[None])[0]
            pixels = result.pixels[inside]
            pixels = pixels[pixels[:, 0] >= 0]
            if len(pixels) > 30:
                shares.append(mask[pixels[:, 1], pixels[:, 0]].mean())
    assert min(shares) > 0.8
    assert np.mean(shares) > 0.97


def iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


@pytest.mark.parametrize(
    ("frame", "kind", "name", "least_iou", "most_metres"),
    [
        (0, "Pedestrian", "pedestrian", 0.6, 0.3),
        (1, "Truck", "truck", 0.7, 3.0),
        (1, "Cyclist", "pedestrian", 0.4, 1.0),
        (2, "Car", "car", 0.7, 0.6),
    ],
)
def test_boxes_agree_with_kittis_labels(
    model, kitti_object_root, frame, kind, name, least_iou, most_metres
):
    root = kitti_object_root / "training"
    kitti = read_kitti(root / "calib" / f"{frame:06d}.txt")
    image = cv2.imread(str(root / "image_2" / f"{frame:06d}.png"))[..., ::-1]
    calibration: Calibration = kitti.calibration(image.shape[1], image.shape[0])
    points = np.fromfile(root / "velodyne" / f"{frame:06d}.bin", np.float32).reshape(-1, 4)
    detections = model.infer([Frame(0, image, points, calibration=calibration)])[0]
    lines = (root / "label_2" / f"{frame:06d}.txt").read_text().splitlines()
    values = np.array(next(r for r in lines if r.startswith(kind)).split()[4:15], float)
    rect_from_lidar = kitti.rect_from_cam @ kitti.cam_from_lidar
    truth = from_kitti_labels(values[4:7], values[7:10], values[10:], rect_from_lidar)[0]
    distance = np.hypot(*(detections.boxes3d[:, :2] - truth[:2]).T)
    best = int(np.argmin(distance))
    assert model.classes[detections.class_ids[best]] == name
    assert distance[best] < most_metres
    assert iou(detections.amodal_boxes[best].astype(float), values[:4]) > least_iou


@pytest.mark.parametrize("frame", [0, 2], ids=["glass front and hedges", "garages and fences"])
def test_buildings_and_plants_are_no_trucks(model, kitti_object_root, frame):
    root = kitti_object_root / "training"
    calibration = read_kitti(root / "calib" / f"{frame:06d}.txt").calibration(1242, 375)
    points = np.fromfile(root / "velodyne" / f"{frame:06d}.bin", np.float32).reshape(-1, 4)
    detections = model.infer([Frame(0, points=points, calibration=calibration)])[0]
    assert Geometric.classes.index("truck") not in detections.class_ids
