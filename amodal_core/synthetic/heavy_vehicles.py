"""Trucks, buses and trams: rounded hulls on axles."""

from __future__ import annotations

from typing import Any

import numpy as np

from amodal_core.synthetic.assets import Asset, Motion
from amodal_core.synthetic.materials import Material
from amodal_core.synthetic.mesh import (
    Mesh,
    Vector,
    box,
    faceted,
    grid_triangles,
    grounded,
    merged,
    pose,
    tones,
    tube,
)
from amodal_core.synthetic.vehicles import wheel

PAINTS = tones("ffffff f4f4f0 ce3428 244a8c 3c6e46 f0c83c")  # of a lorry's box


def hull(
    length: float,
    width: float,
    low: float,
    high: float,
    side: Material,
    front: Material,
    rear: Material,
    *,
    corner: float = 0.16,
    rake: float = 0.0,
    tile: float = 4.0,
    colour: tuple[int, int, int] = (255, 255, 255),
) -> Mesh:
    """A long box with rounded edges; the front leans back by `rake` metres at its top.

    The side texture repeats every `tile` metres, the end textures fill the ends.
    """
    corner = min(corner, width / 4, (high - low) / 3)
    turn = np.linspace(0, np.pi / 2, 4)
    y, z = width / 2, high
    section = [(y, low)]
    section += [(y - corner + corner * np.cos(t), z - corner + corner * np.sin(t)) for t in turn]
    section += [(-a, b) for a, b in section[::-1]]
    outline = np.array(section)
    bend = np.array([0.0, 0.03, 0.1, 0.3, 1.0]) * corner * 1.6
    x = np.concatenate([-length / 2 + bend, (length / 2 - bend)[::-1]])
    away = (1.6 * corner - np.concatenate([bend, bend[::-1]])) / (1.6 * corner)
    inset = np.sqrt(np.clip(1 - away**2, 0, 1))
    shrink = 1 - (1 - inset) * (corner * 0.9 / (width / 2))
    rows, columns = len(x), len(outline)
    ys = outline[None, :, 0] * shrink[:, None]
    sink = 1 - (1 - inset[:, None]) * corner * 0.5 / (high - low)
    zs = low + (outline[None, :, 1] - low) * sink
    lean = np.where(x[:, None] > 0, rake * ((zs - low) / (high - low)) ** 1.5, 0)
    vertices = np.stack([x[:, None] - lean, ys, zs], axis=-1).reshape(-1, 3)
    triangles = grid_triangles(rows, columns)
    bottom = np.stack([np.arange(rows - 1) * columns, (np.arange(rows - 1) + 1) * columns], 1)
    a, b = bottom[:, 0], bottom[:, 1]
    last = columns - 1
    floor = np.concatenate([np.stack([a, b, b + last], 1), np.stack([a, b + last, a + last], 1)])
    k = np.arange(1, columns - 1)
    rear_cap = np.stack([np.zeros_like(k), k, k + 1], 1)
    front_cap = np.stack([np.zeros_like(k), k + 1, k], 1) + (rows - 1) * columns
    triangles = np.concatenate(
        [triangles[:, ::-1], floor[:, ::-1], rear_cap[:, ::-1], front_cap[:, ::-1]]
    )
    corners = vertices[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    outward = ((corners.mean(axis=1) - [0, 0, (low + high) / 2]) * normal).sum(axis=1) < 0
    triangles[outward] = triangles[outward, ::-1]
    corners = vertices[triangles]
    normal[outward] *= -1
    material = np.full(len(triangles), int(Material.PAINT))
    uvs = np.zeros((len(triangles), 3, 2))
    height_share = (corners[..., 2] - low) / (high - low)
    on_side = np.abs(normal[:, 1]) > 0.6
    material[on_side] = side
    uvs[..., 0] = corners[..., 0] / tile * np.sign(-normal[:, 1:2] + 1e-6)
    uvs[..., 1] = height_share
    for sign, kind in ((1, front), (-1, rear)):
        facing = sign * normal[:, 0] > 0.55
        material[facing] = kind
        uvs[facing, :, 0] = sign * corners[facing][..., 1] / width + 0.5
    shade = np.full((len(triangles), 3), colour)
    under = normal[:, 2] < -0.8
    material[under], shade[under] = Material.BLACK, 14
    return faceted(vertices, triangles, material, shade, uvs, crease=30)


def _axles(
    at: list[float], width: float, radius: float, thickness: float, parts: int
) -> tuple[list[Mesh], np.ndarray]:
    """Wheels on both sides of the axles, and joints; at most `parts` wheels turn on their own."""
    meshes: list[Mesh] = []
    joints = [np.zeros(3)]
    for x in at:
        for side in (1, -1):
            centre = np.array([x, side * (width / 2 - thickness / 2 - 0.02), radius])
            meshes.append(wheel(radius, thickness, side, min(len(joints), parts), centre))
            joints.append(centre)
    return meshes, np.stack(joints)


def _pair(size: Vector, x: float, y: float, z: float, *finish: Any) -> list[Mesh]:
    """A box at the left of a vehicle and one at its right."""
    return [box(size, (x, side * y, z), *finish) for side in (1, -1)]


def _mirrors(x: float, width: float, z: float) -> list[Mesh]:
    tone = Material.BLACK, (22, 22, 23)
    plates = _pair((0.1, 0.1, 0.42), x, width / 2 + 0.16, z, *tone)
    return plates + _pair((0.04, 0.24, 0.04), x, width / 2 + 0.05, z + 0.18, *tone)


def _metal(grey: int) -> tuple[Material, tuple[int, int, int]]:
    return Material.METAL, (grey, grey + 2, grey + 4)


def truck(rng: np.random.Generator, kind: str) -> Asset:
    """A lorry: `box`, `tarp`, `tanker`, `flatbed` or `artic` (a tractor with a trailer)."""
    artic = kind in ("artic", "tanker")
    width = rng.uniform(2.42, 2.55)
    cargo = rng.uniform(10.5, 13.2) if artic else rng.uniform(5.2, 7.4)
    cab_length = rng.uniform(1.9, 2.3)
    cab_high = rng.uniform(2.85, 3.6) if artic else rng.uniform(2.5, 3.0)
    total = cargo + cab_length + 0.45
    front = total / 2
    skins = Material.PAINT, Material.TRUCK_FRONT, Material.PAINT
    cab = hull(cab_length, width * 0.97, 0.42, cab_high, *skins, corner=0.22, rake=0.3)
    pieces = [cab.placed(pose(front - cab_length / 2))]
    x0, z0 = front - cab_length * 0.52, 0.42 + (cab_high - 0.42) * 0.55
    for side in (1, -1):
        pane = (cab_length * 0.4, 0.02, (cab_high - 0.42) * 0.24)
        pieces.append(box(pane, (x0, side * width * 0.483, z0 + 0.1), Material.GLASS))
        for dx in (-0.3, 0.12):
            at = (x0 + dx * cab_length * 0.9, side * width * 0.486, 1.35)
            pieces.append(box((0.012, 0.008, 1.5), at, Material.BLACK, (20, 20, 20)))
    middle, low = -front + cargo / 2, 1.12
    colour = PAINTS[rng.integers(len(PAINTS))]
    if kind == "tanker":
        x = middle + np.array([-0.5, -0.495, -0.46, 0.46, 0.495, 0.5]) * cargo
        path = np.stack([x, np.zeros(6), np.full(6, 2.25)], axis=1)
        radii = np.array([0.0, 0.8, 1.14, 1.14, 0.8, 0.0])
        white = (255, 255, 255)
        pieces.append(tube(path, radii, Material.PAINT, white, sides=24, caps=False))
        for x in middle + np.linspace(-0.38, 0.38, 5) * cargo:
            band = np.array([[x - 0.04, 0, 2.25], [x + 0.04, 0, 2.25]])
            pieces.append(tube(band, 1.155, *_metal(150), sides=24))
        walkway = (cargo * 0.8, 0.5, 0.04), (middle, 0, 3.42)
        pieces.append(box(*walkway, Material.METAL, (130, 130, 130)))
        pieces.append(box((0.1, width, 0.5), (-front + 0.1, 0, 0.9), Material.TRUCK_REAR, white))
    elif kind == "flatbed":
        floor = (cargo, width, 0.18), (middle, 0, low)
        pieces.append(box(*floor, Material.WOOD, (200, 200, 200), texel=2))
        boards = [(middle, y, low + 0.3) for y in (-width / 2, width / 2)]
        pieces += [box((cargo, 0.05, 0.45), at, *_metal(170)) for at in boards]
        pieces.append(box((0.05, width, 0.45), (-front + 0.03, 0, low + 0.3), *_metal(170)))
        wall = (middle + cargo / 2, 0, low + 0.65)
        pieces.append(box((0.06, width, 1.2), wall, *_metal(90)))
        for _ in range(int(rng.integers(2, 6))):
            size = rng.uniform((0.6, 0.6, 0.4), (2.2, 1.9, 1.3))
            x = middle + rng.uniform(-0.4, 0.4) * (cargo - size[0])
            tone = tuple(int(c) for c in rng.integers(60, 200, 3))
            pieces.append(box(size, (x, 0, low + 0.09 + size[2] / 2), Material.WOOD, tone))
    else:
        high = rng.uniform(3.4, 3.95) if artic else rng.uniform(2.9, 3.5)
        skin = Material.TARP if kind in ("tarp", "artic") else Material.PLASTER
        skins = skin, skin, Material.TRUCK_REAR
        body = hull(cargo, width, low, high, *skins, corner=0.05, tile=cargo, colour=colour)
        pieces.append(body.placed(pose(middle)))
    pieces.append(box((total - 1.0, 0.85, 0.22), (-0.4, 0, 0.92), Material.BLACK, (20, 20, 21)))
    for side in (1, -1):
        guard = (middle + cargo * 0.08, side * (width / 2 - 0.06), 0.72)
        tank = (front - cab_length - 0.8, side * (width / 2 - 0.35), 0.68)
        flap = (-front + 0.9, side * (width / 2 - 0.3), 1.06)
        pieces.append(box((cargo * 0.42, 0.05, 0.42), guard, *_metal(120)))
        pieces.append(box((0.9, 0.55, 0.5), tank, *_metal(138)))
        pieces.append(box((0.5, 0.5, 0.02), flap, Material.BLACK, (18, 18, 18)))
    bumper = (0.08, width * 0.96, 0.12), (-front + 0.25, 0, 0.55)
    pieces.append(box(*bumper, Material.METAL, (110, 110, 112)))
    pieces += _mirrors(front - 0.32, width, cab_high * 0.68)
    rear = [-front + 1.5, -front + 2.8, -front + 4.1] if artic else [-front + cargo * 0.24]
    axles = [front - cab_length * 0.62, *([front - cab_length - 2.2] if artic else []), *rear]
    wheels, joints = _axles(axles, width, 0.5, 0.3, 12)
    mesh = grounded(merged([*pieces, *wheels]), 0.9, 0.5)
    least, most = mesh.bounds
    size_ = (float(most[0] - least[0]), width, float(most[2]))
    return Asset(f"truck_{kind}", "truck", mesh, size_, Motion.WHEELS, joints, 0.5)


def bus(rng: np.random.Generator) -> Asset:
    """A city bus."""
    length, width, high = 12.0 * rng.uniform(0.92, 1.03), 2.55, rng.uniform(2.95, 3.15)
    skins = Material.BUS_SIDE, Material.BUS_END, Material.BUS_END
    pieces = [hull(length, width, 0.32, high, *skins, corner=0.26, rake=0.14)]
    pieces.append(box((2.6, 1.7, 0.22), (-2.2, 0, high + 0.1), Material.PAINT))
    pieces += _mirrors(length / 2 + 0.02, width, high * 0.8)
    axles = [length * 0.29, -length * 0.24]
    for x in axles:
        arch = (1.24, 0.03, 0.66), x, width / 2 - 0.006, 0.64
        pieces += _pair(*arch, Material.BLACK, (12, 12, 12))
    lamp = (0.03, 0.16, 0.42), -length / 2 - 0.002, width / 2 - 0.22, 0.95
    pieces += _pair(*lamp, Material.LAMP, (160, 16, 18))
    wheels, joints = _axles(axles, width + 0.06, 0.48, 0.3, 4)
    mesh = grounded(merged([*pieces, *wheels]), 0.9, 0.5)
    return Asset("bus", "bus", mesh, (length, width, high + 0.2), Motion.WHEELS, joints, 0.48)


def tram(rng: np.random.Generator) -> Asset:
    """A tram of three sections with a pantograph."""
    section, width, high = 8.6, 2.4, 3.35
    pieces = []
    for k in (-1, 0, 1):
        ends = [Material.BUS_END if k == end else Material.BLACK for end in (1, -1)]
        skins, rake = (Material.BUS_SIDE, *ends), 0.55 if k == 1 else 0.0
        body = hull(section, width, 0.28, high, *skins, corner=0.2, rake=rake)
        pieces.append(body.placed(pose(k * (section + 0.55))))
        roof = (k * (section + 0.55), 0, high + 0.12)
        pieces.append(box((4.5, 1.5, 0.3), roof, *_metal(150)))
        if k < 1:
            bellows = (0.7, width * 0.9, 2.7), ((k + 0.5) * (section + 0.55), 0, 1.8)
            pieces.append(box(*bellows, Material.BLACK, (26, 26, 28)))
    lift = high + 0.3
    dark = Material.BLACK, (40, 40, 42)
    for s in (1, -1):
        arm = [[-0.2, 0.35 * s, lift], [0.9, 0.3 * s, lift + 0.9], [0.0, 0.3 * s, lift + 1.75]]
        pieces.append(tube(np.array(arm), 0.025, *dark, sides=5))
    pieces.append(box((0.12, 1.5, 0.05), (0, 0, lift + 1.77), *dark))
    mesh = grounded(merged(pieces), 0.9, 0.5)
    size = (3 * section + 1.1, width, high + 0.27)
    return Asset("tram", "tram", mesh, size, Motion.WHEELS, np.zeros((1, 3)), 0.3)
