"""Oriented boxes from masks and returns, against boxes that are known because they were scanned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from geometry_scenes import camera, scan, standing

from amodal_core.drive.bag_drive import BagDrive
from amodal_core.frame import Frame, Instances
from amodal_core.geometry.boxes3d import corners, iou_bev, project_convex
from amodal_core.geometry.lifting import lift
from amodal_core.geometry.object_points import returns_of_objects
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_order, occlusion_rates

CLASSES = ("car", "truck", "pedestrian")
CAR = standing(14.0, 3.5, 4.2, 1.75, 1.52, np.radians(15))
TRUCK = standing(25.0, -4.0, 11.0, 2.5, 3.3, np.radians(-25))
PERSON = standing(9.0, -2.0, 0.7, 0.6, 1.72)


def silhouettes(boxes, calibration) -> RleMasks:
    """Exact outlines of boxes."""
    size = calibration.height, calibration.width
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, box in zip(masks, boxes, strict=True):
        polygon = np.round(project_convex(corners(box)[0], calibration)).astype(np.int32)
        cv2.fillConvexPoly(mask, polygon, 1)
    return RleMasks.from_dense(masks)


def seen(boxes, kinds, hidden_by=()) -> tuple[Instances, Frame]:
    """What a perfect detector sees of boxes on flat ground, nearer `hidden_by` not detected."""
    calibration = camera()
    points, _ = scan([*boxes, *hidden_by], seed=1)
    amodal = silhouettes(boxes, calibration)
    visible = amodal
    if len(hidden_by):
        front = silhouettes(hidden_by, calibration).union()
        visible = amodal - front[np.zeros(len(boxes), np.int64)]
    depths = np.array([b[0] for b in boxes], np.float32)
    instances = Instances(
        size=(calibration.height, calibration.width),
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        scores=np.full(len(boxes), 0.9, np.float32),
        class_ids=np.array([CLASSES.index(k) for k in kinds], np.int64),
        amodal=amodal,
        visible=visible,
        occlusion_rates=occlusion_rates(amodal, visible),
        depths=depths,
        occluders=occlusion_order(depths, amodal, visible),
    )
    return instances, Frame(1, points=points, calibration=calibration)


def test_boxes_stand_where_the_objects_stand():
    boxes = [CAR, TRUCK, PERSON]
    instances, frame = seen(boxes, CLASSES)
    lifted = lift(instances, frame, CLASSES).boxes3d
    overlap = np.diag(iou_bev(lifted, np.array(boxes)))
    assert overlap[0] > 0.85
    assert overlap[1] > 0.85
    assert overlap[2] > 0.6
    turned = (lifted[:2, 6] - [CAR[6], TRUCK[6]] + np.pi / 2) % np.pi - np.pi / 2
    np.testing.assert_allclose(turned, 0, atol=np.radians(3))
    np.testing.assert_allclose(lifted[:, 5], [b[5] for b in boxes], atol=0.25)
    np.testing.assert_allclose(lifted[:, 2], [b[2] for b in boxes], atol=0.15)


def test_an_amodal_mask_tells_the_length_that_the_scan_does_not():
    """Of a truck that drives ahead, a little to the side, the scan sees the rear alone."""
    for length in (7.0, 12.0, 16.0):
        truck = standing(12.0 + length / 2, 5.0, length, 2.5, 3.3)
        screen = standing(13.2, 3.6, 0.1, 0.1, 3.3)
        instances, frame = seen([truck], ["truck"], [screen])
        own = frame.points[:, 0] > 12.3
        frame = replace(frame, points=frame.points[~own | (frame.points[:, 2] < -1.7)])
        (box,) = lift(instances, frame, CLASSES).boxes3d
        assert box[3] == pytest.approx(length, rel=0.15)


def test_what_something_nearer_hides_is_completed_on_that_side():
    van = standing(9.0, 0.6, 4.9, 1.95, 2.05)
    car = standing(18.0, 4.5, 4.2, 1.75, 1.52, np.pi / 2)
    instances, frame = seen([car], ["car"], [van])
    assert 0.3 < instances.occlusion_rates[0] < 0.9
    (box,) = lift(instances, frame, CLASSES).boxes3d
    assert iou_bev(box[None], car[None])[0, 0] > 0.6
    assert box[3] == pytest.approx(4.2, abs=0.6)


def test_a_wall_behind_that_a_generous_mask_takes_in_does_not_move_the_box():
    wall = standing(24.0, 0.0, 0.3, 30.0, 4.0)
    instances, frame = seen([CAR], ["car"])
    points, _ = scan([CAR, wall], seed=1)
    dilated = cv2.dilate(instances.amodal.dense()[0].astype(np.uint8), np.ones((15, 15), np.uint8))
    mask = RleMasks.from_dense(dilated[None])
    generous = replace(instances, amodal=mask, visible=mask)
    (box,) = lift(generous, replace(frame, points=points), CLASSES).boxes3d
    assert iou_bev(box[None], CAR[None])[0, 0] > 0.8


def test_an_objects_returns_are_the_largest_group_in_depth_under_its_visible_mask(rng):
    masks = rng.random((6, 40, 60)) < np.array([0, 0.02, 0.1, 0.3, 0.6, 1.0])[:, None, None]
    amodal = RleMasks.from_dense(masks)
    instances, _ = seen([CAR], ["car"])
    instances = replace(instances[np.zeros(6, int)], size=(40, 60), amodal=amodal, visible=amodal)
    pixels = np.stack([rng.integers(0, 60, 900), rng.integers(0, 40, 900)], axis=1).astype(np.int32)
    z = rng.choice([8, 10, 30, 60], 900) + np.rint(rng.uniform(0, 300, 900)) / 100
    z = np.where(rng.random(900) < 0.5, np.rint(z), z).astype(np.float32)
    for mask, index in zip(masks, returns_of_objects(instances, pixels, z), strict=True):
        under = np.flatnonzero(mask[pixels[:, 1], pixels[:, 0]])
        under = under[np.argsort(z[under], kind="stable")]
        gap = np.diff(z[under]) > np.maximum(1.2, np.float32(0.03) * z[under][1:])
        groups = np.split(under, np.flatnonzero(gap) + 1)
        assert index.tolist() == max(groups, key=len).tolist()


def test_boxes_that_are_there_are_kept_and_what_no_return_falls_on_has_none():
    instances, frame = seen([CAR, TRUCK], ["car", "truck"])
    own = np.full((2, 7), np.nan, np.float32)
    own[0] = 1, 2, 3, 4, 5, 6, 0.5
    far = frame.points[frame.points[:, 0] < 16]
    lifted = lift(replace(instances, boxes3d=own), replace(frame, points=far), CLASSES)
    np.testing.assert_array_equal(lifted.boxes3d[0], own[0])
    assert np.isnan(lifted.boxes3d[1]).all()


def test_without_a_scan_or_its_place_nothing_changes():
    instances, frame = seen([CAR], ["car"])
    assert lift(instances, replace(frame, points=None), CLASSES) is instances
    assert lift(instances, replace(frame, calibration=None), CLASSES) is instances
    none = np.zeros((0, 4), np.float32)
    assert np.isnan(lift(instances, replace(frame, points=none), CLASSES).boxes3d).all()


def test_on_the_sample_drive_true_masks_give_true_boxes():
    overlaps, boxed = [], []
    with BagDrive(Path(__file__).parents[1] / "data" / "sample_drive") as drive:
        for k, made in enumerate(drive):
            if k % 4 or made.truth is None:
                continue
            truth = made.truth
            classes = [made.truth_classes.get(n, "") for n in range(max(made.truth_classes) + 1)]
            clear = np.flatnonzero(
                (truth.visible.rle().areas() > 200) & np.isfinite(truth.boxes3d).all(1)
            )
            lifted = lift(replace(truth, boxes3d=None), made.frame, classes).boxes3d[clear]
            known = np.isfinite(lifted).all(1)
            boxed += known.tolist()
            overlaps += np.diag(iou_bev(lifted[known], truth.boxes3d[clear][known])).tolist()
    assert len(boxed) > 60
    assert np.mean(boxed) > 0.97
    assert np.mean(overlaps) > 0.62
