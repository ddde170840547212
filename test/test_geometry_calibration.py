from __future__ import annotations

import numpy as np
import pytest

from amodal_core.errors import InputError
from amodal_core.geometry.calibration import read_kitti, read_kitti_raw

P2 = (
    "7.215377e+02 0 6.095593e+02 4.485728e+01 "
    "0 7.215377e+02 1.72854e+02 2.163791e-01 "
    "0 0 1 2.745884e-03"
)
R = "1 0 0 0 1 0 0 0 1"
TR = "0 -1 0 0.1 0 0 -1 0.2 1 0 0 0.3"
OBJECT = f"P0: {P2}\nP2: {P2}\nR0_rect: {R}\nTr_velo_to_cam: {TR}\nTr_imu_to_velo: {TR}\n\n"
TRACKING = f"P0: {P2}\nP2: {P2}\nR_rect {R}\nTr_velo_cam {TR}\nTr_imu_velo {TR}\n"
POSE = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)


def written(tmp_path, text, name="calib.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", [OBJECT, TRACKING], ids=["object", "tracking"])
def test_points_project_as_with_the_whole_projection_matrix(tmp_path, text):
    c = read_kitti(written(tmp_path, text)).calibration(1242, 375)
    point = np.array([12.0, -3.0, -0.5, 1.0])
    full = np.array(P2.split(), float).reshape(3, 4)
    cam0 = np.vstack([np.array(TR.split(), float).reshape(3, 4), [0, 0, 0, 1]]) @ point
    expected = full @ cam0
    ours = c.K @ (c.camera_from_lidar @ point)[:3]
    assert np.allclose(ours, expected, rtol=1e-12)
    # The homogeneous coordinate is the depth in this camera's frame.
    assert np.isclose(ours[2], (c.camera_from_lidar @ point)[2])


def test_the_fourth_column_becomes_the_offset_of_camera_2(tmp_path):
    c = read_kitti(written(tmp_path, OBJECT))
    assert np.allclose(c.camera_from_rect[:3, 3], [0.0598507, -0.000357, 0.002746], atol=1e-5)
    assert np.array_equal(c.calibration(10, 10).K, c.P[:, :3])


def test_a_real_raw_date_agrees_with_the_real_object_file(kitti_raw_drive, kitti_object_root):
    raw = read_kitti_raw(kitti_raw_drive)
    obj = read_kitti(kitti_object_root / "training" / "calib" / "000001.txt")
    assert raw.size == (375, 1242)
    assert np.allclose(raw.P, obj.P, atol=1e-4)
    assert np.allclose(raw.camera_from_lidar, obj.camera_from_lidar, atol=1e-5)
    assert np.allclose(read_kitti_raw(kitti_raw_drive.parent).P, raw.P)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (OBJECT.replace("P2:", "P9:"), "P2"),
        (OBJECT.replace("R0_rect", "Q"), "R0_rect or R_rect"),
        (OBJECT.replace("Tr_velo_to_cam", "Q"), "Tr_velo_to_cam or Tr_velo_cam"),
        (OBJECT.replace(R, "1 0 0"), "R0_rect"),
        (OBJECT.replace(R, R.replace("1", "one", 1)), "R0_rect"),
        (OBJECT.replace(R, R.replace("1", "nan", 1)), "R0_rect"),
        ("", "P2"),
    ],
)
def test_a_broken_file_is_refused_with_file_key_and_cure(tmp_path, text, names):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_kitti(path)
    assert names in str(caught.value)
    assert caught.value.where == str(path)
    assert caught.value.cure


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_kitti(tmp_path / "none.txt")
    (tmp_path / "image.txt").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="not a text file"):
        read_kitti(tmp_path / "image.txt")
    with pytest.raises(InputError, match=r"calib_cam_to_cam\.txt"):
        read_kitti_raw(tmp_path)
