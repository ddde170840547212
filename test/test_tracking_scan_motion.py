"""The vehicle's motion from two scans of a made street, whose truth is exact."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from amodal_core.frame import Calibration, Frame, Instances
from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking import Tracker
from amodal_core.tracking.scan_motion import ScanMotion

SIZE = (188, 621)
CALIBRATION = Calibration(
    np.array([[360.0, 0, 310], [0, 360, 94], [0, 0, 1]]),
    np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    621,
    188,
)


def street(rng: np.random.Generator) -> np.ndarray:
    """(N, 3) points of the world: two walls, forty trunks, six parked cars, the road."""
    x = rng.uniform(-60, 80, 9000)
    walls = np.column_stack([x, np.where(rng.random(9000) < 0.5, -9.0, 11.0), x * 0])
    walls[:, 2] = rng.uniform(-1.7, 3, 9000)
    places = rng.uniform([-50, -8], [70, 10], (40, 2))
    trunks = np.repeat(places, 60, 0) + rng.normal(0, 0.05, (2400, 2))
    trunks = np.column_stack([trunks, rng.uniform(-1.7, 2, 2400)])
    cars = []
    for k in range(6):
        side = np.column_stack([rng.uniform(0, 4.3, 400), np.full(400, -6.0), np.zeros(400)])
        side[:150, 0], side[:150, 1] = 0.0, rng.uniform(-7.8, -6.0, 150)
        cars.append(side + np.array([-30.0 + 13 * k, 0, 0]))
    parked = np.concatenate(cars)
    parked[:, 2] = rng.uniform(-1.6, -0.2, len(parked))
    road = np.column_stack([rng.uniform(-60, 80, 9000), rng.uniform(-9, 11, 9000), np.zeros(9000)])
    road[:, 2] = -1.73
    return np.concatenate([walls, trunks, parked, road])


def pose(x: float, y: float, turn: float) -> np.ndarray:
    """(4, 4) world_from_lidar."""
    out = np.eye(4)
    out[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    out[:2, 3] = x, y
    return out


def scan(world: np.ndarray, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(M, 4) float32: half of the world's points, other ones each time, as they are from there."""
    chosen = world[rng.random(len(world)) < 0.5]
    points = (chosen - at[:3, 3]) @ at[:3, :3] + rng.normal(0, 0.015, chosen.shape)
    return np.column_stack([points, np.zeros(len(points))]).astype(np.float32)


def error(step: np.ndarray | None, before: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """Metres and radians between a step and lidar_now_from_lidar_before."""
    assert step is not None
    rest = step @ np.linalg.inv(np.linalg.inv(now) @ before)
    return float(np.linalg.norm(rest[:3, 3])), float(np.arctan2(rest[1, 0], rest[0, 0]))


@pytest.mark.parametrize("speed", [0.0, 8.0, 33.0])
def test_the_motion_of_a_curve_is_told_from_its_second_scan_on(
    speed: float, rng: np.random.Generator
) -> None:
    world, vehicle = street(rng), ScanMotion()
    poses = [pose(0.1 * speed * k, 0.02 * k, 0.01 * k) for k in range(4)]
    assert vehicle.step(scan(world, poses[0], rng), 0.1) is None
    for before, now in pairwise(poses):
        metres, turn = error(vehicle.step(scan(world, now, rng), 0.1), before, now)
        assert metres < 0.03
        assert abs(turn) < 0.002


def test_traffic_that_goes_along_does_not_stop_the_vehicle(rng: np.random.Generator) -> None:
    world, vehicle = street(rng), ScanMotion()
    lorry = np.column_stack([rng.uniform(6, 16, 3000), rng.uniform(3, 3.1, 3000), np.zeros(3000)])
    lorry[:, 2] = rng.uniform(-1.5, 2, 3000)
    poses = [pose(0.9 * k, 0, 0) for k in range(4)]
    for before, now in zip([poses[0], *poses], poses, strict=False):
        step = vehicle.step(scan(np.concatenate([world, lorry + now[:3, 3]]), now, rng), 0.1)
        if step is not None:
            assert error(step, before, now)[0] < 0.03
    assert step is not None


def test_between_two_walls_without_an_end_it_goes_on_as_before(rng: np.random.Generator) -> None:
    x = rng.uniform(-90, 110, 20000)
    walls = np.column_stack(
        [x, np.where(rng.random(20000) < 0.5, -5.0, 5.0), rng.uniform(-1, 3, 20000)]
    )
    world, vehicle = street(rng), ScanMotion()
    poses = [pose(1.2 * k, 0, 0) for k in range(5)]
    for k, now in enumerate(poses):
        step = vehicle.step(scan(world if k < 3 else walls, now, rng), 0.1)
        if k == 4:
            assert error(step, poses[3], now)[0] < 0.25


def test_scans_that_have_nothing_in_common_tell_nothing(rng: np.random.Generator) -> None:
    world, vehicle = street(rng), ScanMotion()
    here = scan(world, pose(0, 0, 0), rng)
    none = np.zeros((0, 4), np.float32)
    broken = np.full((50, 4), np.nan, np.float32)
    for points, seconds in ((none, 0.1), (broken, 0.1), (here, 0.1), (none, 0.1), (here, 0.1)):
        assert vehicle.step(points, seconds) is None
    assert vehicle.step(here, 0.0) is None
    assert vehicle.step(here, 5.0) is None  # too long ago to be compared
    vehicle.reset()
    assert vehicle.step(here, 0.1) is None


def parked(at: np.ndarray) -> np.ndarray:
    """(4,) box in the image of what stands at (34, -4), 2 m wide and high, from a pose."""
    x, y, _, _ = np.linalg.solve(at, np.array([34.0, -4, 0, 1]))
    u, half = 310.5 - 360 * y / x, 360 / x
    return np.array([u - half, 94.5 - half, u + half, 94.5 + half])


def detection(box: np.ndarray, metres: float, rate: float) -> Instances:
    """What a model gives of one object, whole or to some part hidden."""
    masks = RleMasks.from_boxes(box[None], SIZE)
    boxes = np.asarray(box[None], np.float32)
    return Instances(
        size=SIZE,
        amodal_boxes=boxes,
        visible_boxes=boxes,
        scores=np.full(1, 0.9, np.float32),
        class_ids=np.zeros(1, np.int64),
        amodal=masks,
        visible=masks,
        occlusion_rates=np.full(1, rate, np.float32),
        depths=np.full(1, metres, np.float32),
        occluders=np.zeros((1, 1), bool),
    )


@pytest.mark.parametrize("scans", [True, False])
def test_a_parked_object_is_expected_where_it_stands_when_the_vehicle_turns_meanwhile(
    scans: bool, rng: np.random.Generator
) -> None:
    world, tracker = street(rng), Tracker()
    # Straight on for a second, then nine tenths in a bend while something near hides the object.
    turns = [0.0] * 10 + [0.02 * k for k in range(1, 10)]
    places = np.cumsum([[0.8 * np.cos(t), 0.8 * np.sin(t)] for t in turns], axis=0)
    for k, turn in enumerate(turns):
        at = pose(*places[k], turn)
        instances = detection(parked(at), 34 - places[k][0], 0.1)
        frame = Frame(
            k * 100_000_000,
            points=scan(world, at, rng) if scans else None,
            depth=np.full(SIZE, 5.0 if k >= 10 else 0.0, np.float32),
            calibration=CALIBRATION,
        )
        tracks = tracker.step(instances if k < 10 else Instances.empty(SIZE), frame.stamp, frame)
    assert tracks.coasted.tolist() == [True]
    truth = RleMasks.from_boxes(parked(at)[None], SIZE)
    overlap = float(tracks.amodal.rle().iou(truth)[0, 0])
    assert overlap > 0.75 if scans else overlap < 0.3


def test_what_goes_along_beside_the_vehicle_is_known_to_from_its_second_sight_on(
    rng: np.random.Generator,
) -> None:
    world, tracker = street(rng), Tracker()
    box = np.array([310.0, 60, 430, 160])  # 8 m ahead, all the time
    for k in range(6):
        frame = Frame(
            k * 100_000_000,
            points=scan(world, pose(1.6 * k, 0, 0), rng),
            depth=np.full(SIZE, 3.0 if k >= 3 else 0.0, np.float32),
            calibration=CALIBRATION,
        )
        instances = detection(box, 8.0, 0.0) if k < 3 else Instances.empty(SIZE)
        tracks = tracker.step(instances, frame.stamp, frame)
        assert tracks.ids.tolist() == [0]
    truth = RleMasks.from_boxes(box[None], SIZE)
    assert tracks.amodal.rle().iou(truth)[0, 0] > 0.6
