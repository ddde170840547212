"""The cameras to choose from, and where the LiDAR sits."""

from __future__ import annotations

import numpy as np

from amodal_core.errors import InputError
from amodal_core.synthetic.scene import Rig

# KITTI, 2011-09-26: P_rect_02 and R_rect_00 * Tr_velo_cam rounded, camera 2 at 1.65 m
KITTI_SIZE, KITTI_K = (1242, 375), (721.5377, 721.5377, 609.5593, 172.854)
ASD_SIZE, ASD_K = (1920, 1080), (960.0, 960.0, 959.5, 539.5)  # 90 degrees across
_AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
LIDAR_HEIGHT = 1.73


def make_rig(
    camera: str = "kitti", size: tuple[int, int] | None = None, focal: float | None = None
) -> Rig:
    """A camera by name, scaled to a size.

    Args:
        camera: "kitti" (1242x375, f 721.5) or "asd" (1920x1080, 90 degrees).
        size: width, height in pixels; the field of view across is kept, other shapes are cropped or
            extended above and below.
        focal: focal length in pixels of the sized image, instead of the camera's own.

    Raises:
        InputError: an unknown camera or an impossible size.
    """
    cameras = {"kitti": (KITTI_SIZE, KITTI_K), "asd": (ASD_SIZE, ASD_K)}
    if camera not in cameras:
        raise InputError(f"no camera '{camera}'", "--camera", f"choose {' or '.join(cameras)}")
    (own_width, own_height), (fx, fy, cx, cy) = cameras[camera]
    width, height = size or (own_width, own_height)
    if not (32 <= width <= 8192 and 32 <= height <= 8192):
        raise InputError(f"an image of {width}x{height}", "--size", "give 32 to 8192 pixels a side")
    scale = width / own_width
    K = np.array([[fx * scale, 0, (cx + 0.5) * scale - 0.5], [0, fy * scale, 0], [0, 0, 1.0]])
    K[1, 2] = height / 2 - 0.5 + (cy - (own_height - 1) / 2) * scale
    if focal is not None:
        K[0, 0] = K[1, 1] = focal
    camera_from_lidar = np.eye(4)
    camera_from_lidar[:3, :3] = _AXES
    camera_from_lidar[:3, 3] = (0.06, -0.08, -0.27) if camera == "kitti" else (0.0, -0.2, -0.3)
    return Rig(K, width, height, camera_from_lidar, LIDAR_HEIGHT)
