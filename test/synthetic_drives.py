"""Small drives that several test files share; each is made once."""

from __future__ import annotations

from functools import lru_cache

import pytest

from amodal_core.errors import InputError
from amodal_core.synthetic.camera import CameraOptions
from amodal_core.synthetic.frames import Drive, SyntheticFrame
from amodal_core.synthetic.lidar import LidarOptions
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
