"""Things that stand along a street: trees, hedges, houses, poles, signs, fences, bins."""

from __future__ import annotations

import numpy as np

from amodal_core.synthetic.materials import Material
from amodal_core.synthetic.mesh import (
    Mesh,
    box,
    faceted,
    grid_triangles,
    merged,
    pose,
    quad,
    tones,
    tube,
)


def tree(rng: np.random.Generator, *, height: float = 8.0, far: bool = False) -> Mesh:
    """A deciduous tree: tapered trunk and boughs, leaf cards shaded as one crown."""
    crown_low = height * rng.uniform(0.22, 0.34)
    spread = height * rng.uniform(0.24, 0.34)
    centre = np.array([0, 0, (crown_low + height) / 2])
    reach = np.array([spread, spread, (height - crown_low) / 2])
    lean = rng.normal(0, 0.02, 2)
    z = np.linspace(0, height * 0.72, 6)
    x, y = (slope * z + rng.normal(0, 0.03, 6) for slope in lean)
    trunk = np.stack([x, y, z], 1)
    thick = height * rng.uniform(0.016, 0.024)
    radii = thick * np.array([1.35, 1.0, 0.85, 0.65, 0.45, 0.2])
    bark, sides = (Material.BARK, (210, 205, 200)), 5 if far else 8
    pieces = [tube(trunk, radii, *bark, sides=sides, caps=False, texel=1.2)]
    clusters = []
    for _ in range(0 if far else 7):
        root = trunk[rng.integers(2, 5)]
        angle, up = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.9)
        tip = root + np.array([np.cos(angle), np.sin(angle), up]) * spread * rng.uniform(0.6, 0.9)
        bend = (root + tip) / 2 + [0, 0, -0.06 * spread]
        path, radii = np.stack([root, bend, tip]), np.array([0.4, 0.25, 0.1]) * thick
        pieces.append(tube(path, radii, Material.BARK, (200, 195, 190), sides=5, caps=False))
        clusters.append(tip)
    count = 26 if far else 60
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    blobs = centre + direction * reach * rng.uniform(0.45, 0.95, (count, 1)) ** 0.6
    blobs = np.concatenate([blobs, *([np.stack(clusters)] if clusters else [])])
    blobs = blobs[blobs[:, 2] > crown_low * 0.8]
    per = 2 if far else 4
    at = np.repeat(blobs, per, axis=0) + rng.normal(0, 0.16 * spread, (len(blobs) * per, 3))
    size = spread * rng.uniform(0.24, 0.44, len(at)) * (1.5 if far else 1.0)
    material = Material.LEAVES if rng.random() < 0.5 else Material.LEAVES_B
    cards = leaf_cards(rng, at, size, centre, reach, material)
    hue = rng.normal(1, 0.1, 3) * rng.uniform(0.8, 1.15) * [1.0, 1.0, 0.9]
    if rng.random() < 0.18:
        hue = hue * [1.35, 1.08, 0.7]  # autumn
    return merged([*pieces, cards.tinted(hue)])


def leaf_cards(
    rng: np.random.Generator,
    at: np.ndarray,
    size: np.ndarray,
    centre: np.ndarray,
    reach: np.ndarray,
    material: int,
) -> Mesh:
    """Randomly turned cards of leaves; normals point out of the crown: it shades as one body."""
    n = len(at)
    a = rng.standard_normal((n, 3))
    a[:, 2] *= 0.5
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = np.cross(a, rng.standard_normal((n, 3)))
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    half = size[:, None, None] * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])[None]
    positions = at[:, None] + half[..., :1] * a[:, None] + half[..., 1:] * b[:, None]
    flat = positions.reshape(-1, 3)
    outward = (flat - centre) / reach
    depth = np.clip(np.linalg.norm(outward, axis=1), 0, 1.3)
    normals = outward + rng.normal(0, 0.22, flat.shape)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    up = np.clip(0.5 + 0.5 * outward[:, 2], 0, 1)
    ao = np.clip(55 + 150 * np.clip(depth, 0, 1) ** 2 * (0.55 + 0.45 * up) + 50 * up, 30, 255)
    tone = np.repeat(rng.uniform(170, 255, n), 4)
    colours = np.stack([tone, tone, tone, ao], axis=1).astype(np.uint8)
    base = np.arange(n)[:, None] * 4
    triangles = np.concatenate([base + np.array([0, 1, 2]), base + np.array([0, 2, 3])])
    uvs = np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32), (n, 1))
    return Mesh(
        flat.astype(np.float32),
        normals.astype(np.float32),
        uvs,
        colours,
        np.full(4 * n, material, np.uint8),
        np.zeros(4 * n, np.uint8),
        triangles.astype(np.int32),
    )


def bush(rng: np.random.Generator, radius: float, height: float) -> Mesh:
    """A shrub of leaf cards over a dark core."""
    count = 46
    direction = rng.standard_normal((count, 3))
    direction[:, 2] = np.abs(direction[:, 2])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    reach = np.array([radius, radius, height])
    at = direction * reach * rng.uniform(0.55, 0.95, (count, 1))
    at[:, 2] += 0.1 * height
    size, centre = radius * rng.uniform(0.28, 0.5, count), np.array([0, 0, height * 0.25])
    cards = leaf_cards(rng, at, size, centre, reach, Material.LEAVES_B)
    return cards.tinted(rng.normal(1, 0.1, 3) * 0.95)


def hedge(rng: np.random.Generator, length: float, height: float, depth: float = 0.9) -> Mesh:
    """A clipped hedge along x with a fringe of leaves."""
    body = (length, depth * 0.86, height * 0.95), (0, 0, height * 0.475)
    core = box(*body, Material.HEDGE, (235, 240, 230), texel=1.4)
    n = int(length * 13)
    x = rng.uniform(-0.5, 0.5, n) * length
    y = rng.choice([-0.5, 0.5], n) * depth * 0.92
    at = np.stack([x, y, rng.uniform(0.15, 1, n) * height], 1)
    top = rng.random(n) < 0.4
    at[top, 1] = rng.uniform(-0.5, 0.5, int(top.sum())) * depth
    at[top, 2] = height
    size, centre = rng.uniform(0.14, 0.26, n), np.array([0, 0, 0.3 * height])
    reach = np.array([length, depth * 0.5, height * 0.8])
    return merged([core, leaf_cards(rng, at, size, centre, reach, Material.LEAVES_B)])


def pole(rng: np.random.Generator, height: float = 7.5) -> Mesh:
    """A street lamp with an arm towards +y."""
    grey = int(rng.integers(84, 140))
    finish = Material.METAL, (grey, grey, grey + 3)
    path = np.array([[0, 0, 0], [0, 0, 1.0], [0, 0, 1.05], [0, 0, height]])
    mast = tube(path, [0.1, 0.1, 0.075, 0.05], *finish, sides=8)
    path = np.array([[0, 0, height], [0, 0.5, height + 0.25], [0, 1.6, height + 0.3]])
    arm = tube(path, 0.035, *finish, sides=6)
    head = box((0.24, 0.7, 0.12), (0, 1.8, height + 0.28), Material.METAL, (120, 122, 124))
    return merged([mast, arm, head])


def mast(rng: np.random.Generator) -> Mesh:
    """A bare mast (tram wires, flags), 6-9 m."""
    height = rng.uniform(6, 9)
    tone = [(70, 74, 72), (110, 112, 110), (58, 76, 66)][rng.integers(3)]
    return tube(np.array([[0, 0, 0], [0, 0, height]]), [0.12, 0.08], Material.METAL, tone, sides=10)


def sign(rng: np.random.Generator, *, facing: float = np.pi) -> Mesh:
    """A traffic sign on a post; its face looks along `facing` (radians about +z)."""
    height = rng.uniform(2.2, 2.7)
    path = np.array([[0, 0, 0], [0, 0, height + 0.35]])
    plates = [tube(path, 0.035, Material.METAL, (150, 152, 154), sides=6)]
    for k in range(int(rng.integers(1, 3))):
        cell = int(rng.integers(8))
        u, v = cell % 4 / 4, 1 - (cell // 4 + 1) / 4
        square = np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]]) * 0.33
        front = square + np.array([0.045, 0, height - 0.72 * k])
        plates.append(quad(front, Material.SIGN, uv=(u, v, u + 0.25, v + 0.25)))
        back = front[::-1] - [0.01, 0, 0]
        plates.append(quad(back, Material.SIGN, (60, 60, 62), uv=(u, v + 0.25, u + 0.25, v)))
    return merged(plates).placed(pose(yaw=facing))


def traffic_light(lit: str, height: float = 3.3) -> Mesh:
    """A signal head on a post that faces +x."""
    post = np.array([[0, 0, 0], [0, 0, height + 0.4]])
    pieces = [tube(post, 0.06, Material.METAL, (92, 96, 96), sides=8)]
    case = Material.BLACK, (18, 19, 19)
    pieces.append(box((0.22, 0.34, 0.98), (0.12, 0, height), *case))
    lamps = {"red": (250, 30, 24), "amber": (250, 160, 20), "green": (30, 240, 120)}
    for k, (name, tone) in enumerate(lamps.items()):
        on = name == lit
        material, colour = (
            Material.LAMP if on else Material.BLACK,
            np.array(tone) // (1 if on else 7),
        )
        at = np.array([[0.232, 0, height + 0.3 - 0.3 * k], [0.24, 0, height + 0.3 - 0.3 * k]])
        pieces.append(tube(at, 0.1, material, colour, sides=12))
        pieces.append(box((0.16, 0.24, 0.02), (0.3, 0, height + 0.42 - 0.3 * k), *case))
    return merged(pieces)


def bin_or_box(rng: np.random.Generator) -> Mesh:
    """A wheelie bin, a switch box or a post box."""
    kind = rng.integers(3)
    if kind == 0:
        tone = np.array(BINS[rng.integers(4)])
        body = box((0.52, 0.56, 0.95), (0, 0, 0.55), Material.METAL, tone)
        return merged([body, box((0.58, 0.6, 0.07), (0, 0, 1.05), Material.METAL, tone // 2)])
    if kind == 1:
        return box((0.45, 1.1, 1.25), (0, 0, 0.62), Material.CONCRETE, (140, 142, 136))
    post_box = box((0.32, 0.4, 0.5), (0, 0, 1.1), Material.PAINT, (236, 190, 20))
    return merged([post_box, box((0.1, 0.1, 0.9), (0, 0, 0.45), Material.METAL, (90, 90, 90))])


def fence(rng: np.random.Generator, length: float) -> Mesh:
    """A fence or low wall along x: bars, boards or masonry."""
    kind = rng.integers(3)
    if kind == 0:
        u, tone = length / 2, (190, 188, 184)
        corners = np.array([[-u, 0, 0], [u, 0, 0], [u, 0, 1.35], [-u, 0, 1.35]])
        front = quad(corners, Material.MESH_FENCE, uv=(0, 0, u, 1))
        back = quad(corners[::-1], Material.MESH_FENCE, uv=(0, 1, u, 0))
        plinth = box((length, 0.16, 0.25), (0, 0, 0.12), Material.CONCRETE, tone, texel=2)
        return merged([front, back, plinth])
    if kind == 1:
        return box((length, 0.06, 1.6), (0, 0, 0.8), Material.WOOD, (220, 214, 205), texel=2)
    finish = Material.PLASTER if rng.random() < 0.5 else Material.BRICK, (196, 190, 180)
    wall = box((length, 0.26, 1.0), (0, 0, 0.5), *finish, texel=3)
    cope = (length, 0.34, 0.07), (0, 0, 1.03)
    return merged([wall, box(*cope, Material.CONCRETE, (170, 168, 162), texel=2)])


def guard_rail(length: float) -> Mesh:
    """A steel crash barrier along x."""
    section = np.array([[0, 0.48], [0.06, 0.53], [0.0, 0.6], [0.06, 0.68], [0.0, 0.75]])
    ends = (np.insert(section, 0, x, axis=1) for x in (-length / 2, length / 2))
    vertices, faces = np.concatenate([*ends]), grid_triangles(2, 5)
    tone = (150, 152, 150)
    sides = (faces, faces[:, ::-1])
    rail = merged([faceted(vertices, order, Material.METAL, tone) for order in sides])
    posts = [
        box((0.07, 0.1, 0.7), (x, -0.06, 0.35), Material.METAL, (120, 122, 120))
        for x in np.arange(-length / 2 + 1, length / 2, 2.0)
    ]
    return merged([rail, *posts])


_FACADES = (Material.FACADE_A, Material.FACADE_B, Material.FACADE_C, Material.FACADE_D)
WALLS = dict(zip(_FACADES, (12.0, 12.0, 15.0, 11.0), strict=True))  # metres that each texture spans
TINTS = tones("fffaf0 f0e2c4 e2d6ca d6c4b0 ecd2be cdd4d8 f4ecd6 beb0a4")
ROOFS = tones("ffffff beaaa5 78767a e6beaa")
BINS = tones("242624 283e2c 3c2e22 2c385a")


def building(
    rng: np.random.Generator, width: float, depth: float, floors: int, *, shops: bool, flat: bool
) -> Mesh:
    """A house: its front looks along +y, its base is centred on the origin.

    Textured walls of 3 m a floor, a ground floor with shops or a plinth, a pitched or flat roof
    with eaves, and chimneys.
    """
    styles = list(WALLS)
    style = styles[rng.integers(len(styles) if flat else 2)] if rng.random() < 0.75 else styles[3]
    tint = TINTS[rng.integers(len(TINTS))]
    ground = 3.6 if shops else 0.5
    top = ground + 3.0 * floors
    bay = WALLS[style]
    w, d = width / 2, depth / 2
    walls = [((-w, d), (w, d)), ((w, d), (w, -d)), ((w, -d), (-w, -d)), ((-w, -d), (-w, d))]
    pieces = []
    for k, (a, b) in enumerate(walls):
        length = float(np.hypot(b[0] - a[0], b[1] - a[1]))
        bays = max(1, round(length / bay * 4)) / 4
        upper = np.array([[*b, ground], [*a, ground], [*a, top], [*b, top]])
        plain = k in (1, 3) and rng.random() < 0.5
        side_wall = Material.BRICK if style == Material.FACADE_B else Material.PLASTER
        material = side_wall if plain else style
        uv = (0, 0, length / 3, top / 3) if plain else (0, 0, bays, floors / 3)
        pieces.append(quad(upper, material, tint, uv))
        lower = np.array([[*b, 0], [*a, 0], [*a, ground], [*b, ground]])
        kind = Material.SHOP if shops and k == 0 else Material.CONCRETE
        uv = (0, 0, length / (12 if shops else 3), 1)
        pieces.append(quad(lower, kind, (215, 212, 206), uv))
    # darker at the foot: light reaches a wall's base from half the sky only
    for piece in pieces:
        low = piece.positions[:, 2] < 0.1
        piece.colours[low, 3] = 170
    over = 0.35
    if flat:
        slab = (width + 0.3, depth + 0.3, 0.5), (0, 0, top + 0.2)
        pieces.append(box(*slab, Material.CONCRETE, (176, 174, 170), texel=3))
        spots = [
            (rng.uniform(-0.35, 0.35) * width, rng.uniform(-0.3, 0.3) * depth, top + 1.2)
            for _ in range(int(rng.integers(1, 4)))
        ]
        pieces += [box((2.4, 2.0, 1.6), spot, Material.METAL, (150, 150, 150)) for spot in spots]
    else:
        ridge = top + depth * rng.uniform(0.3, 0.45)
        W, D = w + 0.2, d + over
        eaves = top - over * (ridge - top) / d
        front = np.array([[-W, D, eaves], [W, D, eaves], [W, 0, ridge], [-W, 0, ridge]])
        back = np.array([[-W, -D, eaves], [W, -D, eaves], *front[2:]])
        slope = float(np.hypot(D, ridge - eaves))
        tone = ROOFS[rng.integers(4)]
        for half in (front[[1, 0, 3, 2]], back):
            pieces.append(quad(half, Material.ROOF, tone, (0, 0, 2 * W / 4, slope / 4)))
        soffit = front - [0, 0, 0.14]
        pieces.append(quad(soffit, Material.WOOD, (150, 140, 130), (0, 0, W, 2)))
        for x, order in ((w, (0, 1, 2)), (-w, (0, 2, 1))):
            gable = np.array([[x, -d, top], [x, d, top], [x, 0, ridge - 0.15]])
            plaster, triangle = (Material.PLASTER, tint), np.array([order])
            pieces.append(faceted(gable, triangle, *plaster, gable[:, [1, 2]] / 3))
        at = (rng.uniform(-0.3, 0.3) * width, rng.uniform(-0.3, 0.3) * d, ridge - 0.1)
        pieces.append(box((0.6, 0.7, 1.6), at, Material.BRICK, (200, 180, 170), texel=2))
        gutter = np.array([[-W, D + 0.02, eaves - 0.02], [W, D + 0.02, eaves - 0.02]])
        pieces.append(tube(gutter, 0.07, Material.METAL, (110, 104, 98), sides=6))
        pipe = np.array([[w - 0.3, d + 0.06, eaves], [w - 0.3, d + 0.06, 0]])
        pieces.append(tube(pipe, 0.05, Material.METAL, (110, 104, 98), sides=6))
    if not shops and rng.random() < 0.8:
        x = rng.uniform(-0.3, 0.3) * width
        door = (1.5, 0.12, 2.4), (x, d + 0.02, 1.2)
        pieces.append(box(*door, Material.WOOD, (120, 96, 80), texel=2))
        pieces.append(box((2.2, 1.0, 0.12), (x, d + 0.45, 2.7), Material.CONCRETE, (150, 148, 144)))
        pieces.append(box((1.9, 0.7, 0.3), (x, d + 0.35, 0.1), Material.CONCRETE, (170, 168, 164)))
    return merged(pieces)


def bollard() -> Mesh:
    """A short post that keeps cars off the sidewalk."""
    path = np.array([[0, 0, 0], [0, 0, 0.85], [0, 0, 0.93]])
    return tube(path, [0.055, 0.055, 0.03], Material.METAL, (64, 66, 68), sides=8)
