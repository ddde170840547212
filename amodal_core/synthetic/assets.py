"""What an asset is: a mesh in rigid parts, its class, its size, and how its parts move."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from amodal_core.synthetic.mesh import Mesh

MAX_PARTS = 16


class Motion(Enum):
    """How the parts of an asset move with the way travelled."""

    WHEELS = "wheels"
    WALK = "walk"
    CYCLE = "cycle"


@dataclass(eq=False)
class Asset:
    """An object that can be placed many times. Local frame: x forward, y left, z up, on the ground.

    Attributes:
        name: what it is, for reports.
        category: one of `truth.CLASSES`.
        mesh: its triangles in the rest pose.
        size: length, width, height in metres: the 3D box around the rest pose.
        motion: how its parts move.
        joints: (J, 3) positions that `motion` turns its parts about.
        wheel_radius: metres, 0 for walkers.
    """

    name: str
    category: str
    mesh: Mesh
    size: tuple[float, float, float]
    motion: Motion
    joints: np.ndarray
    wheel_radius: float = 0.0
