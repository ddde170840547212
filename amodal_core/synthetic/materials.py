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


class Material(IntEnum):
    """Index into `TABLE`; every vertex carries one."""

    ASPHALT = 0
    MARKING = 1
    PAVING = 2
    GRASS = 3
    CONCRETE = 4
    PAINT = 5
    GLASS = 6
    BLACK = 7
    TYRE = 8
    RIM = 9
    CAR_FRONT = 10
    CAR_REAR = 11
    CAR_SIDE = 12
    CLOTH = 13
    SKIN = 14
    METAL = 15
    LEAVES = 16
    BARK = 17
    PLASTER = 18
    BRICK = 19
    FACADE_A = 20
    FACADE_B = 21
    FACADE_C = 22
    ROOF = 23
    WOOD = 24
    SIGN = 25
    LAMP = 26
    BUS_SIDE = 27
    BUS_END = 28
    TRUCK_FRONT = 29
    TRUCK_REAR = 30
    TARP = 31
    TREELINE = 32
    HEDGE = 33
    MESH_FENCE = 34
    SHOP = 35
    FACADE_D = 36
    GRAVEL = 37
    LEAVES_B = 38
    CHROME = 39
    PLATE = 40
    CAR_FRONT_B = 41
    CAR_REAR_B = 42
    RIM_B = 43
    CAR_FRONT_C = 44
    CAR_REAR_C = 45
    RIM_C = 46


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


TABLE: dict[Material, Surface] = {
    Material.ASPHALT: Surface("asphalt", roughness=0.75, f0=0.03, lidar=0.22, dropout=0.04),
    Material.MARKING: Surface("marking", roughness=0.7, f0=0.04, lidar=0.75),
    Material.PAVING: Surface("paving", roughness=0.85, lidar=0.3),
    Material.GRASS: Surface("grass", lidar=0.4, dropout=0.05),
    Material.CONCRETE: Surface("concrete", lidar=0.35),
    Material.PAINT: Surface("white", roughness=0.12, f0=0.055, lidar=0.45, dropout=0.05),
    Material.GLASS: Surface("glass", roughness=0.04, f0=0.08, lidar=0.08, dropout=0.75),
    Material.BLACK: Surface("white", roughness=0.6, f0=0.03, lidar=0.05, dropout=0.25),
    Material.TYRE: Surface("white", roughness=0.85, f0=0.02, lidar=0.07, dropout=0.1),
    Material.RIM: Surface("rim", Mode.DECAL, roughness=0.3, f0=0.3, lidar=0.4),
    Material.CAR_FRONT: Surface("car_front", Mode.LAMPS, 0.12, 0.055, 0.45, 0.05),
    Material.CAR_REAR: Surface("car_rear", Mode.LAMPS, 0.12, 0.055, 0.5, 0.05),
    Material.CAR_SIDE: Surface("car_side", Mode.DECAL, 0.12, 0.055, 0.45, 0.05),
    Material.CLOTH: Surface("cloth", lidar=0.45),
    Material.SKIN: Surface("white", roughness=0.6, f0=0.03, lidar=0.5),
    Material.METAL: Surface("white", roughness=0.45, f0=0.12, lidar=0.4),
    Material.LEAVES: Surface("leaves", Mode.CUTOUT, 0.8, 0.03, 0.45, 0.1),
    Material.BARK: Surface("bark", lidar=0.35),
    Material.PLASTER: Surface("plaster", lidar=0.5),
    Material.BRICK: Surface("brick", lidar=0.35),
    Material.FACADE_A: Surface("facade_a", Mode.WINDOWS, 0.9, 0.02, 0.45, 0.06),
    Material.FACADE_B: Surface("facade_b", Mode.WINDOWS, 0.9, 0.02, 0.4, 0.06),
    Material.FACADE_C: Surface("facade_c", Mode.WINDOWS, 0.8, 0.03, 0.4, 0.15),
    Material.FACADE_D: Surface("facade_d", Mode.WINDOWS, 0.9, 0.02, 0.45, 0.06),
    Material.ROOF: Surface("roof", lidar=0.3),
    Material.WOOD: Surface("wood", lidar=0.4),
    Material.SIGN: Surface("signs", Mode.CUTOUT, 0.4, 0.04, 0.95, 0.0),
    Material.LAMP: Surface("white", roughness=0.3, f0=0.05, lidar=0.3),
    Material.BUS_SIDE: Surface("bus_side", Mode.WINDOWS, 0.15, 0.055, 0.4, 0.1),
    Material.BUS_END: Surface("bus_end", Mode.WINDOWS, 0.15, 0.055, 0.4, 0.1),
    Material.TRUCK_FRONT: Surface("truck_front", Mode.LAMPS, 0.2, 0.05, 0.4, 0.05),
    Material.TRUCK_REAR: Surface("truck_rear", Mode.LAMPS, 0.4, 0.04, 0.5, 0.03),
    Material.TARP: Surface("tarp", roughness=0.6, f0=0.035, lidar=0.45),
    Material.TREELINE: Surface("treeline", Mode.CUTOUT, lidar=0.4, dropout=0.2),
    Material.HEDGE: Surface("hedge", lidar=0.4, dropout=0.05),
    Material.MESH_FENCE: Surface("mesh_fence", Mode.CUTOUT, 0.5, 0.06, 0.3, 0.02),
    Material.SHOP: Surface("shop", Mode.WINDOWS, 0.8, 0.03, 0.35, 0.2),
    Material.GRAVEL: Surface("gravel", lidar=0.3),
    Material.LEAVES_B: Surface("leaves_b", Mode.CUTOUT, 0.8, 0.03, 0.45, 0.1),
    Material.CHROME: Surface("white", roughness=0.15, f0=0.5, lidar=0.5),
    Material.CAR_FRONT_B: Surface("car_front_b", Mode.LAMPS, 0.12, 0.055, 0.45, 0.05),
    Material.CAR_REAR_B: Surface("car_rear_b", Mode.LAMPS, 0.12, 0.055, 0.5, 0.05),
    Material.RIM_B: Surface("rim_b", Mode.DECAL, roughness=0.3, f0=0.3, lidar=0.4),
    Material.CAR_FRONT_C: Surface("car_front_c", Mode.LAMPS, 0.12, 0.055, 0.45, 0.05),
    Material.CAR_REAR_C: Surface("car_rear_c", Mode.LAMPS, 0.12, 0.055, 0.5, 0.05),
    Material.RIM_C: Surface("rim_c", Mode.DECAL, roughness=0.3, f0=0.3, lidar=0.4),
    Material.PLATE: Surface("plates", roughness=0.5, f0=0.04, lidar=1.0, dropout=0.0),
}


def shader_table(layers: dict[str, int]) -> np.ndarray:
    """(M, 4) float32 rows of texture layer, mode, roughness, f0 in the order of `Material`."""
    rows = [
        (layers[s.texture], int(s.mode), s.roughness, s.f0)
        for s in (TABLE[m] for m in sorted(Material))
    ]
    return np.asarray(rows, np.float32)


def lidar_table() -> np.ndarray:
    """(M, 2) float64 rows of LiDAR reflectance and dropout in the order of `Material`."""
    return np.asarray([(TABLE[m].lidar, TABLE[m].dropout) for m in sorted(Material)])
