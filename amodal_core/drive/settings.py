"""Settings of the way from messages to frames, declared once.

ROS parameters (`amodal_ros.declarations.parameters_of`) and options of the command line
(`amodal_ros.cli._options`) are made from the fields: names, defaults, ranges, descriptions.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from amodal_core.settings import MINIMUM_RANGE, settings_type


def _rigid(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(values) and abs(np.linalg.norm(values[3:]) - 1) > 1e-3:
        raise ValueError(
            "x, y, z must be followed by a quaternion of length 1 (or give seven zeros to use "
            "/tf_static)"
        )
    return values


@settings_type
class DriveSettings:
    """What belongs to one frame, and where the LiDAR stands."""

    sync_slop: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Largest distance in seconds between the stamps of messages of one frame.",
        ),
    ] = 0.05
    sync_timeout: Annotated[
        float,
        Field(
            ge=0.01,
            le=60,
            description="Seconds that a message waits for its partners before it is dropped and "
            "counted.",
        ),
    ] = 0.5
    points_offset: Annotated[
        float,
        Field(
            ge=-4e9,
            le=4e9,
            description="Constant lag in seconds of the LiDAR's stamps behind the image's.",
        ),
    ] = 0.0
    auto_points_offset: Annotated[
        bool,
        Field(
            description="Find that lag in the first messages, in place of points_offset; up to "
            "half a period of the faster sensor, in a bag of clocks that differ any.",
        ),
    ] = False
    minimum_range: Annotated[
        float,
        Field(
            ge=0,
            le=50,
            description="Metres; nearer LiDAR returns are the vehicle's own body or no returns at "
            "all, and are dropped.",
        ),
    ] = MINIMUM_RANGE
    extrinsics: Annotated[
        tuple[float, ...],
        Field(
            min_length=7,
            max_length=7,
            description="camera_from_lidar as x, y, z (metres) and quaternion x, y, z, w, in place "
            "of the transform tree; seven zeros use the transform tree.",
        ),
        AfterValidator(_rigid),
    ] = (0.0,) * 7
    calibration: Annotated[
        str,
        Field(
            description="File with the camera's calibration, in place of camera_info: a YAML of "
            "camera_calibration, a calib file of KITTI, a camchain of Kalibr; empty: camera_info.",
        ),
    ] = ""
    rectify: Annotated[
        Literal["auto", "always", "never"],
        Field(
            description="Rectify images here; auto: those of a camera that distorts, unless their "
            "topic is named image_rect; always: also where K and P differ, or R turns.",
        ),
    ] = "auto"
    motion: Annotated[
        Literal["auto", "off"],
        Field(
            description="Move scans to the image's time, each point from when it was measured, "
            "where odometry or the transform tree tells how the vehicle moved.",
        ),
    ] = "auto"
    fixed_frame: Annotated[
        str,
        Field(
            description="Frame to which the transform tree tells the vehicle's motion; empty: "
            "odom, map, world or earth, whichever is nearest.",
        ),
    ] = ""
    transform_timeout: Annotated[
        float,
        Field(
            ge=0,
            le=60,
            description="Seconds to wait for a transform or camera_info that has not come yet.",
        ),
    ] = 2.0

    @property
    def camera_from_lidar(self) -> np.ndarray | None:
        """(4, 4) float64 of the extrinsics; None where the transform tree is used."""
        if not any(self.extrinsics):
            return None
        # Here, since scipy takes longer to import than `amodal replay --help` to print.
        from scipy.spatial.transform import Rotation

        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat(self.extrinsics[3:]).as_matrix()
        matrix[:3, 3] = self.extrinsics[:3]
        return matrix
