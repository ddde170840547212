"""Small drives that several test files share; each is made once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from amodal_core.errors import InputError
from amodal_core.synthetic.bvh import cast_rays
from amodal_core.synthetic.camera import CameraOptions
from amodal_core.synthetic.frames import Drive, SyntheticFrame
from amodal_core.synthetic.lidar import Caster, LidarOptions
from amodal_core.synthetic.rig import make_rig
from amodal_core.synthetic.world import WorldOptions

SIZE = (310, 94)
FRAMES = 3


@lru_cache(maxsize=1)
def urban_drive() -> Drive:
    """Three frames of a full street; skips where nothing can be rendered."""
    world = WorldOptions(seed=28, frames=FRAMES, kind="urban", weather="sun")
    try:
        return Drive(world, 0, make_rig("kitti", SIZE), CameraOptions(), LidarOptions(columns=1024))
    except InputError as error:
        pytest.skip(f"no rendering here: {error}")


@lru_cache(maxsize=1)
def urban_frames() -> tuple[SyntheticFrame, ...]:
    """The frames of that drive."""
    return tuple(urban_drive().frame(k) for k in range(FRAMES))


def cast_pixels(
    caster: Caster, frame: int, K: np.ndarray, camera_from_lidar: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Actor ids (P,) and depths (P,) along the optical axis of pixels (P, 2) u, v.

    The slow reference, independent of the renderer: a ray through each pixel's centre; 0 where it
    meets nothing.
    """
    world_from_camera = caster.scene.world_from_lidar[frame] @ np.linalg.inv(camera_from_lidar)
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1) @ np.linalg.inv(K).T
    length = np.linalg.norm(rays, axis=1)
    directions = rays / length[:, None] @ world_from_camera[:3, :3].T
    origins = np.broadcast_to(world_from_camera[:3, 3], directions.shape)
    shapes, poses, velocities, ids = caster.instances(frame)
    hits = cast_rays(
        caster.library, shapes, poses, velocities, origins, directions, np.zeros(len(pixels)), 600.0
    )
    hit = hits.triangle >= 0
    return np.where(hit, ids[hits.instance], 0), np.where(hit, hits.distance / length, 0.0)
