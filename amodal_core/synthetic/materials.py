"""What surfaces are made of: the table that the shader, the LiDAR and the asset builders share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Mode(IntEnum):
    """How a texture's alpha is understood by the shader."""

    MULTIPLY = 0  # colour * texture
    DECAL = 1  # alpha lays the texture over the colour
    CUTOUT = 2  # alpha below one half is a hole
    WINDOWS = 3  # alpha is glass: dark and reflecting
    LAMPS = 4  # as DECAL, and saturated pixels shine while the actor's lamps are on


@dataclass(frozen=True)
class Surface:
    """Optical properties of one material.

    Attributes:
        texture: name of the texture layer (see `textures.LAYERS`).
        mode: meaning of the texture's alpha.
        roughness: 0 mirror to 1 chalk.
        f0: reflectance at normal incidence.
        lidar: reflectance at 905 nm, multiplied by part of the colour's brightness.
        dropout: chance that a LiDAR pulse brings no return.
    """

    texture: str
    mode: Mode = Mode.MULTIPLY
    roughness: float = 0.9
    f0: float = 0.02
    lidar: float = 0.3
    dropout: float = 0.02


class Material(IntEnum):
    """What every vertex carries one of: its number and its surface."""

    surface: Surface

    def __new__(cls, number: int, surface: Surface) -> Material:
        """Makes a member, which is its number."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.surface = surface
        return member

    ASPHALT = 0, Surface("asphalt", roughness=0.75, f0=0.03, lidar=0.22, dropout=0.04)
    MARKING = 1, Surface("marking", roughness=0.7, f0=0.04, lidar=0.75)
    PAVING = 2, Surface("paving", roughness=0.85, lidar=0.3)
    GRASS = 3, Surface("grass", lidar=0.4, dropout=0.05)
    CONCRETE = 4, Surface("concrete", lidar=0.35)
    PAINT = 5, Surface("white", roughness=0.12, f0=0.055, lidar=0.45, dropout=0.05)
    GLASS = 6, Surface("glass", roughness=0.04, f0=0.08, lidar=0.08, dropout=0.75)
    BLACK = 7, Surface("white", roughness=0.6, f0=0.03, lidar=0.05, dropout=0.25)
    TYRE = 8, Surface("white", roughness=0.85, f0=0.02, lidar=0.07, dropout=0.1)
    RIM = 9, Surface("rim", Mode.DECAL, roughness=0.3, f0=0.3, lidar=0.4)
    CAR_FRONT = 10, Surface("car_front", Mode.LAMPS, 0.12, 0.055, 0.45, 0.05)
    CAR_REAR = 11, Surface("car_rear", Mode.LAMPS, 0.12, 0.055, 0.5, 0.05)
    CAR_SIDE = 12, Surface("car_side", Mode.DECAL, 0.12, 0.055, 0.45, 0.05)
    CLOTH = 13, Surface("cloth", lidar=0.45)
    SKIN = 14, Surface("white", roughness=0.6, f0=0.03, lidar=0.5)
    METAL = 15, Surface("white", roughness=0.45, f0=0.12, lidar=0.4)
    LEAVES = 16, Surface("leaves", Mode.CUTOUT, 0.8, 0.03, 0.45, 0.1)
    BARK = 17, Surface("bark", lidar=0.35)
    PLASTER = 18, Surface("plaster", lidar=0.5)
    BRICK = 19, Surface("brick", lidar=0.35)
    FACADE_A = 20, Surface("facade_a", Mode.WINDOWS, 0.9, 0.02, 0.45, 0.06)
    FACADE_B = 21, Surface("facade_b", Mode.WINDOWS, 0.9, 0.02, 0.4, 0.06)
    FACADE_C = 22, Surface("facade_c", Mode.WINDOWS, 0.8, 0.03, 0.4, 0.15)
    ROOF = 23, Surface("roof", lidar=0.3)
    WOOD = 24, Surface("wood", lidar=0.4)
    SIGN = 25, Surface("signs", Mode.CUTOUT, 0.4, 0.04, 0.95, 0.0)
    LAMP = 26, Surface("white", roughness=0.3, f0=0.05, lidar=0.3)
    BUS_SIDE = 27, Surface("bus_side", Mode.WINDOWS, 0.15, 0.055, 0.4, 0.1)
    BUS_END = 28, Surface("bus_end", Mode.WINDOWS, 0.15, 0.055, 0.4, 0.1)
    TRUCK_FRONT = 29, Surface("truck_front", Mode.LAMPS, 0.2, 0.05, 0.4, 0.05)
    TRUCK_REAR = 30, Surface("truck_rear", Mode.LAMPS, 0.4, 0.04, 0.5, 0.03)
    TARP = 31, Surface("tarp", roughness=0.6, f0=0.035, lidar=0.45)
    TREELINE = 32, Surface("treeline", Mode.CUTOUT, lidar=0.4, dropout=0.2)
    HEDGE = 33, Surface("hedge", lidar=0.4, dropout=0.05)
    MESH_FENCE = 34, Surface("mesh_fence", Mode.CUTOUT, 0.5, 0.06, 0.3, 0.02)
    SHOP = 35, Surface("shop", Mode.WINDOWS, 0.8, 0.03, 0.35, 0.2)
    FACADE_D = 36, Surface("facade_d", Mode.WINDOWS, 0.9, 0.02, 0.45, 0.06)
    GRAVEL = 37, Surface("gravel", lidar=0.3)
    LEAVES_B = 38, Surface("leaves_b", Mode.CUTOUT, 0.8, 0.03, 0.45, 0.1)
    CHROME = 39, Surface("white", roughness=0.15, f0=0.5, lidar=0.5)
    PLATE = 40, Surface("plates", roughness=0.5, f0=0.04, lidar=1.0, dropout=0.0)
    CAR_FRONT_B = 41, Surface("car_front_b", Mode.LAMPS, 0.12, 0.055, 0.45, 0.05)
    CAR_REAR_B = 42, Surface("car_rear_b", Mode.LAMPS, 0.12, 0.055, 0.5, 0.05)
    RIM_B = 43, Surface("rim_b", Mode.DECAL, roughness=0.3, f0=0.3, lidar=0.4)
    CAR_FRONT_C = 44, Surface("car_front_c", Mode.LAMPS, 0.12, 0.055, 0.45, 0.05)
    CAR_REAR_C = 45, Surface("car_rear_c", Mode.LAMPS, 0.12, 0.055, 0.5, 0.05)
    RIM_C = 46, Surface("rim_c", Mode.DECAL, roughness=0.3, f0=0.3, lidar=0.4)


def shader_table(layers: dict[str, int]) -> np.ndarray:
    """(M, 4) float32 rows of texture layer, mode, roughness, f0 in the order of `Material`."""
    rows = [
        (layers[s.texture], int(s.mode), s.roughness, s.f0) for s in (m.surface for m in Material)
    ]
    return np.asarray(rows, np.float32)


def lidar_table() -> np.ndarray:
    """(M, 2) float64 rows of LiDAR reflectance and dropout in the order of `Material`."""
    return np.asarray([(m.surface.lidar, m.surface.dropout) for m in Material])
