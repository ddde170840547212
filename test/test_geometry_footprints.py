"""What is measured of many things at once is what NumPy measures of each."""

from __future__ import annotations

import numpy as np
import pytest

from amodal_core.geometry.config import DEFAULTS
from amodal_core.geometry.context import CONTEXT, ClusterContext
from amodal_core.geometry.footprints import measured

SHAPE, RECTANGLE = DEFAULTS.shape, DEFAULTS.rectangle


@pytest.fixture(scope="module")
def things():
    """Points, heights and members: sides of vehicles, persons, what is flat and what is too long.

    One has more returns than are measured, one a single return.
    """
    rng = np.random.default_rng(5)
    points, heights, members = [], [], []
    for k, (count, length, top) in enumerate(
        [(7000, 4, 1.5), (40, 0.5, 1.7), (900, 8, 3.2), (300, 3, 0.3), (600, 60, 3), (1, 1, 1.4)]
    ):
        side = rng.random((count, 2)) * (length, 0) + rng.normal(0, 0.02, (count, 2))
        end = rng.random((count, 2)) * (0, length / 3) + rng.normal(0, 0.02, (count, 2))
        local = np.where(rng.random((count, 1)) < 0.7, side, end)
        c, s = np.cos(0.4 * k), np.sin(0.4 * k)
        xy = local @ np.array([[c, s], [-s, c]]) + (12 + 5 * k, 3 - 2 * k)
        members.append(sum(map(len, points)) + rng.permutation(count))
        points.append(np.column_stack([xy, rng.random((count, 2))]))
        heights.append(rng.random(count) * top)
    return np.concatenate(points).astype(np.float32), np.concatenate(heights, dtype="f4"), members


def contexts(count):
    return np.array([ClusterContext(cut_above=0.1 * k) for k in range(count)], CONTEXT)


def test_things_measure_what_numpy_measures_of_each(things):
    points, heights, members = things
    results, places, highs = measured(points, heights, members, contexts(len(members)))
    results, begin = results.view(np.recarray), 0
    for k, (f, index) in enumerate(zip(results, members, strict=True)):
        thinned = index[:: -(-len(index) // SHAPE.enough)]
        xy, high = points[thinned, :2], heights[thinned]
        top = np.sort(high)[int(SHAPE.top_quantile * (len(high) - 1))]
        longest = np.ptp(xy, axis=0).max()
        own = slice(begin, begin := begin + len(xy))
        np.testing.assert_array_equal(places[own], xy)
        np.testing.assert_array_equal(highs[own], high)
        assert (f.returns, f.kept, f.lowest, f.top) == (len(index), len(xy), high.min(), top)
        assert f.cut == (0.1 * k > SHAPE.cut)
        if top < SHAPE.lowest_top or longest > DEFAULTS.sizes.truck.length[2]:
            assert not f.usable
            continue
        assert f.usable
        # Around it stands the rectangle of its heading.
        c, s = np.cos(f.rectangle.yaw), np.sin(f.rectangle.yaw)
        along = np.stack([xy[:, 0] * c + xy[:, 1] * s, xy[:, 1] * c - xy[:, 0] * s], axis=1)
        low, high = along.min(axis=0), along.max(axis=0)
        some = along[:: -(-len(along) // RECTANGLE.error_returns)]
        edge = np.minimum(some - low, high - some).min(axis=1)
        assert f.rectangle.low.tolist() == low.tolist()
        assert f.rectangle.high.tolist() == high.tolist()
        assert f.rectangle.length == max(high - low)
        assert f.rectangle.width == min(high - low)
        assert f.rectangle.error == np.median(edge)
        if len(index) > 500:
            off = (f.rectangle.yaw - 0.4 * k + np.pi / 4) % (np.pi / 2) - np.pi / 4
            assert abs(off) < np.radians(3)
    assert results.usable.tolist() == [True, True, True, False, False, True]


def test_together_and_alone_things_measure_the_same(things):
    points, heights, members = things
    every = contexts(len(members))
    together = measured(points, heights, members, every).footprints
    for k, index in enumerate(members):
        assert measured(points, heights, [index], every[k]).footprints[0] == together[k]
