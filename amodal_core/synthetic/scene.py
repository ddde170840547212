"""A drive before it is rendered: static chunks, actors, the sensors' poses, the light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amodal_core.synthetic.assets import Asset
from amodal_core.synthetic.light import Light
from amodal_core.synthetic.mesh import Mesh, pose
from amodal_core.synthetic.motion import part_matrices


@dataclass(eq=False)
class Actor:
    """One object that has a truth; its arrays have a row a frame.

    Attributes:
        id: identity over the whole drive, from 1 (0 is the background).
        asset: its shape.
        tint: (3,) colour factor of its paint, 0-1 sRGB.
        xy: (F, 2) metres in the world.
        yaw: (F,) radians about +z.
        travelled: (F,) metres, the phase of wheels and legs.
        speed: (F,) metres a second.
        braking: (F,) 0-1, the brake lamps.
        z: height of the ground under it in metres.
    """

    id: int
    asset: Asset
    tint: np.ndarray
    xy: np.ndarray
    yaw: np.ndarray
    travelled: np.ndarray
    speed: np.ndarray
    braking: np.ndarray
    z: float = 0.0

    def place(self, frame: int) -> np.ndarray:
        """(4, 4) world_from_actor."""
        x, y = self.xy[frame]
        return pose(float(x), float(y), self.z, float(self.yaw[frame]))

    def parts(self, frame: int) -> np.ndarray:
        """(MAX_PARTS, 4, 4) world_from_part."""
        local = part_matrices(self.asset, float(self.travelled[frame]), float(self.speed[frame]))
        return self.place(frame) @ local


@dataclass(frozen=True, eq=False)
class Rig:
    """Camera and LiDAR of the car; world_from_lidar moves, the rest is fixed.

    Attributes:
        K: (3, 3) intrinsics, integer pixel centres.
        width, height: pixels.
        camera_from_lidar: (4, 4).
        lidar_height: metres above the road.
    """

    K: np.ndarray
    width: int
    height: int
    camera_from_lidar: np.ndarray
    lidar_height: float


@dataclass(eq=False)
class Scene:
    """Everything that rendering needs.

    Attributes:
        chunks: static geometry in the world, in pieces of some tens of metres.
        actors: the objects.
        world_from_lidar: (F, 4, 4) the way of the sensors.
        stamps: (F,) int64 nanoseconds.
        light: sun, sky and haze.
        kind: what street it is.
    """

    chunks: list[Mesh]
    actors: list[Actor]
    world_from_lidar: np.ndarray
    stamps: np.ndarray
    light: Light
    kind: str
