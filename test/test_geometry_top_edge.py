"""The height of what is taller than the scan, from images of grey stripes: exact."""

from __future__ import annotations

import numpy as np
import pytest
from geometry_scenes import camera

from amodal_core.geometry.top_edge import top_edge

CAMERA = camera()
DEPTH, GROUND = 11.0, 1.73  # metres to a face straight ahead; the camera's height


def row(height):
    """The image's row of a height above the ground on the face."""
    return CAMERA.K[1, 2] + CAMERA.K[1, 1] * (GROUND - height) / DEPTH


def edge(stripes, scanned=2.0, highest=4.2):
    """What is told of a face whose returns end at `scanned` metres.

    Stripes are (height, grey) from the ground up: the grey from that height on.
    """
    image = np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)
    for height, grey in stripes:
        image[: max(round(row(height)), 0)] = grey
    columns = np.arange(560, 680)
    heights = np.linspace(0.4, scanned, 30)
    u, h = (g.ravel() for g in np.meshgrid(columns, heights))
    pixels = np.stack([u, np.rint(row(h))], axis=1).astype(np.int64)
    return top_edge(image, pixels, np.full(len(u), DEPTH), h, CAMERA, highest)


@pytest.mark.parametrize("top", [2.2, 2.6, 3.1])
def test_the_edge_above_the_returns_is_the_objects_top(top):
    assert edge([(0, 90), (top, 200)]) == pytest.approx(top, abs=0.08)


def test_of_two_edges_the_lower_is_the_objects_though_the_one_behind_is_clearer():
    assert edge([(0, 90), (2.3, 140), (3.3, 210)]) == pytest.approx(2.3, abs=0.08)


def test_a_much_clearer_edge_above_beats_texture():
    assert edge([(0, 90), (2.3, 108), (2.8, 230)]) == pytest.approx(2.8, abs=0.08)


def test_weak_edges_are_texture_and_edges_too_high_are_others():
    assert edge([(0, 90), (2.3, 100)]) is None
    assert edge([(0, 90), (3.4, 200)], highest=3.0) is None
