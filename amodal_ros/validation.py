"""Checks of messages that need more than one message, or the node, to be judged.

What a single message can be refused for is judged where it is read, in `amodal_core.bags`.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from amodal_core.errors import InputError
from amodal_core.frame import Calibration


def check_stamp(stamp: int, topic: str) -> int:
    """A stamp that was filled in.

    Raises:
        InputError: it is zero.
    """
    if stamp <= 0:
        raise InputError("the stamp is zero", topic, "fill in header.stamp in the driver")
    return stamp


def check_frame_id(frame_id: str, topic: str) -> str:
    """A frame name that was filled in, without the slash of old drivers.

    Raises:
        InputError: it is empty.
    """
    name = frame_id.lstrip("/")
    if not name:
        raise InputError("header.frame_id is empty", topic, "fill it in, in the driver")
    return name


def check_size(shape: tuple[int, ...], calibration: Calibration, topic: str) -> None:
    """An image of the size that the calibration is for.

    Raises:
        InputError: it has another size.
    """
    height, width = shape[:2]
    if (width, height) != (calibration.width, calibration.height):
        raise InputError(
            f"the image is {width}x{height}, camera_info says "
            f"{calibration.width}x{calibration.height}",
            topic,
            "publish the camera_info of this image",
        )


def extrinsics(values: list[float]) -> np.ndarray | None:
    """(4, 4) float64 camera_from_lidar of the `extrinsics` parameter; None where it is all zeros.

    Args:
        values: x, y, z in metres and the quaternion x, y, z, w.

    Raises:
        InputError: numbers that are not finite, or a quaternion that is not of length 1.
    """
    numbers = np.asarray(values, np.float64)
    if not numbers.any():
        return None
    if not np.isfinite(numbers).all() or abs(np.linalg.norm(numbers[3:]) - 1) > 1e-3:
        raise InputError(
            f"{values} is not x, y, z and a quaternion of length 1",
            "parameter extrinsics",
            "give camera_from_lidar as [x, y, z, qx, qy, qz, qw], or seven zeros to use /tf_static",
        )
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(numbers[3:]).as_matrix()
    matrix[:3, 3] = numbers[:3]
    return matrix
