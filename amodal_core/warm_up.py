"""A made-up frame that takes a pipeline through its usual work before the first real one comes.

Kernels are compiled and memory is allocated by the first frame; on a fresh machine that takes
seconds, for which a vehicle would be blind.
"""

from __future__ import annotations

import numpy as np

from amodal_core.frame import Calibration, Frame

_GROUND = -1.73  # metres, of a LiDAR on a car's roof
# Distance of a surface that faces the LiDAR, and its reach to the left, right and up, metres.
_SURFACES = ((9.0, -1.0, 0.9, -0.2), (15.0, 2.0, 3.9, -0.1), (24.0, -5.0, -4.4, 0.0))


def warm_up_frame(height: int = 375, width: int = 1242) -> Frame:
    """A road with three objects, as a 64-beam LiDAR sees it; the image is grey.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
    """
    azimuth = np.radians(np.arange(-45, 45, 0.18))
    elevation = np.radians(np.linspace(-24.8, 2.0, 64))
    up, around = np.meshgrid(elevation, azimuth, indexing="ij")
    rays = np.stack(
        [np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], axis=-1
    ).reshape(-1, 3)
    with np.errstate(divide="ignore"):
        ranges = np.where(rays[:, 2] < 0, _GROUND / rays[:, 2], np.inf)
    for x, right, left, top in _SURFACES:
        at = x / rays[:, 0]
        y, z = at * rays[:, 1], at * rays[:, 2]
        hit = (y > right) & (y < left) & (z > _GROUND) & (z < top)
        ranges = np.where(hit, np.minimum(ranges, at), ranges)
    seen = ranges < 80
    points = np.zeros((int(seen.sum()), 4), np.float32)
    points[:, :3] = rays[seen] * ranges[seen, None]
    focal = 0.58 * width
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    camera_from_lidar = np.eye(4)
    camera_from_lidar[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    return Frame(
        stamp=1,
        image=np.full((height, width, 3), 128, np.uint8),
        points=points,
        calibration=Calibration(K, camera_from_lidar, width, height),
        points_stamp=1,
    )
