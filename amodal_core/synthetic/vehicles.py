"""Passenger cars and vans: a body lofted through stations along its length, with wheels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import PchipInterpolator

from amodal_core.synthetic.assets import Asset, Motion
from amodal_core.synthetic.materials import Material
from amodal_core.synthetic.mesh import (
    Mesh,
    box,
    ellipsoid,
    faceted,
    grid_triangles,
    grounded,
    merged,
    quad,
    tube,
)

Knots = tuple[tuple[float, ...], tuple[float, ...]]  # x and z
_ARCH = 1.17  # radius of a wheel arch in radii of the wheel


@dataclass(frozen=True)
class Body:
    """A body type; x is a share of the length (-0.5 tail, 0.5 nose), z a share of the height.

    Attributes:
        size: length, width and height in metres, middle of the type's range.
        top: knots of the outline over the middle: boot, rear window, roof, screen, bonnet.
        belt: knots of the line where windows begin.
        rear_glass, screen: x of base and top of rear window and windscreen.
        pillars: x of the pillars between side windows; the first and last end the glass.
        wheels: x of the rear and front axle.
        radius: of the wheels in metres.
        roof_width: half width of the roof as a share of the half width.
        blind_sides: the side behind the front door has no windows (panel van).
    """

    size: tuple[float, float, float]
    top: Knots
    belt: Knots
    rear_glass: tuple[float, float]
    screen: tuple[float, float]
    pillars: tuple[float, ...]
    wheels: tuple[float, float]
    radius: float
    roof_width: float = 0.72
    blind_sides: bool = False


BODIES: dict[str, Body] = {
    "sedan": Body(
        (4.6, 1.8, 1.44),
        (
            (-0.5, -0.47, -0.36, -0.19, -0.08, 0.06, 0.24, 0.36, 0.46, 0.5),
            (0.63, 0.705, 0.725, 0.965, 1.0, 0.985, 0.7, 0.665, 0.59, 0.47),
        ),
        ((-0.5, -0.36, 0.24, 0.4, 0.5), (0.6, 0.685, 0.64, 0.6, 0.45)),
        (-0.36, -0.19),
        (0.24, 0.06),
        (-0.27, -0.085, 0.16),
        (-0.29, 0.3),
        0.315,
    ),
    "hatchback": Body(
        (4.1, 1.75, 1.48),
        (
            (-0.5, -0.485, -0.4, -0.2, 0.0, 0.08, 0.27, 0.38, 0.465, 0.5),
            (0.6, 0.69, 0.94, 0.99, 1.0, 0.975, 0.7, 0.655, 0.58, 0.46),
        ),
        ((-0.5, -0.4, 0.27, 0.42, 0.5), (0.6, 0.68, 0.63, 0.59, 0.44)),
        (-0.485, -0.4),
        (0.27, 0.08),
        (-0.36, -0.08, 0.17),
        (-0.31, 0.31),
        0.31,
    ),
    "estate": Body(
        (4.65, 1.8, 1.48),
        (
            (-0.5, -0.485, -0.415, -0.25, -0.02, 0.07, 0.25, 0.36, 0.465, 0.5),
            (0.58, 0.68, 0.93, 0.975, 1.0, 0.98, 0.69, 0.655, 0.58, 0.46),
        ),
        ((-0.5, -0.4, 0.25, 0.4, 0.5), (0.58, 0.665, 0.63, 0.59, 0.44)),
        (-0.485, -0.415),
        (0.25, 0.07),
        (-0.4, -0.21, -0.03, 0.165),
        (-0.29, 0.3),
        0.315,
    ),
    "suv": Body(
        (4.5, 1.86, 1.7),
        (
            (-0.5, -0.485, -0.42, -0.25, 0.0, 0.08, 0.24, 0.36, 0.465, 0.5),
            (0.55, 0.66, 0.92, 0.985, 1.0, 0.975, 0.7, 0.67, 0.62, 0.5),
        ),
        ((-0.5, -0.4, 0.24, 0.4, 0.5), (0.56, 0.645, 0.625, 0.6, 0.48)),
        (-0.485, -0.42),
        (0.24, 0.08),
        (-0.4, -0.22, -0.04, 0.16),
        (-0.3, 0.3),
        0.36,
    ),
    "compact": Body(
        (3.6, 1.63, 1.5),
        (
            (-0.5, -0.485, -0.43, -0.2, 0.02, 0.11, 0.32, 0.41, 0.475, 0.5),
            (0.58, 0.68, 0.93, 0.99, 1.0, 0.965, 0.67, 0.63, 0.56, 0.44),
        ),
        ((-0.5, -0.4, 0.32, 0.44, 0.5), (0.58, 0.67, 0.62, 0.57, 0.42)),
        (-0.485, -0.43),
        (0.32, 0.11),
        (-0.38, -0.1, 0.2),
        (-0.33, 0.33),
        0.29,
    ),
    "mpv": Body(
        (4.4, 1.8, 1.66),
        (
            (-0.5, -0.487, -0.44, -0.25, 0.0, 0.1, 0.33, 0.41, 0.475, 0.5),
            (0.55, 0.66, 0.94, 0.99, 1.0, 0.965, 0.66, 0.61, 0.54, 0.43),
        ),
        ((-0.5, -0.4, 0.33, 0.44, 0.5), (0.56, 0.63, 0.59, 0.545, 0.41)),
        (-0.487, -0.44),
        (0.33, 0.1),
        (-0.41, -0.22, -0.03, 0.17),
        (-0.3, 0.31),
        0.315,
    ),
    "coupe": Body(
        (4.3, 1.8, 1.34),
        (
            (-0.5, -0.475, -0.42, -0.17, -0.06, 0.04, 0.21, 0.36, 0.46, 0.5),
            (0.62, 0.7, 0.72, 0.95, 1.0, 0.98, 0.7, 0.665, 0.59, 0.47),
        ),
        ((-0.5, -0.36, 0.21, 0.4, 0.5), (0.6, 0.695, 0.65, 0.6, 0.45)),
        (-0.42, -0.17),
        (0.21, 0.04),
        (-0.24, -0.06, 0.13),
        (-0.3, 0.3),
        0.325,
        0.68,
    ),
    "minibus": Body(
        (4.9, 1.92, 1.97),
        (
            (-0.5, -0.493, -0.478, -0.4, 0.0, 0.18, 0.36, 0.42, 0.48, 0.5),
            (0.5, 0.6, 0.955, 0.99, 1.0, 0.965, 0.6, 0.555, 0.5, 0.4),
        ),
        ((-0.5, -0.4, 0.36, 0.44, 0.5), (0.52, 0.555, 0.54, 0.5, 0.38)),
        (-0.493, -0.478),
        (0.36, 0.18),
        (-0.45, -0.16, 0.1, 0.23),
        (-0.29, 0.33),
        0.33,
        0.8,
    ),
    "panel_van": Body(
        (5.6, 2.0, 2.5),
        (
            (-0.5, -0.495, -0.488, -0.4, 0.1, 0.2, 0.36, 0.42, 0.485, 0.5),
            (0.4, 0.5, 0.965, 0.99, 1.0, 0.95, 0.52, 0.475, 0.42, 0.33),
        ),
        ((-0.5, -0.4, 0.36, 0.44, 0.5), (0.42, 0.465, 0.455, 0.42, 0.31)),
        (-0.495, -0.488),
        (0.36, 0.2),
        (0.1, 0.115, 0.27),
        (-0.27, 0.34),
        0.35,
        0.84,
        blind_sides=True,
    ),
}


def wheel(radius: float, width: float, side: int, part: int, centre: np.ndarray) -> Mesh:
    """A wheel about the y axis; `side` +1 is the left of the vehicle."""
    y = np.array([-0.5, -0.44, -0.3, 0.3, 0.44, 0.5]) * width
    r = np.array([0.8, 0.94, 1.0, 1.0, 0.94, 0.8]) * radius
    path = np.stack([np.zeros(6), y, np.zeros(6)], axis=1) + centre
    tyre = tube(path, r, Material.TYRE, (26, 26, 27), sides=18, caps=False, part=part)
    angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    discs = []
    for s, material, colour in (
        (side, Material.RIM, (20, 20, 20)),
        (-side, Material.BLACK, (14, 14, 14)),
    ):
        depth = s * width * (0.4 if s == side else 0.5)
        rim = np.stack([np.cos(angle), np.zeros(18), np.sin(angle)], axis=1) * radius * 0.86
        vertices = np.concatenate([rim, [[0, s * width * 0.02, 0]]]) + centre + [0, depth, 0]
        k = np.arange(18)
        order = (k, (k + 1) % 18) if s < 0 else ((k + 1) % 18, k)
        triangles = np.stack([order[0], order[1], np.full(18, 18)], axis=1)
        uv = np.concatenate([0.5 + 0.43 * rim[:, [0, 2]] / (radius * 0.86) * 0.95, [[0.5, 0.5]]])
        discs.append(faceted(vertices, triangles, material, colour, uv, part=part))
    return merged([tyre, *discs])


def _stations(body: Body, arch: float) -> np.ndarray:
    """Stations along x (share of the length), dense where the outline bends."""
    knots = [*np.linspace(-0.5, 0.5, 15), *body.top[0], *body.belt[0]]
    for p in body.pillars:
        knots += [p - 0.009, p + 0.009]
    for w in body.wheels:
        reach = arch / body.size[0]
        outward = np.array([0.4, 0.72, 0.9, 0.99, 1.02]) * reach
        knots += [w, *(w - outward), *(w + outward)]
    knots += [-0.497, -0.49, 0.497, 0.49, 0.48, -0.48]
    x = np.unique(np.round(np.clip(knots, -0.5, 0.5), 4))
    return x[np.concatenate([[True], np.diff(x) > 0.0015])]


def _rings(
    body: Body, size: tuple[float, float, float], x: np.ndarray, top: np.ndarray, belt: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(S, 12) y and z of the left half's outline at S stations, from below to the roof's middle.

    Args:
        body: its shape.
        size: L, W, H in metres.
        x: (S,) stations in shares of the length.
        top: (S,) metres.
        belt: (S,) metres, where the windows begin.
    """
    L, W, H = size
    clearance, arch = _clearance(H), _ARCH * body.radius
    sill = clearance + 0.05 * H * np.clip((np.abs(x) - 0.44) / 0.06, 0, 1) ** 2
    for w in body.wheels:
        d = (x - w) * L
        inside = np.abs(d) < arch
        arc = body.radius + np.sqrt(np.maximum(arch**2 - d**2, 0))
        sill = np.where(inside, np.maximum(sill, arc), sill)
    half = W / 2 * (1 - 0.2 * np.clip((np.abs(x) - 0.33) / 0.17, 0, 1) ** 2.6)
    end = np.clip((np.abs(x) - 0.485) / 0.015, 0, 1)
    half = half * (1 - 0.05 * end)
    cabin = np.clip((top - belt) / (0.3 * H), 0, 1)
    roof_half = half * (0.93 + (body.roof_width - 0.93) * cabin * 0.98)
    arch_near = np.zeros_like(x)
    for w in body.wheels:
        arch_near = np.maximum(arch_near, np.clip(1.35 - np.abs(x - w) * L / arch, 0, 0.35) / 0.35)
    drop = 0.055 * cabin + 0.012
    ring = [
        (np.zeros_like(x), sill),
        (half * 0.72, sill),
        (half * (0.965 + 0.02 * arch_near), sill),
        (half * (0.985 + 0.015 * arch_near), sill + 0.1 * (belt - sill)),
        (half, sill + 0.4 * (belt - sill)),
        (half * 0.995, sill + 0.7 * (belt - sill)),
        (half * 0.975, sill + 0.9 * (belt - sill)),
        (half * 0.925, belt),
        (roof_half + 0.0 * x, top - drop),
        (roof_half - 0.055 - 0.03 * (1 - cabin), top - 0.3 * drop),
        (roof_half * 0.5, top + 0.012 * cabin),
        (np.zeros_like(x), top + 0.02 * cabin),
    ]
    y = np.stack([a for a, _ in ring], axis=1)
    z = np.stack([b for _, b in ring], axis=1)
    return y, z


def _surface(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Vertices and triangles of both sides and the caps, which come last; where those begin.

    Args:
        x: (S,) metres of the rings.
        y: (S, C) of the left side.
        z: (S, C).
    """
    rows, columns = y.shape
    xs = np.broadcast_to(x[:, None], y.shape)
    left = np.stack([xs, y, z], axis=-1).reshape(-1, 3)
    right = left * [1, -1, 1]
    grid = grid_triangles(rows, columns)
    triangles = np.concatenate([grid, grid[:, ::-1] + len(left)])
    vertices = np.concatenate([left, right])
    caps = []
    for row, tail_end in ((0, True), (rows - 1, False)):
        a = row * columns + np.arange(columns - 1)
        b = a + len(left)
        pair = np.concatenate([np.stack([a, a + 1, b + 1], 1), np.stack([a, b + 1, b], 1)])
        caps.append(pair[:, ::-1] if tail_end else pair)
    caps_first = len(triangles)
    triangles = np.concatenate([triangles, *caps])
    return vertices, triangles, caps_first


def _clearance(height: float) -> float:
    """Metres from the road to the lowest edge of a body of a height."""
    return 0.115 * height if height < 1.8 else 0.1 * height


def _shell(body: Body, L: float, W: float, H: float) -> Mesh:
    """The body without wheels; paint is white, the actor's colour multiplies it."""
    clearance = _clearance(H)
    x = _stations(body, _ARCH * body.radius)
    top = PchipInterpolator(*body.top)(x) * H
    belt = np.minimum(PchipInterpolator(*body.belt)(x) * H, top - 0.015)
    y, z = _rings(body, (L, W, H), x, top, belt)
    vertices, triangles, caps_first = _surface(x * L, y, z)
    columns = y.shape[1]
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    centre = (a + b + c) / 3
    cell = np.arange(caps_first // 2) // 2
    column = np.concatenate([cell % (columns - 1)] * 2)
    station = np.concatenate([cell // (columns - 1)] * 2)
    middle = (x[:-1] + x[1:]) / 2
    material = np.full(len(triangles), int(Material.PAINT))
    colour = np.full((len(triangles), 3), 255)
    uvs = np.zeros((len(triangles), 3, 2))
    corner = vertices[triangles]

    def faces(on_shell: np.ndarray, *, on_caps: bool = False) -> np.ndarray:
        """(T,) of flags of the shell's triangles, and one for those of the caps."""
        return np.append(on_shell, np.full(len(triangles) - caps_first, on_caps))

    body_faces = faces((column >= 2) & (column <= 6), on_caps=True)
    share_x = centre[:, 0] / L
    flank = body_faces & (np.abs(normal[:, 1]) > 0.6)
    uvs[..., 0] = corner[..., 0] / L + 0.5
    uvs[..., 1] = (corner[..., 2] - clearance) / (0.68 * H - clearance)
    material[flank] = Material.CAR_SIDE
    for sign, kind in ((1, Material.CAR_FRONT), (-1, Material.CAR_REAR)):
        high = (0.64 if sign > 0 else 0.7) * H if not body.blind_sides else 0.5 * H
        facing = body_faces & (sign * normal[:, 0] > 0.32) & (centre[:, 2] < high)
        facing &= sign * share_x > 0.36
        material[facing] = kind
        uvs[facing, :, 0] = sign * corner[facing][..., 1] / (W * 0.97) + 0.5
        uvs[facing, :, 1] = (corner[facing][..., 2] - clearance) / (high - clearance)
    under = faces(column < 2)
    material[under], colour[under] = Material.BLACK, 12
    tall = ((top - belt)[:-1] + (top - belt)[1:]) / 2 > 0.2 * H
    glass_side = tall & (middle > body.pillars[0] - 0.02) & (middle < body.pillars[-1] + 0.055)
    pillar = np.zeros_like(glass_side)
    for p in body.pillars[1:-1] if not body.blind_sides else body.pillars[:-1]:
        pillar |= np.abs(middle - p) < 0.009
    in_screen = (middle > body.screen[1]) & (middle < body.screen[0])
    in_rear = (middle > body.rear_glass[0]) & (middle < body.rear_glass[1])
    if body.blind_sides:
        glass_side &= middle > body.pillars[1]
        in_rear &= False
    on_side = faces((column == 7) & glass_side[station])
    on_pillar = faces((column == 7) & pillar[station])
    on_end = faces((column >= 9) & (in_screen | in_rear)[station])
    glass = (on_side & ~on_pillar) | on_end
    material[glass], colour[glass] = Material.GLASS, 255
    low = 0.62 * H
    uvs[on_side, :, 0] = corner[on_side][..., 0] / 1.9 + 0.25
    uvs[on_end, :, 0] = corner[on_end][..., 1] / W + 0.5
    uvs[glass, :, 1] = np.clip((corner[glass][..., 2] - low) / (0.38 * H), 0, 1)
    material[on_pillar], colour[on_pillar] = Material.BLACK, 18
    return faceted(vertices, triangles, material, colour, uvs, crease=33)


_STYLES = (
    (Material.CAR_FRONT, Material.CAR_REAR, Material.RIM),
    (Material.CAR_FRONT_B, Material.CAR_REAR_B, Material.RIM_B),
    (Material.CAR_FRONT_C, Material.CAR_REAR_C, Material.RIM_C),
)


def _styled(mesh: Mesh, style: int) -> Mesh:
    """The mesh with one of the three makes' faces and rims."""
    table = np.arange(256, dtype=np.uint8)
    table[[int(m) for m in _STYLES[0]]] = [int(m) for m in _STYLES[style]]
    return replace(mesh, materials=table[mesh.materials])


def car(kind: str, rng: np.random.Generator) -> Asset:
    """A car or van of a body type in `BODIES`, its sizes varied by up to 5 percent."""
    body = BODIES[kind]
    L, W, H = (v * rng.uniform(0.96, 1.05) for v in body.size)
    pieces = [_shell(body, L, W, H)]
    joints = [np.zeros(3)]
    thickness = 0.2 if H < 1.8 else 0.23
    for k, axle in enumerate(body.wheels):
        for j, side in enumerate((1, -1)):
            at = np.array([axle * L, side * (W / 2 - thickness / 2 - 0.025), body.radius])
            pieces.append(wheel(body.radius, thickness, side, 1 + 2 * k + j, at))
            joints.append(at)
    belt = PchipInterpolator(*body.belt)(body.pillars[-1]) * H
    for side in (1, -1):
        at = np.array([body.pillars[-1] * L + 0.02, side * (W / 2 + 0.07), belt + 0.1])
        pieces.append(ellipsoid((0.075, 0.1, 0.075), at, Material.PAINT, (255, 255, 255)))
        arm = (body.pillars[-1] * L + 0.03, side * (W / 2 - 0.03), belt + 0.05)
        pieces.append(box((0.05, 0.16, 0.035), arm, Material.BLACK, (20, 20, 20)))
        back = np.array([[0, 0.07, -0.05], [0, -0.07, -0.05], [0, -0.07, 0.05], [0, 0.07, 0.05]])
        pieces.append(quad(back + at - [0.076, 0, 0], Material.GLASS))
    if kind in ("estate", "suv", "mpv") and rng.random() < 0.7:
        for side in (1, -1):
            y = side * W / 2 * body.roof_width * 0.93
            knots = [(-0.36, 0.985), (-0.34, 1.0), (0.0, 1.015), (0.02, 0.995)]
            rail = np.array([(x * L, y, z * H) for x, z in knots])
            pieces.append(tube(rail, 0.016, Material.METAL, (60, 62, 64), sides=5))
    if rng.random() < 0.5:
        whip = np.array([[-0.3 * L, 0, 0.985 * H], [-0.35 * L, 0, 1.0 * H + 0.16]])
        pieces.append(tube(whip, 0.008, Material.BLACK, (20, 20, 20), sides=4))
    mesh = _styled(grounded(merged(pieces), 0.9, 0.5), list(BODIES).index(kind) % 3)
    low, high = mesh.bounds
    category = "van" if kind in ("minibus", "panel_van") else "car"
    size = (float(high[0] - low[0]), float(W), float(high[2] - low[2]))
    return Asset(kind, category, mesh, size, Motion.WHEELS, np.stack(joints), body.radius)
