from __future__ import annotations

from time import process_time

import cv2
import numpy as np
import pytest
from geometry_scenes import camera, standing
from hypothesis import given, settings
from hypothesis import strategies as st

from amodal_core.geometry.boxes3d import (
    corners,
    from_kitti_labels,
    image_boxes,
    iou_3d,
    iou_bev,
    points_in_boxes,
    project_convex,
)
from amodal_core.geometry.config import DEFAULTS
from amodal_core.geometry.lshape import _facing, rectangles
from amodal_core.geometry.silhouette import draw, envelope, hull, outlines
from amodal_core.geometry.visibility import SightLines

numbers = st.floats(-20, 20)
sizes = st.floats(0.5, 8)
boxes = st.tuples(numbers, numbers, numbers, sizes, sizes, sizes, st.floats(-4, 4)).map(np.array)


def test_corners_of_a_turned_box():
    box = np.array([[10, 5, 1, 4, 2, 1.5, np.pi / 2]])
    c = corners(box)[0]
    # Front left of a box that heads to +y: x - width / 2, y + length / 2, at the bottom.
    assert np.allclose(c[0], [9, 7, 0.25])
    assert np.allclose(c.min(axis=0), [9, 3, 0.25])
    assert np.allclose(c.max(axis=0), [11, 7, 1.75])


@settings(deadline=None)
@given(boxes)
def test_points_between_centre_and_corners_are_inside_and_beyond_are_outside(box):
    c, centre = corners(box)[0], box[:3]
    assert points_in_boxes(centre + 0.99 * (c - centre), box).all()
    assert not points_in_boxes(centre + 1.01 * (c - centre), box).any()
    assert points_in_boxes(centre + 1.01 * (c - centre), box, margin=0.2).all()


def test_all_points_of_a_scan_are_tested_against_all_boxes_at_once(rng):
    scan, many = rng.uniform(-40, 40, (120_000, 3)), np.tile([5.0, 2, 0, 4, 2, 1.5, 0.3], (20, 1))
    many[:, :2] += rng.uniform(-30, 30, (20, 2))
    begin = process_time()
    inside = points_in_boxes(scan, many)
    assert process_time() - begin < 2  # a loop over the points takes minutes
    assert inside.shape == (20, 120_000)
    expected = 120_000 * 4 * 2 * 1.5 / 80**3
    assert inside.sum(1).mean() == pytest.approx(expected, rel=0.2)


def test_a_box_ahead_covers_what_a_ruler_says():
    c = camera(width=200, height=100, focal=100.0)
    box = np.array([[11, 0, 0, 2, 4, 2, 0.0]])
    # Near face at 10 m: 4 m wide -> 40 pixels, 2 m high -> 20, about the centre (99.5, 49.5);
    # a pixel's box reaches half a pixel around its centre.
    assert np.allclose(image_boxes(box, c), [[80, 40, 120, 60]])


def test_a_box_behind_the_camera_covers_nothing():
    assert not image_boxes(np.array([[-11, 0, 0, 2, 4, 2, 0.0]]), camera()).any()
    assert project_convex(corners(np.array([-11, 0, 0, 2, 4, 2, 0.0]))[0], camera()).shape == (0, 2)


def test_a_box_around_the_camera_covers_the_whole_image():
    c = camera()
    assert image_boxes(np.array([[0, 0, 0, 30, 4, 3, 0.3]]), c).tolist() == [[0, 0, 1242, 375]]


def test_a_box_that_begins_beside_the_camera_is_clipped_at_the_near_plane():
    c = camera()
    box = np.array([2, 3, -0.7, 8, 2, 2, 0.0])
    # The exact outline: every point of the box in front of the near plane, densely sampled.
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 60)] * 3), axis=-1).reshape(-1, 3)
    points = grid * box[3:6] + box[:3]
    points = points[points[:, 0] > 0.1]
    u = c.K[0, 2] - c.K[0, 0] * points[:, 1] / points[:, 0]
    v = c.K[1, 2] - c.K[1, 1] * points[:, 2] / points[:, 0]
    result = image_boxes(box[None], c)[0]
    assert result[0] == 0
    assert abs(result[2] - (u.max() + 0.5)) < 1
    assert result[1] == pytest.approx(max(v.min(), 0), abs=2)
    assert result[3] == 375


@settings(deadline=None, max_examples=60)
@given(boxes)
def test_a_box_overlaps_itself_wholly_and_its_shifted_copy_by_the_known_share(box):
    box = box[None]
    shifted = box.copy()
    shifted[0, 0] += np.cos(box[0, 6]) * box[0, 3] / 2
    shifted[0, 1] += np.sin(box[0, 6]) * box[0, 3] / 2
    assert iou_bev(box, box)[0, 0] == pytest.approx(1, abs=1e-3)
    assert iou_bev(box, shifted)[0, 0] == pytest.approx(1 / 3, abs=1e-3)
    lifted = shifted.copy()
    lifted[0, 2] += box[0, 5] / 2
    assert iou_3d(box, lifted)[0, 0] == pytest.approx(1 / 7, abs=1e-3)
    assert iou_bev(box, lifted)[0, 0] == pytest.approx(1 / 3, abs=1e-3)


def test_boxes_apart_and_empty_sets_overlap_nowhere():
    a = np.array([[0, 0, 0, 4, 2, 1, 0.0]])
    assert iou_bev(a, np.array([[10, 0, 0, 4, 2, 1, 0.0]]))[0, 0] == 0
    assert iou_3d(a, np.array([[0, 0, 5, 4, 2, 1, 0.0]]))[0, 0] == 0
    assert iou_bev(a, np.zeros((0, 7))).shape == (1, 0)


def test_crossed_boxes_share_their_middle_square():
    a, b = np.array([[0, 0, 0, 6, 2, 1, 0.4]]), np.array([[0, 0, 0, 6, 2, 1, 0.4 + np.pi / 2]])
    assert iou_bev(a, b)[0, 0] == pytest.approx(4 / (12 + 12 - 4), abs=1e-3)


def test_a_kitti_label_becomes_a_box_in_the_lidar_frame():
    rect_from_lidar = np.array([[0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]])
    # A car 20 m ahead, bottom 1.65 m below the camera, heading along the camera's z (ry = -pi/2).
    box = from_kitti_labels([[1.5, 1.8, 4.2]], [[2, 1.65, 20]], [-np.pi / 2], rect_from_lidar)[0]
    assert np.allclose(box[:3], [20.27, -2, -(1.65 - 0.75) - 0.08])
    assert np.allclose(box[3:6], [4.2, 1.8, 1.5])
    assert np.allclose(np.cos(box[6]), 1)


def fitted(xy):
    """The rectangle of one footprint."""
    xy, first = np.asarray(xy, np.float32), np.array([0, len(xy)])
    return rectangles(xy, first, np.array([True]), DEFAULTS).view(np.recarray)[0]


@pytest.mark.parametrize("degrees", [0, 10, 33, 45, 80])
def test_the_rectangle_of_an_l_shape_is_found_at_any_heading(degrees, rng):
    yaw = np.radians(degrees)
    long, short = np.linspace(0, 4, 80), np.linspace(0, 1.8, 40)
    shape = np.concatenate([np.c_[long, 0 * long], np.c_[0 * short, short]])
    c, s = np.cos(yaw), np.sin(yaw)
    xy = shape @ np.array([[c, s], [-s, c]]) + (8, 3) + rng.normal(0, 0.01, shape.shape)
    result = fitted(xy)
    off = (result.yaw - yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
    assert abs(off) < np.radians(1.6)
    assert (result.width, result.length) == pytest.approx((1.8, 4.0), abs=0.15)
    assert result.error < 0.1


def test_a_rounded_bumper_does_not_turn_the_heading(rng):
    y = np.linspace(-0.9, 0.9, 60)
    bumper = np.c_[10 + 0.3 * np.clip(np.abs(y) - 0.6, 0, None) ** 2 / 0.09, y + 0.2]
    yaw = fitted(bumper + rng.normal(0, 0.01, bumper.shape)).yaw
    off = (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
    assert abs(off) < np.radians(2)


def test_degenerate_footprints_have_rectangles_too():
    one = fitted([[3.0, 4.0]])
    assert one.high.tolist() == one.low.tolist()
    assert one.error == one.length == one.width == 0
    for few in ([[3, 4]], [[3, 4]] * 7, [[3, 4], [3.1, 4]]):
        assert 0 <= fitted(few).yaw < np.pi / 2


def test_lines_of_sight_enter_and_leave_footprints_where_slabs_say(rng):
    boxes = rng.uniform((4, -12, 0, 1, 0.5, 1, -3), (40, 12, 0, 8, 3, 1, 3), (8, 7))
    lines = SightLines(boxes, camera(), 64)
    c, s = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    ends = []
    for axis, turned in enumerate((np.stack([c, s], axis=1), np.stack([-s, c], axis=1))):
        start = (turned * (lines._origin - boxes[:, :2])).sum(axis=1, keepdims=True)
        way, half = turned @ lines._rays.T, boxes[:, 3 + axis, None] / 2
        ends.append(np.sort([(-half - start) / way, (half - start) / way], axis=0))
    near, far = np.max(ends, axis=0)[0], np.min(ends, axis=0)[1]
    hit = (far > 0) & (near <= far)
    assert 20 < hit.sum() < 400
    np.testing.assert_array_equal(np.isfinite(lines.near), hit)
    np.testing.assert_allclose(lines.near[hit], near[hit], rtol=1e-9)
    np.testing.assert_allclose(lines.far[hit], far[hit], rtol=1e-9)


def test_enough_returns_before_an_object_cover_what_is_behind_them():
    config = DEFAULTS.masks
    lines = SightLines(np.array([standing(20, 0, 4, 2, 1.5)]), camera(), 64)
    pixels = np.array([[620, 190], [640, 190], [600, 200], [2, 2], [630, 195]], np.int32)
    crop = np.zeros((60, 120), np.uint8)
    points = np.array([[9, 0, 0], [17.4, 0, 0], [9, 0, 0], [9, 0, 0], [17.6, 0, 0]], float)
    (few,) = lines.covers(points[:2], pixels[:2], [crop], [(560, 170)], config)
    (some,) = lines.covers(points, pixels, [crop], [(560, 170)], config)
    assert not few.any()
    # Not the one outside of the crop, nor the one that is nearer by less.
    expected = crop.copy()
    expected[[20, 20, 30], [60, 80, 40]] = 1
    splat = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, config.splat)
    np.testing.assert_array_equal(some, cv2.dilate(expected, splat))


@pytest.mark.parametrize("name", ["car", "truck", "pedestrian", "cyclist", "other"])
def test_a_silhouette_lies_inside_its_box_and_fills_most_of_it(name):
    c = camera()
    box = standing(14, 2, 4, 1.8, 1.6, 0.5)
    ((mask, x, y),) = draw(outlines(box[None], [getattr(DEFAULTS.shapes, name)], c), c)
    left, top, right, bottom = image_boxes(box[None], c)[0]
    assert x >= left - 1.5
    assert y >= top - 1.5
    assert x + mask.shape[1] <= right + 1.5
    assert y + mask.shape[0] <= bottom + 1.5
    ((full, _, _),) = draw([[project_convex(corners(box)[0], c)]], c)
    share = mask.sum() / full.sum()
    least = {"car": 0.7, "truck": 0.9, "pedestrian": 0.5, "cyclist": 0.4, "other": 0.9}[name]
    assert least < share < 1.02


def test_nothing_is_drawn_of_an_object_outside_the_image():
    c = camera()
    boxes = np.array([standing(-10, 0, 4, 2, 2), standing(5, 50, 4, 2, 2)])
    assert draw(outlines(boxes, [DEFAULTS.shapes.car] * 2, c), c) == [None, None]


def test_a_far_nearer_end_does_not_put_a_long_trailer_before_the_car_beside_it():
    c = camera()
    # The trailer begins nearer than the car, but the car stands before the trailer's far end.
    trailer, car = standing(12, -3.5, 16, 2.5, 3), standing(6, -0.9, 4.2, 1.8, 1.5)
    beyond = standing(30, -2.5, 4.2, 1.8, 1.5)
    front = SightLines(np.array([trailer, car, beyond]), c).in_front(np.array([4.0, 5.0, 28.0]))
    assert front[0, 1]
    assert not front[1, 0]
    assert front[2, 0]
    assert front[2, 1]
    assert not front[0, 2]


def test_objects_never_hide_each_other_mutually(rng):
    n = 30
    low, high = (4, -12, 0, 1, 0.5, 1, -3), (40, 12, 0, 8, 3, 1, 3)
    boxes = rng.uniform(low, high, (n, 7))
    front = SightLines(boxes, camera()).in_front(boxes[:, 0])
    assert front.any()
    assert not (front & front.T).any()
    assert not front.diagonal().any()


@pytest.mark.parametrize("count", [1, 2, 3, 40, 3000])
def test_the_hull_of_pixels_is_opencvs_of_all_of_them(count, rng):
    pixels = rng.normal((300, 90), (40, 9), (count, 2)).astype(np.int32)
    expected = cv2.convexHull(pixels)[:, 0]
    assert sorted(hull(pixels).tolist()) == sorted(expected.tolist())


def test_an_envelope_reaches_from_the_outermost_return_of_each_laser_to_the_next_ones(rng):
    rows = rng.choice([7, 8, 11, 12], 200)
    pixels = np.stack([rng.integers(40, 60, 200), 5 * rows + rng.integers(0, 3, 200)], axis=1)
    polygons = envelope(pixels, rows, 3.0, 90.0, 4)
    own = [pixels[rows == k] for k in (7, 8, 11, 12)]
    left = np.array([p[:, 0].min() for p in own]) - 1.5
    right = np.array([p[:, 0].max() for p in own]) + 1.5
    level = np.array([p[:, 1].mean() for p in own])
    half = np.median(np.diff(level) / [1, 3, 1]) / 2
    assert len(polygons) == 5
    corners = [left[0], level[0] - half], [right[0], level[0] - half], [right[0], level[0]]
    assert polygons[0].tolist() == pytest.approx(np.array([*corners, [left[0], level[0]]]))
    for k in range(3):
        outer = [left[k], level[k]], [right[k], level[k]]
        inner = [right[k + 1], level[k + 1]], [left[k + 1], level[k + 1]]
        assert polygons[k + 1].tolist() == pytest.approx(np.array([*outer, *inner]))
    assert polygons[4][2].tolist() == [right[3], 90.0]
    assert envelope(pixels, rows, 3.0, 90.0, 5) == []


def test_the_last_bits_of_azimuths_do_not_decide_which_returns_face_the_sensor(rng):
    # Many lie on the border between two of the directions.
    angles = np.concatenate([np.arange(-360, 360) * np.pi / 360, rng.uniform(-3, 3, 2000)])
    xy = rng.uniform(5, 9, (len(angles), 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    xy = xy.astype(np.float32)
    azimuths = np.arctan2(xy[:, 1], xy[:, 0])
    front = _facing(xy, azimuths, 720)
    assert 700 < len(front) <= 720
    for off in (-5e-7, 5e-7):
        np.testing.assert_array_equal(_facing(xy, azimuths + np.float32(off), 720), front)
