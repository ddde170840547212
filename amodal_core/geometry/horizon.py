"""Where a camera sees the horizon."""

from __future__ import annotations

import numpy as np

from amodal_core.frame import Calibration

_TILTED = np.tan(np.radians(15))  # a scanner tilted by more says nothing of the horizon


def horizon(calibration: Calibration) -> float:
    """The row in the middle of which the horizon lies, where the LiDAR's z axis points up.

    The principal point's where the scanner stands too oblique to say.
    """
    K, up = calibration.K, calibration.camera_from_lidar[:3, 2]
    tilt = -up[2] / up[1] if abs(up[1]) > 1e-6 else np.inf
    return float(K[1, 2] + K[1, 1] * (tilt if abs(tilt) <= _TILTED else 0.0))
