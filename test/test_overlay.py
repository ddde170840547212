"""The overlay: which pixels change, colours of tracks, labels that do not cover each other."""

from __future__ import annotations

import numpy as np
import pytest
from box_scenes import CALIBRATION, boxes_seen, tracks_seen

from amodal_core.frame import Calibration, Frame, Tracks
from amodal_core.views.overlay import OverlayStyle, draw_boxes, draw_overlay, enlarge, in_window
from amodal_core.views.palette import hex_colour, track_colour
from amodal_core.views.panel import _returns, draw_panel
from amodal_core.views.text import put_text

SIZE = (200, 400)
BARE = OverlayStyle(labels=False)
GREY = np.full((*SIZE, 3), 100, np.uint8)


def test_only_pixels_at_the_masks_change():
    tracks = tracks_seen(SIZE, [(50, 60, 150, 140), (100, 40, 250, 120)], [10, 20])
    drawn = draw_overlay(GREY, tracks, ("car",), BARE)
    changed = (drawn != GREY).any(axis=2)
    near = np.zeros(SIZE, bool)
    for x0, y0, x1, y1 in tracks.amodal_boxes.astype(int):
        near[y0 - 2 : y1 + 2, x0 - 2 : x1 + 2] = True
    assert not (changed & ~near).any()
    assert changed[tracks.amodal.dense().any(axis=0)].all()
    assert (GREY == 100).all(), "the image itself must not change"


def test_the_visible_part_is_tinted_evenly_and_the_hidden_part_hatched():
    tracks = tracks_seen(SIZE, [(50, 60, 150, 140), (100, 40, 250, 120)], [10, 20])
    drawn = draw_overlay(GREY, tracks, ("car",), BARE).astype(int)
    # Inside, away from outlines: seen of track 1, and hidden of track 1 behind track 0.
    seen = drawn[50:110, 170:240].reshape(-1, 3)
    assert len(np.unique(seen, axis=0)) == 1
    toward = np.array(track_colour(1)) - 100
    assert np.dot(seen[0] - 100, toward) > 0
    hidden = drawn[70:110, 110:140].reshape(-1, 3)
    assert len(np.unique(hidden, axis=0)) == 2


def test_a_track_that_coasts_is_hatched_whole():
    drawn = draw_overlay(
        GREY, tracks_seen(SIZE, [(50, 60, 150, 140)], [10], coasted=[0]), ("car",), BARE
    )
    inside = drawn[70:130, 60:140].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) == 2


def test_labels_are_drawn_within_the_image_and_do_not_cover_each_other():
    crowd = [(10 * k, 90, 10 * k + 60, 150) for k in range(8)]
    tracks = tracks_seen(SIZE, crowd, [10.0 + k for k in range(8)])
    plain = draw_overlay(GREY, tracks, ("car",), BARE)
    labelled = draw_overlay(GREY, tracks, ("car",))
    fresh = (plain != labelled).any(axis=2)
    for k in range(8):
        # Each label begins with a bar in its track's colour, at least as high as its text.
        bar = (labelled == track_colour(k)).all(axis=2) & fresh
        assert bar.sum() >= 3 * 12, f"the label of track {k} is covered"


@pytest.mark.parametrize("box", [(0, 0, 400, 200), (0, 0, 3, 3), (398, 198, 400, 200)])
def test_objects_at_the_borders_are_drawn_without_trouble(box):
    draw_overlay(GREY, tracks_seen(SIZE, [box], [5.0]), ("car",))


def test_empty_tracks_and_empty_masks_leave_the_image_alone():
    np.testing.assert_array_equal(draw_overlay(GREY, Tracks.empty(SIZE), ("car",)), GREY)
    np.testing.assert_array_equal(
        draw_overlay(GREY, tracks_seen(SIZE, [(10, 10, 10, 10)], [5.0]), ("car",)), GREY
    )


def test_instances_without_ids_are_numbered_by_their_place():
    plain = boxes_seen(SIZE, [(50, 60, 150, 140)], [10.0])
    drawn = draw_overlay(GREY, plain, ("car",), BARE)
    np.testing.assert_array_equal(
        drawn,
        draw_overlay(GREY, tracks_seen(SIZE, [(50, 60, 150, 140)], [10.0], [0]), ("car",), BARE),
    )


def test_the_colour_of_a_track_is_its_own_and_far_from_its_neighbours():
    colours = np.array([track_colour(k) for k in range(24)], float)
    assert track_colour(7) == track_colour(7)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=2) + 1e3 * np.eye(24)
    assert apart.min() > 12
    for k in range(20):
        # Of any four ids in a row, all are easily told apart.
        assert apart[k, k + 1 : k + 4].min() > 60
    assert hex_colour(3) == "#" + "".join(f"{v:02x}" for v in track_colour(3))


def test_enlarged_masks_cover_the_enlarged_objects():
    tracks = tracks_seen(
        SIZE, [(50, 60, 150, 140), (100, 40, 250, 120), (3, 3, 3, 3)], [10, 20, 30]
    )
    image, large = enlarge(GREY, tracks, 3)
    assert image.shape == (600, 1200, 3)
    for name in ("amodal", "visible"):
        expected = getattr(tracks, name).dense().repeat(3, axis=1).repeat(3, axis=2)
        # Edges hold; corners are rounded by a pixel or two.
        wrong = getattr(large, name).dense() != expected
        assert wrong.sum(axis=(1, 2)).max() <= 6 * 3
    np.testing.assert_array_equal(large.amodal_boxes[:2], 3 * tracks.amodal_boxes[:2])
    draw_overlay(image, large, ("car",))


def test_tracks_in_a_window_are_cut_and_resized_with_it():
    tracks = tracks_seen(SIZE, [(50, 60, 150, 140), (100, 40, 250, 120)], [10, 20])
    shown = in_window(tracks, (100, 50, 200, 100), (300, 150))
    assert shown.size == (150, 300)
    for name in ("amodal", "visible"):
        expected = getattr(tracks, name).dense()[:, 50:100, 100:200].repeat(3, 1).repeat(3, 2)
        assert (getattr(shown, name).dense() != expected).sum(axis=(1, 2)).max() <= 6 * 3
    assert shown.amodal_boxes[0].tolist() == [0, 30, 150, 150]
    assert len(in_window(Tracks.empty(SIZE), (0, 0, 9, 9), (30, 30))) == 0


def test_what_evaluation_ignores_is_paler():
    tracks = tracks_seen(SIZE, [(50, 60, 150, 140)], [10])
    plain = draw_overlay(GREY, tracks, ("car",), BARE)[70:130, 60:140].astype(int)
    tracks.ignore = np.ones(1, bool)
    pale = draw_overlay(GREY, tracks, ("car",), BARE)[70:130, 60:140].astype(int)
    assert 0 < np.abs(pale - 100).sum() < 0.6 * np.abs(plain - 100).sum()


def test_boxes_without_masks_are_drawn_with_their_names_beside_them():
    image = GREY.copy()
    draw_boxes(image, ["car"], np.array([[50.0, 60, 150, 140]]))
    changed = (image != GREY).any(axis=2)
    assert changed[60, 50:150].all()
    assert not changed[70:130, 60:140].any()
    assert changed[:60].any()


def from_above(x, y, width=720):
    """Row and column of a place in the LiDAR's frame: from 6 m behind to 66 m ahead."""
    scale = (width * 2 / 3) / 72
    return round(width * 0.1 - y * scale), round((x + 6) * scale)


def test_from_above_a_track_stands_at_its_box_or_else_where_its_depth_says():
    tracks = tracks_seen(SIZE, [(190, 90, 210, 110), (290, 90, 310, 110)], [20, 20], coasted=[1])
    frame = Frame(0, calibration=CALIBRATION)
    panel = draw_panel(frame, tracks, 720)
    # Straight ahead at 20 m of the camera, and 10 m to the right of it.
    assert panel[from_above(21, 0)].tolist() == list(track_colour(0))
    row, column = from_above(21, -10)
    around = panel[row - 6 : row + 6, column - 6 : column + 7].astype(int)
    assert (np.abs(around - track_colour(1)).max(2) < 60).any()
    assert panel[row, column].tolist() != list(track_colour(1)), "a coasting one is no full disc"
    tracks.boxes3d = np.array([[40, 5, 0, 4, 2, 1.5, 0], [np.nan] * 7], np.float32)
    panel = draw_panel(frame, tracks, 720)
    assert panel[from_above(21, 0)].tolist() != list(track_colour(0))
    row, column = from_above(42, 5)
    rim = panel[row - 8 : row + 9, column].astype(int)
    assert (np.abs(rim - track_colour(0)).max(1) < 60).any()


@pytest.mark.parametrize("degrees", [90, 180, -60])
def test_from_above_every_camera_looks_to_the_right(degrees):
    turned = np.eye(4)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned[:2, :2] = [[c, -s], [s, c]]
    T = CALIBRATION.camera_from_lidar @ np.linalg.inv(turned)
    frame = Frame(0, calibration=Calibration(CALIBRATION.K, T, 400, 200))
    tracks = tracks_seen(SIZE, [(190, 90, 210, 110)], [20])
    assert draw_panel(frame, tracks, 720)[from_above(21, 0)].tolist() == list(track_colour(0))


def test_without_a_place_the_tracks_are_listed_in_words_and_colours():
    tracks = tracks_seen(SIZE, [(50, 60, 150, 140), (100, 40, 250, 120)], [10, 20])
    panel = draw_panel(Frame(0), tracks, 720, ("car",))
    for track in range(2):
        assert (panel == track_colour(track)).all(axis=2).sum() >= 3 * 8
    bare = draw_panel(Frame(0), Tracks.empty(SIZE), 720, ("car",))
    assert (bare != bare[-1, -1]).any(), "it says why there is nothing"
    many = tracks_seen(SIZE, [(10, 10, 20, 20)] * 200, np.arange(1.0, 201.0))
    draw_panel(Frame(0), many, 720, ("car",))


def test_the_depth_scale_has_the_colours_of_the_returns():
    depth = np.zeros(SIZE, np.float32)
    depth[50:150, 100:300] = 10.0
    panel = draw_panel(Frame(0, depth=depth), Tracks.empty(SIZE), 720)[:, 480:]
    returns = panel[60, 120]
    rows, columns = np.nonzero((np.abs(panel.astype(int) - returns) < 8).all(2))
    on_bar = columns[rows == rows.max()]
    # Logarithmic from 3 to 60 m.
    assert abs(on_bar.mean() / 239 - np.log(10 / 3) / np.log(20)) < 0.03


@pytest.mark.parametrize("place", [(-4, -6), (-100, 0), (3, -100), (15, 9), (40, 0)])
def test_text_is_cut_by_all_borders_and_touches_nothing_beside_the_image(place):
    wide = np.zeros((60, 100, 3), np.uint8)
    put_text(wide, "40 m", 40 + place[0], 25 + place[1], 12, (255, 255, 255))
    # The image is a window of a larger one: what lies around it is where a stray write would land.
    around = np.zeros((60, 100, 3), np.uint8)
    image = around[25:35, 40:56]
    put_text(image, "40 m", *place, 12, (255, 255, 255))
    np.testing.assert_array_equal(image, wide[25:35, 40:56])
    image[:] = 0
    assert not around.any()


def test_a_panel_of_a_tiny_image_is_drawn_as_far_as_there_is_room():
    size = (4, 4)
    depth = np.ones(size, np.float32)
    frame = Frame(1, np.zeros((*size, 3), np.uint8), depth=depth)
    assert draw_panel(frame, Tracks.empty(size), 16).shape[1:] == (16, 3)


def test_returns_from_above_are_dots_at_their_place_higher_ones_over_lower_ones(rng):
    points = rng.uniform((-10, -15, -3, 0), (80, 15, 2, 1), (3000, 4)).astype(np.float32)
    points[0], points[1] = np.nan, (20, 0, np.nan, 0)
    turn, scale = np.array([[0.6, 0.8], [-0.8, 0.6]]), 4.0
    canvas = np.zeros((90, 288, 3), np.uint8)
    _returns(canvas, points, turn, scale)
    expected = np.zeros_like(canvas)
    light = np.clip((points[:, 2] + np.float32(2.2)) / np.float32(2.5), 0.2, 0.95)
    for k in [*np.flatnonzero(light < 0.4), *np.flatnonzero(light >= 0.4)]:
        ahead, left = turn @ points[k, :2]
        u, v = (ahead + 6) * scale, 45 - left * scale
        if -1 < u < 288 and -1 < v < 90:
            expected[int(v), int(u)] = light[k] * np.array([195.0, 210, 230])
    assert np.array_equal(canvas, expected)
    assert len(np.unique(canvas)) > 100
