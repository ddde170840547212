from __future__ import annotations

import numpy as np
import pytest
import torch
from geometry_scenes import camera
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amodal_core.frame import Calibration
from amodal_core.geometry.calibration import read_kitti, read_kitti_raw
from amodal_core.geometry.projection import depth_image, in_view, project

SMALL = camera(width=9, height=5, focal=4.0)


def reference(points: np.ndarray, c: Calibration, near: float = 0.1):
    """One point after the other, as a textbook has it."""
    depth = np.zeros((c.height, c.width), np.float32)
    index = np.full((c.height, c.width), -1)
    pixels = np.full((len(points), 2), -1)
    P = np.vstack([(c.K @ c.camera_from_lidar[:3])[:2], c.camera_from_lidar[2]])
    for i, p in enumerate(points):
        if not np.isfinite(p).all():
            continue
        x, y, z = (float(v) for v in p[:3])
        u, v, w = (r[0] * x + r[1] * y + r[2] * z + r[3] for r in P)
        if not near < w < np.inf:
            continue
        u, v = np.floor(u / w + 0.5), np.floor(v / w + 0.5)
        if 0 <= u < c.width and 0 <= v < c.height:
            u, v = int(u), int(v)
            pixels[i] = u, v
            if depth[v, u] == 0 or np.float32(w) < depth[v, u]:
                depth[v, u], index[v, u] = w, i
    return depth, index, pixels


def test_a_point_falls_in_the_pixel_whose_centre_is_nearest():
    # Four pixels focal length, centre at (4, 2): x forward 2 m, y left 0.24 m -> 0.48 pixels left.
    for left, column in ((0.24, 4), (0.26, 3), (-0.24, 4), (-0.26, 5)):
        depth = depth_image(np.array([[2.0, left, 0.0]], np.float32), SMALL)
        assert np.argwhere(depth).tolist() == [[2, column]]
        assert depth[2, column] == 2.0


def test_the_nearer_of_two_points_in_a_pixel_is_kept_whatever_their_order():
    points = np.array([[5, 0, 0], [3, 0, 0], [4, 0, 0]], np.float32)
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        result = project(points[order], SMALL)
        assert result.depth[2, 4] == 3.0
        assert order[result.index[2, 4]] == 1


def test_of_equally_near_points_the_first_is_kept():
    points = np.array([[3, 0, 0], [3, 0.01, 0]], np.float32)
    assert project(points, SMALL).index[2, 4] == 0
    assert project(torch.from_numpy(points), SMALL).index[2, 4] == 0


def test_points_behind_beside_or_too_near_leave_no_trace():
    points = np.array(
        [[-3, 0, 0], [0, 0, 0], [0.0999, 0, 0], [3, 30, 0], [3, 0, 30], [1e-30, 1, 1]], np.float32
    )
    result = project(points, SMALL)
    assert not result.depth.any()
    assert (result.index == -1).all()
    assert (result.pixels == -1).all()
    assert not result.z.any()


@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_value_in_any_field_drops_the_whole_point_and_no_other(field, bad):
    points = np.array([[3, 0, 0, 0.5], [3, 0.8, 0, 0.5], [3, -0.8, 0, 0.5]], np.float32)
    points[0, field] = bad
    for given_points in (points, torch.from_numpy(points)):
        result = project(given_points, SMALL)
        assert (np.asarray(result.pixels[0]) == -1).all()
        assert int((result.depth > 0).sum()) == 2


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_image_shows_what_is_from_its_first_pixel_centre_to_below_its_size(kind):
    """As the public LiDAR networks' scans are cut, in each axis; hidden points count, too."""
    K = SMALL.K
    u = np.array([-0.1, 0.1, 4, 8.4, 8.9, 9.1, 4, 4, 4, 4, 4])
    v = np.array([2, 2, 2, 2, 2, 2, -0.1, 0.1, 4.4, 4.9, 5.1])
    shown = [False, True, True, True, True, False, False, True, True, True, False]
    camera = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(11)], 1) * 7.0
    to_lidar = np.linalg.inv(SMALL.camera_from_lidar)
    points = (camera @ to_lidar[:3, :3].T + to_lidar[:3, 3]).astype(np.float32)
    behind = 2 * points[2:3]
    assert in_view(kind(np.concatenate([points, behind])), SMALL).tolist() == [*shown, True]


def test_an_empty_scan_gives_an_empty_image():
    for points in (np.zeros((0, 4), np.float32), torch.zeros(0, 4)):
        result = project(points, SMALL)
        assert result.depth.shape == (5, 9)
        assert not result.depth.any()
        assert len(result.pixels) == len(result.z) == 0


def test_points_need_three_coordinates():
    with pytest.raises(ValueError, match=r"\(N, 3\+\)"):
        depth_image(np.zeros((5, 2), np.float32), SMALL)


def test_integer_and_strided_points_are_accepted():
    points = np.array([[3, 0, 0, 9], [5, 1, 0, 9]])
    wide = np.zeros((2, 8), np.float32)
    wide[:, ::2] = points
    assert (depth_image(points, SMALL) == depth_image(wide[:, ::2], SMALL)).all()


coordinates = st.one_of(
    st.floats(-20, 20, width=32),
    st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 0.1, 3.4e38, -3.4e38, 1e-40]),
)


@settings(max_examples=200, deadline=None)
@given(
    points=arrays(np.float32, st.tuples(st.integers(0, 40), st.just(4)), elements=coordinates),
    angle=st.floats(-0.5, 0.5),
    shift=st.floats(-1, 1),
)
def test_every_implementation_agrees_with_the_textbook_bit_for_bit(points, angle, shift):
    T = SMALL.camera_from_lidar.copy()
    c, s = np.cos(angle), np.sin(angle)
    T[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ T[:3, :3]
    T[:3, 3] = shift, -shift, 0.3
    calibration = Calibration(SMALL.K, T, SMALL.width, SMALL.height)
    with np.errstate(all="ignore"):
        depth, index, pixels = reference(points, calibration)
    ours = project(points, calibration)
    torchs = project(torch.from_numpy(points), calibration)
    for result in (ours, torchs):
        assert np.array_equal(np.asarray(result.depth), depth)
        assert np.array_equal(np.asarray(result.index), index)
        assert np.array_equal(np.asarray(result.pixels), pixels)
    assert np.array_equal(np.asarray(torchs.z), ours.z)
    assert np.array_equal(depth_image(points, calibration), depth)


def test_a_real_scan_gives_the_same_image_from_both_implementations(kitti_raw_drive):
    scan = np.fromfile(
        sorted((kitti_raw_drive / "velodyne_points" / "data").glob("*.bin"))[0], np.float32
    ).reshape(-1, 4)
    calibration = read_kitti_raw(kitti_raw_drive).calibration(1242, 375)
    ours, torchs = project(scan, calibration), project(torch.from_numpy(scan), calibration)
    assert int((ours.depth > 0).sum()) > 15_000
    for part in ("depth", "index", "pixels", "z"):
        assert np.array_equal(getattr(ours, part), getattr(torchs, part).numpy()), part


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_gives_the_same_image(rng):
    points = (rng.normal(size=(100_000, 4)) * (15, 15, 2, 1) + (15, 0, 0, 0)).astype(np.float32)
    ours = project(points, camera())
    gpus = project(torch.from_numpy(points).cuda(), camera())
    for part in ("depth", "index", "pixels", "z"):
        assert np.array_equal(getattr(ours, part), getattr(gpus, part).cpu().numpy()), part


def test_returns_inside_a_labelled_box_fall_inside_its_2d_box(kitti_object_root):
    from amodal_core.geometry.boxes3d import from_kitti_labels, points_in_boxes

    checked = 0
    for label in sorted((kitti_object_root / "training" / "label_2").glob("*.txt")):
        scan = np.fromfile(
            kitti_object_root / "training" / "velodyne" / f"{label.stem}.bin", np.float32
        ).reshape(-1, 4)
        kitti = read_kitti(kitti_object_root / "training" / "calib" / label.name)
        rows = [r.split() for r in label.read_text().splitlines() if not r.startswith("DontCare")]
        values = np.array([r[4:15] for r in rows], float)
        boxes = from_kitti_labels(
            values[:, 4:7],
            values[:, 7:10],
            values[:, 10],
            kitti.rect_from_cam @ kitti.cam_from_lidar,
        )
        result = project(scan, kitti.calibration(1242, 375))
        for value, inside in zip(values, points_in_boxes(scan, boxes), strict=True):
            pixels = result.pixels[inside]
            pixels = pixels[pixels[:, 0] >= 0]
            if len(pixels) < 5:
                continue
            checked += 1
            low, high = value[:2] - 2, value[2:4] + 2
            assert np.mean(((pixels >= low) & (pixels <= high)).all(axis=1)) > 0.97
    assert checked >= 4
