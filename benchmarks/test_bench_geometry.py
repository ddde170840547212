"""Projection and the geometric model against their budgets, what is usually written beside ours.

Run: `pytest benchmarks/test_bench_geometry.py --benchmark-group-by=group`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from geometry_scenes import camera, scan, standing

from amodal_core.frame import Frame
from amodal_core.geometry.projection import depth_image, project
from amodal_core.models.geometric import Geometric

CAMERA = camera()


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    """120,000 points around the sensor, as many as a full 64-beam turn."""
    rng = np.random.default_rng(1)
    azimuth = rng.uniform(-np.pi, np.pi, 120_000)
    elevation = np.radians(rng.uniform(-24, 2, 120_000))
    reach = rng.uniform(3, 80, 120_000)
    xyz = np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ],
        axis=1,
    )
    return np.column_stack([xyz * reach[:, None], rng.random(120_000)]).astype(np.float32)


@pytest.fixture(scope="module")
def street() -> Frame:
    """Fifteen vehicles and people, scanned."""
    boxes = [standing(8 + 7 * (k % 5), (k // 5 - 1) * 3.4, 4.2, 1.8, 1.5) for k in range(15)]
    points, _ = scan(boxes, seed=1)
    return Frame(0, points=points, calibration=CAMERA)


def numpy_depth_image(points: np.ndarray) -> np.ndarray:
    """What is usually written: homogeneous product, mask, sort by depth, assign."""
    cam = (CAMERA.camera_from_lidar @ np.c_[points[:, :3], np.ones(len(points))].T).T[:, :3]
    cam = cam[np.isfinite(points).all(axis=1) & (cam[:, 2] > 0.1)]
    uv = (CAMERA.K @ cam.T).T
    uv = np.floor(uv[:, :2] / uv[:, 2:] + 0.5).astype(int)
    inside = (uv >= 0).all(axis=1) & (uv[:, 0] < CAMERA.width) & (uv[:, 1] < CAMERA.height)
    uv, z = uv[inside], cam[inside, 2]
    order = np.argsort(-z)
    image = np.zeros((CAMERA.height, CAMERA.width), np.float32)
    image[uv[order, 1], uv[order, 0]] = z[order]
    return image


@pytest.mark.benchmark(group="projection of 120k points, budget 3 ms")
def test_projection(benchmark, cloud):
    image = benchmark(depth_image, cloud, CAMERA)
    assert np.allclose(image, numpy_depth_image(cloud))


@pytest.mark.benchmark(group="projection of 120k points, budget 3 ms")
def test_projection_with_indices(benchmark, cloud):
    benchmark(project, cloud, CAMERA)


@pytest.mark.benchmark(group="projection of 120k points, budget 3 ms")
def test_projection_torch_cpu(benchmark, cloud):
    benchmark(depth_image, torch.from_numpy(cloud), CAMERA)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.benchmark(group="projection of 120k points, budget 3 ms")
def test_projection_torch_gpu(benchmark, cloud):
    points = torch.from_numpy(cloud).cuda()

    def run():
        depth_image(points, CAMERA)
        torch.cuda.synchronize()

    benchmark(run)


@pytest.mark.benchmark(group="geometric model, a frame, budget 50 ms")
def test_geometric_model_on_a_synthetic_street(benchmark, street):
    model = Geometric()
    found = benchmark(lambda: model.infer([street])[0])
    assert len(found) >= 5


@pytest.mark.benchmark(group="geometric model, a frame, budget 50 ms")
def test_geometric_model_on_a_real_frame(benchmark):
    from amodal_core.geometry.calibration import read_kitti_raw

    drive = Path(__file__).resolve().parents[2] / "shared/data/kitti_raw/2011_09_26"
    drive = drive / "2011_09_26_drive_0000_sync"
    if not drive.exists():
        pytest.skip(f"no real KITTI data at {drive}")
    image = cv2.imread(str(drive / "image_02" / "data" / "0000000010.png"))[..., ::-1]
    points = np.fromfile(drive / "velodyne_points" / "data" / "0000000010.bin", np.float32)
    calibration = read_kitti_raw(drive).calibration(1242, 375)
    frame = Frame(0, np.ascontiguousarray(image), points.reshape(-1, 4), calibration=calibration)
    model = Geometric()
    found = benchmark(lambda: model.infer([frame])[0])
    assert len(found) >= 5
