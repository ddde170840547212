"""Fixtures that several test files share, real KITTI data first of all."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import settings

from amodal_core.datasets.kitti_to_bag import convert_raw
from amodal_ros.domains import in_use, own_domain

ROOT = Path(__file__).resolve().parents[1]

# Tests run beside each other on few cores; one thread each is faster than many that wait.
torch.set_num_threads(1)

# The first example of a property test may compile kernels for seconds. The examples are the same in
# every run: what is red was red before; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("amodal", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "amodal"))


def _real_data(relative: str) -> Path:
    base = Path(os.environ.get("AMODAL_TEST_DATA") or ROOT.parent / "shared" / "data")
    place = base / relative
    if not place.exists():
        pytest.skip(
            f"no real KITTI data at {place}; "
            "set AMODAL_TEST_DATA to a folder that holds kitti_raw/ and kitti_object/"
        )
    return place


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def kitti_raw_drive() -> Path:
    """A real KITTI raw drive (36 frames): `<date>/<drive>_sync`; skips where it is absent."""
    return _real_data("kitti_raw/2011_09_26/2011_09_26_drive_0000_sync")


@pytest.fixture(scope="session")
def kitti_object_root() -> Path:
    """The root of real KITTI object data (holds `training/`); skips where it is absent."""
    return _real_data("kitti_object")


def end_strays(test: str, domain: int) -> None:
    """Kill what a test left in its domain: a launch that is killed leaves its nodes behind."""
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            variables = file.read_bytes().split(b"\0")
            own = f"PYTEST_CURRENT_TEST={test} ".encode()
            if f"ROS_DOMAIN_ID={domain}".encode() in variables and any(
                variable.startswith(own) for variable in variables
            ):
                os.kill(int(file.parent.name), signal.SIGKILL)


@pytest.fixture
def domain(request: pytest.FixtureRequest) -> Iterator[int]:
    """A DDS domain for this test and the processes that it starts; all must leave it with it."""
    with own_domain() as number:
        try:
            yield number
            end = time.monotonic() + 60
            while in_use(number):
                assert time.monotonic() < end, f"someone stays in DDS domain {number}"
                # Under a real rclpy a participant stays until its context is collected, which a
                # thread that ends late may still hold.
                gc.collect()
                time.sleep(0.01)
        finally:
            end_strays(request.node.nodeid, number)


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20110926)


MINI_SIZE = (48, 96)  # height, width in pixels
MINI_FOCAL = 60.0
MINI_STAMPS = tuple(f"2011-09-26 13:02:25.{100 * k:03d}123456" for k in range(5))


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{v:.9e}" for v in np.asarray(values, float).ravel())


@pytest.fixture
def mini_kitti_raw(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A hand-made KITTI raw drive of five images; scan 3 was dropped (blank line, no file).

    The LiDAR looks along its x axis, the camera stands 0.5 m to its right and 0.25 m ahead; each
    scan holds a wall 10 m ahead of the LiDAR. GPS/IMU packets drive north at 10 m/s.
    """
    date = tmp_path / "2011_09_26"
    drive = date / "2011_09_26_drive_0042_sync"
    height, width = MINI_SIZE
    K = np.array([[MINI_FOCAL, 0, width / 2], [0, MINI_FOCAL, height / 2], [0, 0, 1]])
    # Like KITTI's camera 2: the fourth column holds a camera 0.06 m beside camera 0.
    P = np.column_stack([K, K @ (0.06, 0.0, 0.0)])
    images, lidar, oxts = drive / "image_02", drive / "velodyne_points", drive / "oxts"
    for folder in (images, lidar, oxts):
        (folder / "data").mkdir(parents=True)
    (date / "calib_cam_to_cam.txt").write_text(
        f"S_rect_02: {width:.6e} {height:.6e}\nR_rect_00: {_numbers(np.eye(3))}\n"
        f"P_rect_02: {_numbers(P)}\n"
    )
    R = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    (date / "calib_velo_to_cam.txt").write_text(
        f"R: {_numbers(R)}\nT: {_numbers(np.array([-0.56, 0.0, -0.25]))}\n"
    )
    (date / "calib_imu_to_velo.txt").write_text(
        f"R: {_numbers(np.eye(3))}\nT: {_numbers(np.array([-0.81, 0.32, -0.80]))}\n"
    )
    y, z = np.meshgrid(np.linspace(-4, 4, 40), np.linspace(-1.5, 1.5, 16))
    for k in range(5):
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        cv2.imwrite(str(images / "data" / f"{k:010d}.png"), pixels)
        if k != 3:
            wall = np.stack([np.full(y.size, 10.0), y.ravel(), z.ravel(), np.full(y.size, 0.5)])
            wall.T.astype("<f4").tofile(lidar / "data" / f"{k:010d}.bin")
        packet = np.zeros(30)
        packet[:3] = 49.0 + 10 * 0.1 * k / 111_319.49, 8.4, 112.0
        packet[5] = np.pi / 2
        packet[8] = 10.0
        (oxts / "data" / f"{k:010d}.txt").write_text(_numbers(packet))
    (images / "timestamps.txt").write_text("\n".join(MINI_STAMPS) + "\n")
    (oxts / "timestamps.txt").write_text("\n".join(MINI_STAMPS) + "\n")
    scans = [s.replace("123456", "456789") if k != 3 else "" for k, s in enumerate(MINI_STAMPS)]
    (lidar / "timestamps.txt").write_text("\n".join(scans) + "\n")
    return drive


@pytest.fixture
def mini_bag(mini_kitti_raw: Path, tmp_path: Path) -> Path:
    """`mini_kitti_raw` as an MCAP bag."""
    convert_raw(mini_kitti_raw, tmp_path / "mini")
    return tmp_path / "mini"
