"""What is one thing and what is ground, at the borders between: exact scenes, ray by ray.

Each case lies near a threshold of `ClusterConfig` or `GroundConfig`: with half or twice its value
the answer is another.
"""

from __future__ import annotations

import numpy as np
import pytest
from geometry_scenes import SENSOR_HEIGHT, scan, standing

from amodal_core.geometry.clustering import connected_components
from amodal_core.geometry.config import DEFAULTS
from amodal_core.geometry.ground import remove_ground
from amodal_core.geometry.range_image import range_image


def clusters(boxes, drop=None):
    """Points, the box that each is on, and their clusters."""
    points, owner = scan(boxes, seed=3, noise=0.003, sector=40)
    if drop is not None:
        keep = ~drop(points, owner)
        points, owner = points[keep], owner[keep]
    image = range_image(points)
    _, heights = remove_ground(image)
    keep = (heights > DEFAULTS.cluster.lowest) & (heights < DEFAULTS.cluster.highest)
    return points, owner, connected_components(points, image, keep)


def most(labels):
    """The cluster that most of some returns are in; -1 where none is."""
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    return int(values[counts.argmax()]) if len(values) else -1


def same(boxes, drop=None):
    """Whether the first two boxes are one cluster."""
    _, owner, labels = clusters(boxes, drop)
    return most(labels[owner == 0]) == most(labels[owner == 1]) >= 0


def undivided(boxes, axis=1, at=0.0, drop=None):
    """Whether the first box is one cluster on both sides of a plane across an axis."""
    points, owner, labels = clusters(boxes, drop)
    sides = points[:, axis] > at
    return most(labels[(owner == 0) & sides]) == most(labels[(owner == 0) & ~sides]) >= 0


@pytest.mark.parametrize(("distance", "degrees", "one"), [(30, 6, 1), (22, 4.5, 1), (15, 4, 0)])
def test_a_wall_at_a_grazing_angle_is_one_until_it_is_too_flat(distance, degrees, one):
    _, owner, labels = clusters([standing(distance, 0, 3, 0.05, 1.6, np.radians(degrees))])
    _, counts = np.unique(labels[(owner == 0) & (labels >= 0)], return_counts=True)
    assert ((counts >= 3).sum() == 1) == one


def steps(distance, metres):
    """Two faces side by side, the second farther."""
    return [
        standing(distance + 0.5, 1, 1, 2, 1.6),
        standing(distance + 0.5 + metres, -1, 1, 2, 1.6),
    ]


@pytest.mark.parametrize(
    ("distance", "metres", "one"),
    [
        (6, 0.27, True),
        (8, 0.30, True),
        (8, 0.35, False),
        (10, 0.45, False),
        (20, 0.65, True),
        (40, 1.2, True),
        (40, 1.7, False),
    ],
)
def test_faces_side_by_side_are_one_until_the_step_between_is_too_deep(distance, metres, one):
    assert same(steps(distance, metres)) == one


@pytest.mark.parametrize(("metres", "one"), [(0.9, True), (1.2, False)])
def test_in_a_coarse_scan_too_far_is_too_far_however_steep(metres, one):
    def three_of_four(points, owner):
        azimuth = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
        return np.rint((azimuth - 0.05) / 0.18).astype(int) % 4 != 0

    assert same(steps(20, metres), three_of_four) == one


FACE = standing(12, 0, 0.1, 3, 1.5)


@pytest.mark.parametrize(("degrees", "one"), [(0.3, True), (0.4, False)])
def test_glass_is_looked_past_until_it_is_too_wide(degrees, one):
    def glass(points, owner):
        return (owner == 0) & (np.abs(np.degrees(np.arctan2(points[:, 1], points[:, 0]))) < degrees)

    assert undivided([FACE], drop=glass) == one


@pytest.mark.parametrize(("rows", "one"), [(2, True), (3, False)])
def test_up_and_down_lasers_without_returns_are_looked_past(rows, one):
    def dark(points, owner):
        elevation = np.round(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])), 4)
        lasers = np.unique(elevation[owner == 0])
        middle = len(lasers) // 2
        return (owner == 0) & np.isin(elevation, lasers[middle : middle + rows])

    assert undivided([FACE], axis=2, at=-1.0, drop=dark) == one


@pytest.mark.parametrize(
    ("post", "one"),
    [
        (standing(7, 0, 0.3, 0.4, 3), True),
        (standing(7, 0, 0.9, 0.9, 3), False),
        (standing(11.3, 0, 0.3, 0.5, 3), True),
    ],
    ids=["a post", "as wide as a shed", "a person close before it"],
)
def test_what_stands_before_a_face_splits_it_only_where_it_is_wide(post, one):
    assert undivided([FACE, post]) == one


def test_a_part_that_stands_out_by_less_is_not_before_it_but_of_it():
    assert not undivided([standing(8, 0, 0.1, 4, 1.5), standing(7.6, 0, 0.1, 0.3, 3)])


@pytest.mark.parametrize(("metres", "one"), [(0.18, True), (0.4, False)])
def test_behind_a_post_only_the_same_range_goes_on(metres, one):
    sides = [standing(12, 1, 4, 2, 1.5), standing(12 + metres, -1, 4, 2, 1.5)]
    assert same([*sides, standing(7, 0, 0.3, 0.3, 3)]) == one


def test_a_slit_one_step_wide_through_which_a_wall_shows_splits_nothing():
    halves = [standing(12, y, 0.1, 1.5, 1.5) for y in (0.77, -0.77)]
    assert same([*halves, standing(16, 0, 0.1, 6, 1.5)])


@pytest.mark.parametrize(("metres", "one"), [(0.8, True), (1.5, False)])
def test_a_second_echo_is_its_cells_object_where_it_is_near(metres, one):
    points, owner = scan([FACE], seed=3, noise=0.003, sector=40)
    face = np.flatnonzero(owner == 0)
    echo = points[face]
    echo[:, :3] *= 1 + metres / 12
    points, echoes = np.insert(points, face + 1, echo, axis=0), face + 1 + np.arange(len(face))
    keep = np.zeros(len(points), bool)
    keep[echoes] = keep[echoes - 1] = True
    labels = connected_components(points, range_image(points), keep)
    assert (labels[echoes - 1] >= 0).all()
    assert np.mean(labels[echoes] >= 0) == one


@pytest.mark.parametrize(
    ("box", "raised", "one"),
    [
        (standing(10, 0, 2, 2, 0.2), 0, False),
        (standing(10, 0, 2, 2, 0.42), 0, True),
        (standing(60, 0, 0.1, 6, 0.8), 2.9, True),
        (standing(78, 0, 0.1, 8, 0.8), 4.3, False),
    ],
    ids=["kerb", "low", "as high as a truck", "sign over the road"],
)
def test_objects_are_above_the_kerb_and_below_the_bridge(box, raised, one):
    _, owner, labels = clusters([box + np.array([0, 0, raised, 0, 0, 0, 0])])
    assert (labels[owner == 0] >= 0).any() == one


def road(profile, boxes=()):
    """Points, box of each, distance, height above the ground; the road rises by a profile."""
    points, owner = scan(list(boxes), seed=3, noise=0.003, sector=60)
    distance = np.hypot(points[:, 0], points[:, 1])
    points[:, 2] += profile(distance).astype(np.float32)
    return points, owner, distance, remove_ground(range_image(points))[1]


@pytest.mark.parametrize(
    ("slope", "begin", "end", "near"),
    [(0.03, 15, 60, 40), (0.07, 6, 11, 6), (0.15, 8, 12, 8), (-0.09, 8, 16, 8)],
)
def test_a_road_that_bends_up_or_down_is_ground(slope, begin, end, near):
    *_, distance, heights = road(lambda r: slope * np.clip(r - begin, 0, end - begin))
    bent = (distance > near) & (distance < end)
    assert np.quantile(np.abs(heights[bent]), 0.9) < 0.08


@pytest.mark.parametrize(
    ("box", "ground"),
    [
        (standing(24, 0, 14, 12, 0.9), False),
        (standing(10, 0, 6, 12, 0.5), False),
        (standing(10, 0, 8, 12, 0.15), True),
    ],
    ids=["ramp for lorries", "platform", "pavement"],
)
def test_what_is_flat_is_ground_only_where_it_is_as_low_as_a_kerb(box, ground):
    points, owner, _, heights = road(np.zeros_like, [box])
    top = (owner == 0) & (points[:, 2] > box[5] - SENSOR_HEIGHT - 0.05) & (points[:, 0] > box[0])
    assert np.median(heights[top]) == pytest.approx(0 if ground else box[5], abs=0.06)


@pytest.mark.parametrize(
    ("patches", "level"),
    [
        ([(3000, 4.5, 20, -1.7), (6000, 2.2, 3.8, -0.9)], -1.7),
        ([(3000, 5, 20, -1.7), (6000, 28, 45, -0.9)], -1.7),
        ([(3000, 5, 10, -0.9), (6000, 14, 24, -1.7)], -1.7),
        ([(3000, 5, 20, -1.7), (6000, 5, 20, 1.0)], -1.7),
        ([(3000, 5, 20, -1.7), (6000, 5, 20, -5)], -1.7),
        ([(3000, 5, 20, -3.1)], -3.1),
        ([(300, 40, 60, 2.0)], -SENSOR_HEIGHT),
    ],
    ids=["bonnet", "far terrace", "hedge", "bridge", "pit", "on a truck's roof", "no return"],
)
def test_the_road_is_the_level_of_most_returns_around_the_vehicle(patches, level, rng):
    parts = []
    for count, near, far, z in patches:
        r, a = rng.uniform(near, far, count), rng.uniform(-np.pi, np.pi, count)
        parts.append(np.c_[r * np.cos(a), r * np.sin(a), rng.normal(z, 0.01, count), 0 * r])
    points = np.concatenate(parts).astype(np.float32)
    assert remove_ground(range_image(points))[0].z0 == pytest.approx(level, abs=0.05)
