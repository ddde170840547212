from __future__ import annotations

import numpy as np
import pytest
from geometry_scenes import SENSOR_HEIGHT, scan, standing

from amodal_core.geometry.clustering import connected_components
from amodal_core.geometry.config import DEFAULTS, kernel_values
from amodal_core.geometry.context import ClusterContext, context_shares
from amodal_core.geometry.ground import _fill_heights, remove_ground
from amodal_core.geometry.range_image import columns_in_view, range_image


def contexts_of(points, image, labels):
    """The context of each cluster."""
    return [ClusterContext(*row) for row in context_shares(points, image, labels, labels.max() + 1)]


def clustered(boxes, order=None):
    points, owner = scan(boxes, seed=3)
    if order is not None:
        points, owner = points[order(len(points))], owner[order(len(points))]
    image = range_image(points)
    ground, heights = remove_ground(image)
    labels = connected_components(points, image, (heights > 0.25) & (heights < 4.2))
    return points, owner, image, ground, heights, labels


CARS = [
    standing(12, 0, 4.2, 1.8, 1.5),
    standing(14, 3, 4.2, 1.8, 1.5),
    standing(-9, 2, 4, 1.8, 1.5),
]


def test_a_scan_in_the_lasers_order_keeps_its_lasers_as_rows():
    points, _ = scan(CARS)
    image = range_image(points)
    elevation = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    rows = image.cells // image.index.shape[1]
    spread = [np.ptp(elevation[rows == r]) for r in np.unique(rows)]
    assert max(spread) < 1e-4
    mean = [elevation[rows == r].mean() for r in np.unique(rows)]
    assert np.all(np.diff(mean) < 0), "row 0 looks highest"


def test_a_real_scan_has_its_64_lasers(kitti_raw_drive):
    for path in sorted((kitti_raw_drive / "velodyne_points" / "data").glob("*.bin"))[::12]:
        image = range_image(np.fromfile(path, np.float32).reshape(-1, 4))
        assert image.index.shape[0] == 64


def test_each_cell_holds_its_nearest_point(rng):
    points = rng.normal(size=(3000, 4)).astype(np.float32) * (20, 20, 2, 1)
    image = range_image(points)
    assert (image.cells >= 0).all()
    distance = np.hypot(points[:, 0], points[:, 1])
    flat = image.index.ravel()
    assert (distance[flat[image.cells]] <= distance + 1e-4).all()


def test_points_that_are_not_finite_are_in_no_cell():
    points, _ = scan(CARS)
    points[5:8, 1] = np.nan
    image = range_image(points)
    assert (image.cells[5:8] == -1).all()
    assert not np.isin(image.index, [5, 6, 7]).any()


def test_flat_ground_is_found_and_nothing_that_stands_on_it_is_taken_for_it():
    _, owner, _, ground, heights, _ = clustered(CARS)
    assert np.abs(heights[owner == -1]).max() < 0.15
    assert ground.z0 == pytest.approx(-SENSOR_HEIGHT, abs=0.03)
    assert heights[owner == 0].max() == pytest.approx(1.5, abs=0.06)
    at = ground.at(np.array([[12, 0], [30, -5], [-40, 3]], np.float32))
    assert np.allclose(at, -SENSOR_HEIGHT, atol=0.06)


def test_a_road_that_climbs_is_still_ground():
    points, owner = scan([], seed=1)
    slope = np.radians(4)
    c, s = np.cos(slope), np.sin(slope)
    points[:, :3] = points[:, :3] @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    _, heights = remove_ground(range_image(points))
    near = np.hypot(points[:, 0], points[:, 1]) < 40
    assert np.quantile(np.abs(heights[near & (owner == -1)]), 0.99) < 0.15


@pytest.mark.parametrize("shuffled", [False, True], ids=["by laser", "shuffled"])
def test_each_object_is_one_component_and_shares_it_with_nobody(shuffled):
    order = (lambda n: np.random.default_rng(1).permutation(n)) if shuffled else None
    _, owner, *_, labels = clustered(CARS, order)
    components = []
    for k in range(len(CARS)):
        own = labels[(owner == k) & (labels >= 0)]
        values, counts = np.unique(own, return_counts=True)
        assert counts.max() > 0.9 * len(own)
        components.append(values[counts.argmax()])
    assert len(set(components)) == len(CARS)
    assert (labels[owner == -1] == -1).all()


def test_a_car_across_the_seam_behind_the_sensor_is_one_component():
    points, owner, *_, labels = clustered([standing(-10, 0, 4.2, 1.8, 1.5)])
    face = (owner == 0) & (labels >= 0) & (points[:, 0] > -8.2)
    assert (points[face, 1] > 0.5).any()
    assert (points[face, 1] < -0.5).any()
    assert len(np.unique(labels[face])) == 1


def test_what_has_no_return_near_the_view_is_left_out_and_changes_no_other():
    # Around the car ahead, whose neighbour at the left reaches into the view by a corner.
    points, owner, image, _, heights, every = clustered(CARS)
    keep = (heights > 0.25) & (heights < 4.2)
    inside = np.flatnonzero((owner == 0) | ((owner == 1) & (points[:, 1] < 2.3)))
    columns = columns_in_view(image, inside, 0.0)
    labels = connected_components(points, image, keep, columns=columns)
    asked = np.unique(every[(owner >= 0) & (owner < 2) & (every >= 0)])
    assert (labels[~keep] == -1).all()
    np.testing.assert_array_equal(labels >= 0, np.isin(every, asked))
    assert (labels[(owner == 2) & keep] == -2).all()
    np.testing.assert_array_equal(asked[labels[labels >= 0]], every[labels >= 0])
    # What is left out still touches its neighbours: here the right half of the car.
    halves = np.where((owner == 0) & keep, (points[:, 1] < 0).astype(np.int32), -1)
    (left, _), (same,) = (
        contexts_of(points, image, halves),
        contexts_of(points, image, np.where(halves == 1, -2, halves)),
    )
    assert same == left
    assert left.touching > 0.4


@pytest.mark.parametrize("margin", [0.0, 3.0, 180.0])
def test_columns_in_view_are_those_of_points_in_it_and_beside_them(margin, rng):
    points, _ = scan(CARS)
    image = range_image(points)
    shown = rng.random(len(points)) < 1e-4
    shown[np.abs(np.arctan2(points[:, 1], -points[:, 0])) < 0.01] = True  # across the seam
    count = image.index.shape[1]
    hit = np.isin(np.arange(count), image.cells[shown] % count)
    reach = int(np.ceil(margin / 360 * count))
    expected = np.any([np.roll(hit, k) for k in range(-reach, reach + 1)], axis=0)
    np.testing.assert_array_equal(columns_in_view(image, np.flatnonzero(shown), margin), expected)


def test_empty_cells_of_the_ground_are_filled_from_the_nearest_rings(rng):
    """As a plain form says: ring by ring, until there are enough returns."""
    side, plane = 24, (-1.7, 0.01, -0.02)
    counts = (rng.integers(0, 40, (side, side)) * (rng.random((side, side)) < 0.1)).astype(np.int32)
    sums = (counts * rng.normal(-1.7, 0.1, (side, side))).astype(np.float32)
    v = kernel_values(DEFAULTS.ground)
    at = (np.arange(side) + 0.5) * v.cell - v.reach
    level = plane[0] + plane[1] * at[:, None] + plane[2] * at[None]
    weights = np.where(counts >= v.cell_returns, np.minimum(counts, v.cell_weight), 0)
    off = weights * (sums / np.maximum(counts, 1) - level)
    expected = level.copy()
    apart = np.abs(np.arange(side)[:, None] - np.arange(side)[None])
    for k in range(side):
        for m in range(side):
            distance = np.maximum(apart[k][:, None], apart[m][None])
            for ring in range(v.rings):
                near = distance <= ring
                if weights[near].sum() >= v.ring_weight or ring == v.rings - 1:
                    expected[k, m] += off[near].sum() / max(weights[near].sum(), 1)
                    break
    assert 0 < (expected == level).mean() < 0.9
    np.testing.assert_allclose(_fill_heights(sums, counts, plane, v), expected, atol=1e-6)


def test_a_post_in_front_does_not_split_a_car():
    points, owner, *_, labels = clustered(
        [standing(12, 0, 4.2, 1.8, 1.5), standing(7, 0.2, 0.12, 0.12, 3)]
    )
    rear = (owner == 0) & (labels >= 0) & (points[:, 0] < 10)
    left, right = labels[rear & (points[:, 1] > 0.4)], labels[rear & (points[:, 1] < 0)]
    assert len(left) > 50
    assert len(np.unique(np.concatenate([left, right]))) == 1
    assert not np.isin(labels[owner == 1], left).any()


def test_the_context_tells_on_which_side_something_nearer_ends_an_object():
    # Seen from the sensor the near car (to the left, at +y) covers the far one's left end.
    points, owner, image, _, _, labels = clustered(
        [standing(9, 2.2, 4.2, 1.8, 2.0), standing(20, 2, 4.2, 1.8, 1.5)]
    )
    contexts = contexts_of(points, image, labels)
    far = contexts[np.bincount(labels[(owner == 1) & (labels >= 0)]).argmax()]
    near = contexts[np.bincount(labels[(owner == 0) & (labels >= 0)]).argmax()]
    assert far.hidden_left > 0.8
    assert far.hidden_right < 0.2
    assert near.hidden_left < 0.1
    assert near.hidden_right < 0.1
    assert near.smooth > 0.9


def test_the_context_tells_what_reaches_above_the_scan():
    points, owner, image, _, _, labels = clustered(
        [standing(8, 3, 6, 2.4, 3.2), standing(8, -3, 4.2, 1.8, 1.5)]
    )
    contexts = contexts_of(points, image, labels)
    tall = contexts[np.bincount(labels[(owner == 0) & (labels >= 0)]).argmax()]
    low = contexts[np.bincount(labels[(owner == 1) & (labels >= 0)]).argmax()]
    assert tall.cut_above > 0.9
    assert low.cut_above == 0


@pytest.mark.parametrize("count", [0, 1, 2, 99])
def test_few_points_are_no_error(count, rng):
    points = rng.normal(size=(count, 4)).astype(np.float32) * 10
    image = range_image(points)
    ground, heights = remove_ground(image)
    labels = connected_components(points, image, np.ones(count, bool))
    assert len(heights) == len(labels) == count
    assert np.isfinite(ground.heights).all()


def by_firing(points, steps=2000):
    """The order in which drivers list a scan: all lasers of one azimuth, then the next azimuth."""
    azimuth = np.arctan2(points[:, 1], points[:, 0])
    elevation = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    return np.lexsort((-elevation, np.rint(-azimuth * steps / (2 * np.pi))))


@pytest.mark.parametrize("grain", [0.0, 0.01], ids=["exact", "rounded to a centimetre"])
def test_a_scan_in_firing_order_has_its_unevenly_spaced_lasers_as_rows(grain):
    points, _ = scan(CARS, seed=5)
    lasers = range_image(points)
    order = by_firing(points)
    fired = points[order].copy()
    if grain:
        fired[:, :3] = np.rint(fired[:, :3] / grain) * grain
    image = range_image(fired)
    assert image.index.shape[0] == lasers.index.shape[0]
    rows = image.cells // image.index.shape[1]
    truth = lasers.cells[order] // lasers.index.shape[1]
    assert (rows == truth).mean() > 0.999


@pytest.mark.parametrize("every", [1, 2, 4])
def test_columns_are_as_wide_as_the_scanners_steps(every):
    points, _ = scan(CARS, seed=5)
    step = np.rint((np.degrees(np.arctan2(points[:, 1], points[:, 0])) - 0.05) / 0.18).astype(int)
    coarse = points[step % every == 0]
    for points in (coarse, coarse[by_firing(coarse)]):
        index = range_image(points).index
        # Rows of ground are whole turns: their cells have returns all around.
        row = index[40]
        assert (row >= 0).mean() > 0.999
        assert index.shape[1] > 0.8 * 2000 / every


@pytest.mark.parametrize("every", [1, 2, 4])
def test_bodywork_is_as_smooth_in_a_coarse_scan_as_in_a_fine_one(every):
    points, owner = scan(CARS[:1], seed=5)
    step = np.rint((np.degrees(np.arctan2(points[:, 1], points[:, 0])) - 0.05) / 0.18).astype(int)
    order = np.flatnonzero(step % every == 0)
    order = order[by_firing(points[order])]
    points, owner = points[order], owner[order]
    image = range_image(points)
    _, heights = remove_ground(image)
    labels = connected_components(points, image, (heights > 0.25) & (heights < 4.2))
    contexts = contexts_of(points, image, labels)
    car = np.bincount(labels[(owner == 0) & (labels >= 0)]).argmax()
    assert contexts[car].smooth > 0.8


def test_posts_before_its_middle_end_no_object():
    boxes = [standing(12, 0, 4.2, 1.8, 1.5), *(standing(7, y, 0.1, 0.1, 3) for y in (-0.25, 0.2))]
    points, owner, image, _, _, labels = clustered(boxes)
    contexts = contexts_of(points, image, labels)
    car = contexts[np.bincount(labels[(owner == 0) & (labels >= 0)]).argmax()]
    assert car.hidden_left < 0.1
    assert car.hidden_right < 0.1


@pytest.mark.parametrize("side", [1, -1], ids=["left", "right"])
def test_the_context_tells_what_the_scans_field_of_view_cuts_off(side):
    boxes = [standing(5, 4.5 * side, 4.2, 1.8, 1.5), standing(12, 0, 4.2, 1.8, 1.5)]
    points, owner = scan(boxes, seed=3)
    ahead = np.abs(np.arctan2(points[:, 1], points[:, 0])) < np.radians(45)
    points, owner = points[ahead], owner[ahead]
    image = range_image(points)
    _, heights = remove_ground(image)
    labels = connected_components(points, image, (heights > 0.25) & (heights < 4.2))
    contexts = contexts_of(points, image, labels)
    cut, inside = (
        contexts[np.bincount(labels[(owner == k) & (labels >= 0)]).argmax()] for k in (0, 1)
    )
    beyond = (cut.beyond_left, cut.beyond_right)[::side]
    assert beyond[0] > 0.9
    assert beyond[1] == inside.beyond_left == inside.beyond_right == 0


@pytest.mark.parametrize("noise", [0.01, 0.025])
def test_bodywork_is_smooth_in_a_quiet_and_in_a_noisy_scan(noise):
    points, owner = scan([standing(25, 4, 4.2, 1.8, 1.5)], seed=3, noise=noise)
    image = range_image(points)
    _, heights = remove_ground(image)
    labels = connected_components(points, image, (heights > 0.25) & (heights < 4.2))
    contexts = contexts_of(points, image, labels)
    car = np.bincount(labels[(owner == 0) & (labels >= 0)]).argmax()
    assert contexts[car].smooth > 0.7
