"""Cameras of CameraInfo and of files; rectification against a drawn grid and against OpenCV."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from amodal_core.errors import InputError
from amodal_core.geometry.calibration_files import read_calibration
from amodal_core.geometry.camera import read_camera

POSE = np.eye(4)
POSE[:3, 3] = 1, 2, 3


def info(**changes):
    values = {
        "width": 640,
        "height": 480,
        "k": [500.0, 0, 320, 0, 500, 240, 0, 0, 1],
        "p": [510.0, 0, 321, 40, 0, 511, 241, 0, 0, 0, 1, 0],
        "d": [0.1, -0.2, 0, 0, 0],
        "r": np.eye(3).ravel(),
        "distortion_model": "plumb_bob",
    }
    return SimpleNamespace(**{**values, **changes})


def test_camera_info_of_a_rectified_image_uses_p_and_not_its_offset():
    camera = read_camera(info())
    c = camera.calibration(POSE)
    assert c.K.tolist() == [[510, 0, 321], [0, 511, 241], [0, 0, 1]]
    assert np.array_equal(c.camera_from_lidar, POSE)
    assert (c.width, c.height) == (640, 480)
    assert camera.distorted
    assert read_camera(info()) is camera  # maps are made once


def test_camera_info_without_p_keeps_k_for_the_rectified_image():
    for d in ([0.0] * 5, [], [0.1, 0, 0, 0, 0]):
        camera = read_camera(info(p=[0.0] * 12, d=d, r=[0.0] * 9))
        assert camera.P[0, 0] == 500
        assert camera.distorted == (0.1 in d)
        assert np.array_equal(camera.R, np.eye(3))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"p": [0.0] * 12, "k": [0.0] * 9}, "not calibrated"),
        ({"width": 0}, "0x480"),
        ({"p": [510.0, 0, np.nan, 0, 0, 511, 241, 0, 0, 0, 1, 0]}, "finite"),
        (
            {"p": [510.0, 0, 321, 0, 0, 511, 241, 0, 0, 0, 0, 0]},
            "last row of P is 0 0 0",
        ),
        ({"k": [500.0, 0, 320, 0, 500, 240, 0.1, 0, 1]}, "last row of K is 0.1 0 1, not 0 0 1"),
        ({"p": [1e-40, 0, 321, 0, 0, 511, 241, 0, 0, 0, 1, 0]}, "focal lengths of 1e-40 and 511"),
        ({"p": [510.0, 0, 321, 0, 0, 1e300, 241, 0, 0, 0, 1, 0]}, "no camera's"),
        ({"p": [510.0, 0, 321, 0, 0, -511, 241, 0, 0, 0, 1, 0]}, "510 and -511 pixels in P"),
    ],
)
def test_an_unusable_camera_info_is_refused_with_topic_and_cure(changes, words):
    with pytest.raises(InputError, match=words) as caught:
        read_camera(info(**changes), "/camera/camera_info").calibration(POSE)
    assert caught.value.where == "/camera/camera_info"
    assert caught.value.cure


def test_camera_info_with_upper_case_fields_is_understood():
    ros1 = SimpleNamespace(width=4, height=3, K=info().k, P=info().p, D=[], R=[])
    assert read_camera(ros1).P[0, 0] == 510


def test_a_region_of_interest_shifts_and_binning_scales():
    """As image_geometry: the offset in pixels of the full image, then the scale."""
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=300)
    camera = read_camera(info(roi=roi, binning_x=2, binning_y=4))
    assert (camera.width, camera.height) == (200, 75)
    assert camera.K.tolist() == [[250, 0, 110], [0, 125, 50], [0, 0, 1]]
    assert camera.P.tolist() == [[255, 0, 110.5], [0, 127.75, 50.25], [0, 0, 1]]
    whole = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    assert read_camera(info(roi=whole, binning_x=0, binning_y=1)).width == 640


_LENSES = {
    "plumb_bob": [-0.32, 0.11, 0.001, -0.002, -0.015],
    "rational_polynomial": [0.4, -0.2, 0.001, 0.0005, 0.02, 0.7, -0.15, 0.03],
    "equidistant": [0.05, -0.01, 0.004, -0.001],
}
_TURN = cv2.Rodrigues(np.array([0.02, -0.03, 0.01]))[0]


def _distorted(points, model, d):
    """Normalised image points through a lens, from the models' definitions."""
    x, y = points[..., 0], points[..., 1]
    r = np.hypot(x, y)
    if model == "equidistant":
        t = np.arctan(r)
        k1, k2, k3, k4 = d
        scale = t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8) / np.maximum(r, 1e-12)
        return np.stack([x * scale, y * scale], -1)
    k1, k2, p1, p2, k3, k4, k5, k6 = [*d, 0, 0, 0][:8]
    radial = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
    u = x * radial + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
    v = y * radial + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y
    return np.stack([u, v], -1)


@pytest.mark.parametrize("model", _LENSES)
def test_a_pattern_seen_through_a_lens_stands_where_p_projects_it(model):
    """The raw image is a smooth pattern; each rectified pixel has the pattern's value at the place
    that its ray has in the raw image by the lens' own formula."""
    P = np.array([[280.0, 0, 322, -9], [0, 280, 240, 0], [0, 0, 1, 0]])

    def pattern(u, v):
        waves = [np.sin(u / 9), np.sin(v / 11), np.cos((u + v) / 13)]
        return 128 + 100 * np.stack(waves, -1)

    v, u = np.mgrid[:480, :640]
    raw = np.round(pattern(u, v)).astype(np.uint8)
    message = info(k=[300, 0, 318, 0, 302, 243, 0, 0, 1], r=_TURN.ravel(), p=P.ravel())
    message.d, message.distortion_model = _LENSES[model], model
    # The rectified pixels' rays, turned back into the raw camera's frame.
    rays = np.stack([(u - 322) / 280, (v - 240) / 280, np.ones(u.shape)], -1) @ _TURN
    place = _distorted(rays[..., :2] / rays[..., 2:], model, _LENSES[model])
    x, y = place[..., 0] * 300 + 318, place[..., 1] * 302 + 243
    inside = (x > 1) & (x < 638) & (y > 1) & (y < 478)
    result = read_camera(message).rectify(raw)
    assert np.abs(result - pattern(x, y))[inside].max() < 3
    assert inside.mean() > 0.5
    assert np.hypot(x - u, y - v)[inside].max() > 10  # it is far from the raw image


def test_rectification_equals_opencvs_exact_maps():
    rng = np.random.default_rng(0)
    raw = cv2.resize(rng.integers(0, 256, (48, 64, 3), np.uint8), (640, 480))
    for model, d in _LENSES.items():
        message = info(d=d, r=_TURN.ravel(), distortion_model=model)
        K, P = np.reshape(message.k, (3, 3)), np.reshape(message.p, (3, 4))[:, :3]
        make = cv2.initUndistortRectifyMap
        if model == "equidistant":
            make = cv2.fisheye.initUndistortRectifyMap
        maps = make(K, np.array(d), _TURN, P, (640, 480), cv2.CV_32FC1)
        expected = cv2.remap(raw, *maps, cv2.INTER_LINEAR).astype(int)
        difference = np.abs(read_camera(message).rectify(raw).astype(int) - expected)
        assert difference.max() <= 2


def test_without_a_distortion_the_focus_and_the_turn_are_rectified_alone():
    raw = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    P = [275, 0, 322, 0, 0, 275, 240, 0, 0, 0, 1, 0]
    message = info(d=[], distortion_model="", r=_TURN.ravel(), p=P)
    camera = read_camera(message)
    assert (camera.distorted, camera.rectified) == (False, False)
    # A homography: a ray of the rectified camera, turned back into the raw one.
    raw_from_rectified = camera.K @ _TURN.T @ np.linalg.inv(camera.P)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpPerspective(
        cv2.blur(raw, (9, 9)), raw_from_rectified, (640, 480), flags=flags
    )
    result = camera.rectify(cv2.blur(raw, (9, 9)))
    assert np.abs(result.astype(int) - expected).mean() < 1


@pytest.mark.parametrize(("model", "d"), [("omni", [0.1] * 4), ("plumb_bob", [0.1] * 3)])
def test_an_unknown_lens_is_refused_where_it_is_to_be_rectified(model, d):
    camera = read_camera(info(distortion_model=model, d=d), "/cam/camera_info")
    with pytest.raises(InputError, match=f"distortion '{model}' with {len(d)} coefficients"):
        camera.rectify(np.zeros((480, 640, 3), np.uint8))


def _matrix(rows, columns, data):
    return {"rows": rows, "cols": columns, "data": np.asarray(data, float).ravel().tolist()}


def test_the_yaml_of_camera_calibration_is_the_camera_info_that_it_becomes(tmp_path):
    i = info()
    file = tmp_path / "ost.yaml"
    values = {
        "image_width": 640,
        "image_height": 480,
        "camera_name": "narrow",
        "camera_matrix": _matrix(3, 3, i.k),
        "distortion_model": "plumb_bob",
        "distortion_coefficients": _matrix(1, 5, i.d),
        "rectification_matrix": _matrix(3, 3, i.r),
        "projection_matrix": _matrix(3, 4, i.p),
    }
    file.write_text(yaml.safe_dump(values))
    made, expected = read_calibration(file), read_camera(i)
    assert made.camera_from_lidar is None
    for name in ("K", "D", "R", "P", "width", "height", "model"):
        np.testing.assert_array_equal(getattr(made.camera, name), getattr(expected, name))


_CHAIN = {
    "cam0": {
        "camera_model": "pinhole",
        "intrinsics": [458.0, 457.0, 367.0, 248.0],
        "distortion_model": "radtan",
        "distortion_coeffs": [-0.28, 0.07, 0.0002, 1.8e-05],
        "resolution": [752, 480],
        "rostopic": "/cam0/image_raw",
    },
    "cam1": {
        "camera_model": "pinhole",
        "intrinsics": [300.0, 301.0, 370.0, 250.0],
        "distortion_model": "equidistant",
        "distortion_coeffs": [0.1, 0.0, 0.0, 0.0],
        "resolution": [640, 480],
        "rostopic": "/cam1/image_raw",
        "T_cn_cnm1": np.eye(4).tolist(),
        "T_cam_lidar": POSE.tolist(),
    },
}


def test_the_camera_of_a_camchain_is_the_one_of_the_topic(tmp_path):
    file = tmp_path / "camchain.yaml"
    file.write_text(yaml.safe_dump(_CHAIN))
    first = read_calibration(file, "/cam0/image_raw")
    assert first.camera.K.tolist() == [[458, 0, 367], [0, 457, 248], [0, 0, 1]]
    assert (first.camera.model, first.camera.width, first.camera_from_lidar) == (
        "plumb_bob",
        752,
        None,
    )
    second = read_calibration(file, "/cam1/image_raw/compressed")
    assert (second.camera.model, second.camera.D.tolist()) == ("equidistant", [0.1, 0, 0, 0])
    assert second.camera_from_lidar is not None
    np.testing.assert_array_equal(second.camera_from_lidar, POSE)
    with pytest.raises(InputError, match=r"2 cameras, none of '/other'.*has /cam0/image_raw, /cam"):
        read_calibration(file, "/other")
    file.write_text(yaml.safe_dump({"cam0": _CHAIN["cam0"]}))
    assert read_calibration(file, "/other").camera.width == 752


def test_files_of_kitti_place_the_lidar_too(tmp_path):
    file = tmp_path / "000000.txt"
    P = "700 0 600 45 0 700 170 0 0 0 1 0"
    eye, lidar = "1 0 0 0 1 0 0 0 1", "0 -1 0 0 0 0 -1 0 1 0 0 -0.3"
    file.write_text(f"P2: {P}\nR0_rect: {eye}\nTr_velo_to_cam: {lidar}\n")
    made = read_calibration(file)
    assert made.camera.P.tolist() == [[700, 0, 600], [0, 700, 170], [0, 0, 1]]
    assert (made.camera.width, made.camera.distorted) == (0, False)
    assert made.camera.of_size(1242, 375).width == 1242
    assert made.camera_from_lidar is not None
    np.testing.assert_allclose(made.camera_from_lidar[:3, 3], [45 / 700, 0, -0.3])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "cannot read the calibration"),
        ("[]", "neither camera_matrix nor cam0"),
        ("camera_matrix: {data: [1, 2]}", "incomplete: no 'image_width'"),
        ("camera_matrix: {data: [a, b]}", "incomplete: could not convert"),
        ("cam0: {camera_model: omni}", "a camera that is omni with none"),
        ("cam0: 5", "incomplete"),
    ],
)
def test_a_file_that_is_no_calibration_is_one_line_with_a_cure(tmp_path, text, words):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_calibration(file)
    assert caught.value.where == str(file)
    with pytest.raises(InputError, match="No such file"):
        read_calibration(tmp_path / "none.yaml")
