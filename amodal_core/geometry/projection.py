"""LiDAR points to depth images with a z-buffer: a serial kernel for the CPU, scatter on a GPU.

Both give the same image bit for bit: they compute in float64, in the same order of operations,
round to the nearest pixel centre and store float32 depths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numba import njit

from amodal_core.frame import Array, Calibration

if TYPE_CHECKING:
    import torch

NEAR = 0.1
"""Metres; points that are not farther than this along the optical axis are dropped."""

_SPARE = 4096


@dataclass(frozen=True, eq=False)
class Projection:
    """Where each point of a scan falls, and which point each pixel shows.

    NumPy arrays, or tensors on the points' device where the points are a tensor.

    Attributes:
        depth: (H, W) float32, metres along the optical axis of the nearest point, 0 where none.
        index: (H, W) int32, index of that point, -1 where none; of equally near points the first.
        pixels: (N, 2) int32, column and row of each point, (-1, -1) for points that are dropped or
            outside the image.
        z: (N,) float32, depth of each point in metres, 0 where `pixels` is -1.
    """

    depth: Any
    index: Any
    pixels: Any
    z: Any


@overload
def depth_image(points: np.ndarray, calibration: Calibration, near: float = NEAR) -> np.ndarray: ...


@overload
def depth_image(
    points: torch.Tensor, calibration: Calibration, near: float = NEAR
) -> torch.Tensor: ...


def depth_image(points: Array, calibration: Calibration, near: float = NEAR) -> Array:
    """The depth image of a scan: in each pixel the nearest point that falls in it.

    A point falls in the pixel whose centre (integer coordinates) is nearest. Points with a NaN or
    infinity in any field are dropped whole; so are points with a depth of `near` or less.

    Args:
        points: (N, 3+) float32, metres in the LiDAR frame; more columns are further fields. A NumPy
            array, or a tensor on any device.
        calibration: camera and pose.
        near: metres.

    Returns:
        (H, W) float32, metres along the optical axis, 0 where no point falls; a tensor on the
        points' device where they are a tensor.
    """
    if not isinstance(points, np.ndarray):
        return _project_torch(points, calibration, near).depth
    depth = np.zeros((calibration.height, calibration.width), np.float32)
    _fill_depth(_as_points(points), *_matrices(calibration), near, depth)
    return depth


def project(points: Array, calibration: Calibration, near: float = NEAR) -> Projection:
    """Like `depth_image`, with the winning point of each pixel and the pixel of each point."""
    if not isinstance(points, np.ndarray):
        return _project_torch(points, calibration, near)
    pixels, z, inside = pixels_of(points, calibration, near)
    depth = np.zeros((calibration.height, calibration.width), np.float32)
    index = np.full(depth.shape, -1, np.int32)
    _fill_nearest(pixels, z, inside, depth, index)
    return Projection(depth, index, pixels, z)


def pixels_of(
    points: np.ndarray, calibration: Calibration, near: float = NEAR
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Like `project`, of where points fall alone: `pixels`, `z` and the points inside the image.

    Returns:
        (N, 2) int32 and (N,) float32 as in `Projection`; (M,) int64, rising, the points that fall
        into the image.
    """
    size = calibration.width, calibration.height
    return _pixels(_as_points(points), *_matrices(calibration), near, size)


@overload
def in_view(points: np.ndarray, calibration: Calibration) -> np.ndarray: ...


@overload
def in_view(points: torch.Tensor, calibration: Calibration) -> torch.Tensor: ...


def in_view(points: Array, calibration: Calibration) -> Array:
    """(N,) bool, the points of a scan (N, 3+) that the image shows, hidden ones included.

    As the public LiDAR networks' scans of KITTI are cut: from 0 to below the image's width and
    height in coordinates of pixel centres, half a pixel beside what falls into a pixel.
    """
    shift = np.zeros((3, 3))
    shift[:2, 2] = 0.5
    K = calibration.K / calibration.K[2, 2] - shift
    return project(points, replace(calibration, K=K)).pixels[:, 0] >= 0


def to_camera(points: np.ndarray, calibration: Calibration) -> np.ndarray:
    """(N, 3+) LiDAR points -> (N, 3) float64 in the camera's optical frame, metres."""
    T = calibration.camera_from_lidar
    return np.asarray(points[:, :3], np.float64) @ T[:3, :3].T + T[:3, 3]


def _as_points(points: np.ndarray) -> np.ndarray:
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"points must be (N, 3+), got {points.shape}")
    return np.ascontiguousarray(points, np.float32)


def _matrices(calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """(2, 4) numerators of column and row, (4,) the depth that both are divided by."""
    # K[2] is 0 0 1 up to scale, so that the homogeneous coordinate is the depth itself.
    K = calibration.K / calibration.K[2, 2]
    P = K @ calibration.camera_from_lidar[:3]
    return np.ascontiguousarray(P[:2]), np.ascontiguousarray(calibration.camera_from_lidar[2])


@njit(cache=True, inline="always")
def _pixel(
    points: np.ndarray, i: int, P: np.ndarray, row: np.ndarray, near: float, width: int, height: int
) -> tuple[int, int, float]:
    """Column, row and depth of point i; column -1 where it is dropped."""
    x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
    depth = row[0] * x + row[1] * y + row[2] * z + row[3]
    # Written so that a NaN depth is refused too.
    if not (depth > near and depth < np.inf):
        return -1, -1, np.float32(0.0)
    for k in range(3, points.shape[1]):
        if not np.isfinite(points[i, k]):
            return -1, -1, np.float32(0.0)
    u = P[0, 0] * x + P[0, 1] * y + P[0, 2] * z + P[0, 3]
    v = P[1, 0] * x + P[1, 1] * y + P[1, 2] * z + P[1, 3]
    # What is pixels beside the image, as most points are, is not divided.
    if u < -depth or u > width * depth or v < -depth or v > height * depth:
        return -1, -1, np.float32(0.0)
    u, v = np.floor(u / depth + 0.5), np.floor(v / depth + 0.5)
    if not (u >= 0 and u < width and v >= 0 and v < height):
        return -1, -1, np.float32(0.0)
    return int(u), int(v), np.float32(depth)


@njit(cache=True)
def _fill_depth(
    points: np.ndarray, P: np.ndarray, row: np.ndarray, near: float, image: np.ndarray
) -> None:
    height, width = image.shape
    for i in range(len(points)):
        u, v, d = _pixel(points, i, P, row, near, width, height)
        if u >= 0 and (image[v, u] == 0 or d < image[v, u]):
            image[v, u] = d


@njit(cache=True)
def _pixels(
    points: np.ndarray, P: np.ndarray, row: np.ndarray, near: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(points)
    pixels, z = np.full((n, 2), -1, np.int32), np.zeros(n, np.float32)
    inside, count = np.empty(n, np.int64), 0
    for i in range(n):
        u, v, d = _pixel(points, i, P, row, near, size[0], size[1])
        if u >= 0:
            pixels[i, 0], pixels[i, 1], z[i] = u, v, d
            inside[count] = i
            count += 1
    return pixels, z, inside[:count].copy()


@njit(cache=True)
def _fill_nearest(
    pixels: np.ndarray, z: np.ndarray, inside: np.ndarray, image: np.ndarray, index: np.ndarray
) -> None:
    for i in inside:
        u, v = pixels[i, 0], pixels[i, 1]
        if index[v, u] < 0 or z[i] < image[v, u]:
            image[v, u], index[v, u] = z[i], i


def _project_torch(points: torch.Tensor, calibration: Calibration, near: float) -> Projection:
    import torch

    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"points must be (N, 3+), got {tuple(points.shape)}")
    height, width, n, device = calibration.height, calibration.width, len(points), points.device
    P, row = _matrices(calibration)
    points = points.float()
    x, y, z = (points[:, k].double() for k in range(3))
    # Scalars from the host and one operation a step: no fused multiply-add, which rounds otherwise.
    (a, b, c, d), (e, f, g, h), (i, j, k, m) = row.tolist(), P[0].tolist(), P[1].tolist()
    depth = x * a + y * b + z * c + d
    u = torch.floor((x * e + y * f + z * g + h) / depth + 0.5)
    v = torch.floor((x * i + y * j + z * k + m) / depth + 0.5)
    inside = (depth > near) & (depth < torch.inf) & torch.isfinite(points).all(dim=1)
    inside &= (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v = (torch.where(inside, t, 0.0).long() for t in (u, v))
    shown = torch.where(inside, depth, 0.0).float()
    # One integer orders by depth, then by index: positive floats sort as their bit patterns do. The
    # points outside go to cells beyond the image, so that no step needs to wait for the host; to
    # many cells, since a GPU's atomic operations on one would wait for each other.
    order = torch.arange(n, device=device)
    key = (shown.view(torch.int32).long() << 32) | order
    cell = torch.where(inside, v * width + u, height * width + order % _SPARE)
    none = torch.iinfo(torch.int64).max
    best = torch.full((height * width + _SPARE,), none, dtype=torch.int64, device=device)
    best = best.scatter_reduce(0, cell, key, "amin")[:-_SPARE]
    hit = best != none
    image = torch.where(hit, best >> 32, 0).int().view(torch.float32)
    index = torch.where(hit, best & 0xFFFFFFFF, -1).int()
    pixels = torch.where(inside[:, None], torch.stack([u, v], dim=1), -1).int()
    return Projection(image.view(height, width), index.view(height, width), pixels, shown)
