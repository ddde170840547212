"""Trucks, buses and trams: rounded hulls on axles."""

from __future__ import annotations

import numpy as np

from amodal_core.synthetic.assets import Asset, Motion
from amodal_core.synthetic.materials import Material
from amodal_core.synthetic.mesh import Mesh, box, faceted, grid_triangles, grounded, merged, tube
from amodal_core.synthetic.vehicles import wheel


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
    inset = np.sqrt(
        np.clip(
            1 - ((1.6 * corner - np.concatenate([bend, bend[::-1]])) / (1.6 * corner)) ** 2, 0, 1
        )
    )
    shrink = 1 - (1 - inset) * (corner * 0.9 / (width / 2))
    rows, columns = len(x), len(outline)
    ys = outline[None, :, 0] * shrink[:, None]
    zs = low + (outline[None, :, 1] - low) * (
        1 - (1 - inset[:, None]) * corner * 0.5 / (high - low)
    )
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
) -> tuple[list[Mesh], list[np.ndarray]]:
    """Wheels on both sides of the axles; at most `parts` of them turn on their own part."""
    meshes: list[Mesh] = []
    joints: list[np.ndarray] = []
    for x in at:
        for side in (1, -1):
            centre = np.array([x, side * (width / 2 - thickness / 2 - 0.02), radius])
            part = min(len(joints) + 1, parts)
            meshes.append(wheel(radius, thickness, side, part, centre))
            joints.append(centre)
    return meshes, joints


def _mirrors(x: float, width: float, z: float) -> list[Mesh]:
    return [
        box((0.1, 0.1, 0.42), (x, s * (width / 2 + 0.16), z), Material.BLACK, (22, 22, 23))
        for s in (1, -1)
    ] + [
        box((0.04, 0.24, 0.04), (x, s * (width / 2 + 0.05), z + 0.18), Material.BLACK, (22, 22, 23))
        for s in (1, -1)
    ]


def truck(rng: np.random.Generator, kind: str) -> Asset:
    """A lorry: `box`, `tarp`, `tanker`, `flatbed` or `artic` (a tractor with a trailer)."""
    artic = kind in ("artic", "tanker")
    width = rng.uniform(2.42, 2.55)
    cargo = rng.uniform(10.5, 13.2) if artic else rng.uniform(5.2, 7.4)
    cab_length, cab_high = (
        rng.uniform(1.9, 2.3),
        rng.uniform(2.85, 3.6) if artic else rng.uniform(2.5, 3.0),
    )
    total = cargo + cab_length + 0.45
    front = total / 2
    cab = hull(
        cab_length,
        width * 0.97,
        0.42,
        cab_high,
        Material.PAINT,
        Material.TRUCK_FRONT,
        Material.PAINT,
        corner=0.22,
        rake=0.3,
    ).placed(
        np.array([[1, 0, 0, front - cab_length / 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    )
    pieces = [cab]
    for side in (1, -1):
        x0, z0 = front - cab_length * 0.52, 0.42 + (cab_high - 0.42) * 0.55
        pane = box(
            (cab_length * 0.4, 0.02, (cab_high - 0.42) * 0.24),
            (x0, side * width * 0.483, z0 + 0.1),
            Material.GLASS,
        )
        pieces.append(pane)
        for dx in (-0.3, 0.12):
            seam = box(
                (0.012, 0.008, 1.5),
                (x0 + dx * cab_length * 0.9, side * width * 0.486, 1.35),
                Material.BLACK,
                (20, 20, 20),
            )
            pieces.append(seam)
    middle = -front + cargo / 2
    body_low = 1.12
    tint = [
        (255, 255, 255),
        (244, 244, 240),
        (206, 52, 40),
        (36, 74, 140),
        (60, 110, 70),
        (240, 200, 60),
    ]
    colour = tint[rng.integers(len(tint))]
    shift = np.eye(4)
    shift[0, 3] = middle
    if kind == "tanker":
        x = middle + np.array([-0.5, -0.495, -0.46, 0.46, 0.495, 0.5]) * cargo
        path = np.stack([x, np.zeros(6), np.full(6, 2.25)], axis=1)
        pieces.append(
            tube(
                path,
                np.array([0.0, 0.8, 1.14, 1.14, 0.8, 0.0]),
                Material.PAINT,
                (255, 255, 255),
                sides=24,
                caps=False,
            )
        )
        for k in np.linspace(-0.38, 0.38, 5):
            at = np.array(
                [[middle + k * cargo - 0.04, 0, 2.25], [middle + k * cargo + 0.04, 0, 2.25]]
            )
            pieces.append(tube(at, 1.155, Material.METAL, (150, 152, 154), sides=24))
        pieces.append(
            box((cargo * 0.8, 0.5, 0.04), (middle, 0, 3.42), Material.METAL, (130, 130, 130))
        )
        pieces.append(
            box((0.1, width, 0.5), (-front + 0.1, 0, 0.9), Material.TRUCK_REAR, (255, 255, 255))
        )
    elif kind == "flatbed":
        pieces.append(
            box(
                (cargo, width, 0.18), (middle, 0, body_low), Material.WOOD, (200, 200, 200), texel=2
            )
        )
        pieces += [
            box((cargo, 0.05, 0.45), (middle, y, body_low + 0.3), Material.METAL, (170, 172, 174))
            for y in (-width / 2, width / 2)
        ]
        pieces.append(
            box(
                (0.05, width, 0.45),
                (-front + 0.03, 0, body_low + 0.3),
                Material.METAL,
                (170, 172, 174),
            )
        )
        pieces.append(
            box(
                (0.06, width, 1.2),
                (middle + cargo / 2, 0, body_low + 0.65),
                Material.METAL,
                (90, 92, 94),
            )
        )
        for _ in range(int(rng.integers(2, 6))):
            size = rng.uniform((0.6, 0.6, 0.4), (2.2, 1.9, 1.3))
            spot = (
                middle + rng.uniform(-0.4, 0.4) * (cargo - size[0]),
                0,
                body_low + 0.09 + size[2] / 2,
            )
            tone = tuple(int(c) for c in rng.integers(60, 200, 3))
            pieces.append(box(size, spot, Material.WOOD, tone))
    else:
        high = rng.uniform(3.4, 3.95) if artic else rng.uniform(2.9, 3.5)
        side = Material.TARP if kind in ("tarp", "artic") else Material.PLASTER
        pieces.append(
            hull(
                cargo,
                width,
                body_low,
                high,
                side,
                side,
                Material.TRUCK_REAR,
                corner=0.05,
                tile=cargo,
                colour=colour,
            ).placed(shift)
        )
    pieces.append(box((total - 1.0, 0.85, 0.22), (-0.4, 0, 0.92), Material.BLACK, (20, 20, 21)))
    for side in (1, -1):
        pieces.append(
            box(
                (cargo * 0.42, 0.05, 0.42),
                (middle + cargo * 0.08, side * (width / 2 - 0.06), 0.72),
                Material.METAL,
                (120, 122, 124),
            )
        )
        pieces.append(
            box(
                (0.9, 0.55, 0.5),
                (front - cab_length - 0.8, side * (width / 2 - 0.35), 0.68),
                Material.METAL,
                (138, 140, 142),
            )
        )
        pieces.append(
            box(
                (0.5, 0.5, 0.02),
                (-front + 0.9, side * (width / 2 - 0.3), 1.06),
                Material.BLACK,
                (18, 18, 18),
            )
        )
    pieces.append(
        box((0.08, width * 0.96, 0.12), (-front + 0.25, 0, 0.55), Material.METAL, (110, 110, 112))
    )
    pieces += _mirrors(front - 0.32, width, cab_high * 0.68)
    rear = [-front + 1.5, -front + 2.8, -front + 4.1] if artic else [-front + cargo * 0.24]
    axles = [front - cab_length * 0.62, *([front - cab_length - 2.2] if artic else []), *rear]
    wheels, joints = _axles(axles, width, 0.5, 0.3, 12)
    mesh = grounded(merged([*pieces, *wheels]), 0.9, 0.5)
    low, top = mesh.bounds
    return Asset(
        f"truck_{kind}",
        "truck",
        mesh,
        (float(top[0] - low[0]), width, float(top[2])),
        Motion.WHEELS,
        np.stack([np.zeros(3), *joints]),
        0.5,
    )


def bus(rng: np.random.Generator) -> Asset:
    """A city bus."""
    length, width, high = 12.0 * rng.uniform(0.92, 1.03), 2.55, rng.uniform(2.95, 3.15)
    pieces = [
        hull(
            length,
            width,
            0.32,
            high,
            Material.BUS_SIDE,
            Material.BUS_END,
            Material.BUS_END,
            corner=0.26,
            rake=0.14,
        ),
        box((2.6, 1.7, 0.22), (-2.2, 0, high + 0.1), Material.PAINT),
    ]
    pieces += _mirrors(length / 2 + 0.02, width, high * 0.8)
    for x in (length * 0.29, -length * 0.24):
        for s in (1, -1):
            pieces.append(
                box(
                    (1.24, 0.03, 0.66),
                    (x, s * (width / 2 - 0.006), 0.64),
                    Material.BLACK,
                    (12, 12, 12),
                )
            )
    for s in (1, -1):
        pieces.append(
            box(
                (0.03, 0.16, 0.42),
                (-length / 2 - 0.002, s * (width / 2 - 0.22), 0.95),
                Material.LAMP,
                (160, 16, 18),
            )
        )
    wheels, joints = _axles([length * 0.29, -length * 0.24], width + 0.06, 0.48, 0.3, 4)
    mesh = grounded(merged([*pieces, *wheels]), 0.9, 0.5)
    return Asset(
        "bus",
        "bus",
        mesh,
        (length, width, high + 0.2),
        Motion.WHEELS,
        np.stack([np.zeros(3), *joints]),
        0.48,
    )


def tram(rng: np.random.Generator) -> Asset:
    """A tram of three sections with a pantograph."""
    section, width, high = 8.6, 2.4, 3.35
    pieces = []
    for k in (-1, 0, 1):
        shift = np.eye(4)
        shift[0, 3] = k * (section + 0.55)
        ends = (
            Material.BUS_END if k == 1 else Material.BLACK,
            Material.BUS_END if k == -1 else Material.BLACK,
        )
        rake = 0.55 if k == 1 else 0.0
        pieces.append(
            hull(
                section, width, 0.28, high, Material.BUS_SIDE, *ends, corner=0.2, rake=rake
            ).placed(shift)
        )
        pieces.append(
            box(
                (4.5, 1.5, 0.3),
                (k * (section + 0.55), 0, high + 0.12),
                Material.METAL,
                (150, 152, 154),
            )
        )
        if k < 1:
            pieces.append(
                box(
                    (0.7, width * 0.9, 2.7),
                    ((k + 0.5) * (section + 0.55), 0, 1.8),
                    Material.BLACK,
                    (26, 26, 28),
                )
            )
    lift = high + 0.3
    for s in (1, -1):
        arm = np.array(
            [[-0.2, 0.35 * s, lift], [0.9, 0.3 * s, lift + 0.9], [0.0, 0.3 * s, lift + 1.75]]
        )
        pieces.append(tube(arm, 0.025, Material.BLACK, (40, 40, 42), sides=5))
    pieces.append(box((0.12, 1.5, 0.05), (0, 0, lift + 1.77), Material.BLACK, (40, 40, 42)))
    length = 3 * section + 1.1
    mesh = grounded(merged(pieces), 0.9, 0.5)
    return Asset(
        "tram", "tram", mesh, (length, width, high + 0.27), Motion.WHEELS, np.zeros((1, 3)), 0.3
    )
