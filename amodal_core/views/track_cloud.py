"""The scan's points on each track, in the track's colour."""

from __future__ import annotations

import numpy as np

from amodal_core.frame import Frame, Tracks
from amodal_core.geometry.object_points import points_of_objects
from amodal_core.views.palette import track_colour

# As PCL and rviz have it: the bits of a float32 are 0, red, green, blue.
FIELDS = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4"), ("track_id", "<i4")])


def track_cloud(tracks: Tracks, frame: Frame) -> np.ndarray:
    """(M,) of FIELDS: x, y, z in metres in the LiDAR frame, colour and id, track by track.

    Args:
        tracks: of the frame; those that show nothing have no points.
        frame: with points and calibration.
    """
    host = tracks.numpy()
    points, owners = points_of_objects(host, frame)
    colours = np.array([track_colour(int(i)) for i in host.ids], np.uint32).reshape(-1, 3)
    cloud = np.zeros(len(points), FIELDS)
    for k, name in enumerate("xyz"):
        cloud[name] = points[:, k]
    cloud["rgb"] = (colours @ np.array([1 << 16, 1 << 8, 1], np.uint32))[owners].view("<f4")
    cloud["track_id"] = host.ids[owners]
    return cloud
