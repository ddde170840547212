"""Pedestrians and cyclists in rigid limbs."""

from __future__ import annotations

import numpy as np

from amodal_core.synthetic.assets import Asset, Motion
from amodal_core.synthetic.materials import Material
from amodal_core.synthetic.mesh import (
    Mesh,
    Tone,
    Vector,
    box,
    ellipsoid,
    faceted,
    grid_triangles,
    grounded,
    merged,
    tones,
    tube,
)

SKINS = tones("e0b698 ce9e7e ac7c5c 78523c 563a2c")
HAIR = tones("1c1612 3c2a1c 6e5434 a88c5c 8c8a88")
CLOTHES = tones(
    "1e2026 2c3242 46484c 1c2854 781e22 b4b0a8 e2e0dc 3c543c 967854 c43c32 3c6ea0 d2b446 604064"
)
TROUSERS = tones("222a42 323e60 1a1a1c 5c564c 786e5c 404246")
Finish = tuple[Material, Tone]


def _pick(rng: np.random.Generator, tones: tuple[Tone, ...]) -> Tone:
    tone = np.asarray(tones[rng.integers(len(tones))]) * rng.uniform(0.85, 1.12)
    r, g, b = np.clip(tone, 6, 250).astype(int)
    return int(r), int(g), int(b)


def _lofted(
    rings: list[tuple[float, float, float, float]], material: int, colour: Tone, part: int
) -> Mesh:
    """An upright body of elliptic rings (z, half depth x, half width y, shift x)."""
    sides, exponent = 12, 0.85
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    z, dx, wy, sx = (np.array(column)[:, None] for column in zip(*rings, strict=True))
    cos, sin = np.cos(angle), np.sin(angle)
    x = sx + dx * np.sign(cos) * np.abs(cos) ** exponent
    y = wy * np.sign(sin) * np.abs(sin) ** exponent
    vertices = np.stack([x, y, np.broadcast_to(z, x.shape)], axis=-1).reshape(-1, 3)
    uv = np.stack([vertices[:, 1] * 1.5, vertices[:, 2] * 1.5], axis=1)
    triangles = grid_triangles(len(rings), sides, wrap=True)
    k = np.arange(1, sides - 1)
    top = (len(rings) - 1) * sides
    caps = [
        np.stack([np.zeros_like(k), k + 1, k], 1),
        np.stack([np.zeros_like(k), k, k + 1], 1) + top,
    ]
    triangles = np.concatenate([triangles, *caps])
    return faceted(vertices, triangles, material, colour, uv, crease=70, part=part)


def _limb(a: np.ndarray, b: np.ndarray, radii: Vector, finish: Finish, part: int) -> Mesh:
    path = a + (b - a) * np.linspace(0, 1, len(radii))[:, None]
    return tube(path, np.array(radii), *finish, sides=8, part=part, texel=0.6)


def _figure(
    rng: np.random.Generator, h: float, parts: dict[str, int], *, helmet: bool
) -> tuple[list[Mesh], dict]:
    """Limbs of a standing person of height h; of arms and legs the left part comes first."""
    skin, shirt, legs = _pick(rng, SKINS), _pick(rng, CLOTHES), _pick(rng, TROUSERS)
    hair, shoe = _pick(rng, HAIR), _pick(rng, ((24, 22, 22), (60, 44, 34), (190, 190, 188)))
    build = rng.uniform(0.9, 1.15)
    hip, shoulder, knee, ankle = 0.52 * h, 0.812 * h, 0.285 * h, 0.045 * h
    wide, deep = 0.118 * h * build, 0.068 * h * build
    long_coat = (not helmet) and rng.random() < 0.3
    skirt = (not helmet) and (not long_coat) and rng.random() < 0.15
    base = (0.36 if long_coat else 0.47) * h
    torso = [
        (base, deep * (1.12 if long_coat else 0.98), wide * (0.98 if long_coat else 0.88), 0.0),
        (0.53 * h, deep * 1.08, wide * 0.92, 0.0),
        (0.6 * h, deep * 0.98, wide * 0.84, 0.005),
        (0.7 * h, deep * 1.12, wide * 0.97, 0.008),
        (0.77 * h, deep * 1.06, wide * 1.1, 0.0),
        (0.803 * h, deep * 0.92, wide * 1.08, -0.004),
        (0.826 * h, deep * 0.72, wide * 0.78, -0.006),
        (0.848 * h, deep * 0.52, wide * 0.4, -0.004),
    ]
    meshes = [_lofted(torso, Material.CLOTH, shirt, parts["torso"])]
    if not long_coat:
        pelvis = [
            (0.45 * h, deep * 0.85, wide * 0.78, 0.0),
            (0.5 * h, deep * 1.05, wide * 0.9, -0.004),
            (0.55 * h, deep * 0.98, wide * 0.86, 0.0),
        ]
        if skirt:
            pelvis = [(0.33 * h, deep * 1.35, wide * 1.1, 0.0), *pelvis[1:]]
        meshes.append(_lofted(pelvis, Material.CLOTH, legs, parts["torso"]))
    bare, cloth = (Material.SKIN, skin), (Material.CLOTH, shirt)

    def ball(part: int, radii: Vector, at: Vector, finish: Finish, sides: int = 10) -> None:
        meshes.append(ellipsoid(radii, at, *finish, part=part, sides=sides))

    neck = np.array([[0.0, 0, 0.83 * h], [0.008, 0, 0.885 * h]])
    meshes.append(tube(neck, 0.032 * h, *bare, sides=8, part=parts["torso"]))
    on_head, x, z = parts["head"], 0.012 * h, 0.93 * h
    ball(on_head, (0.056 * h, 0.045 * h, 0.066 * h), (x, 0, z), bare, 12)
    cap = (Material.PAINT, _pick(rng, CLOTHES)) if helmet else (Material.CLOTH, hair)
    top_of = ((0.062 if helmet else 0.06) * h, 0.05 * h, 0.056 * h)
    ball(on_head, top_of, (x - 0.012 * h, 0, z + 0.017 * h), cap, 12)
    if not helmet and rng.random() < 0.35:
        long_hair = (0.04 * h, 0.052 * h, 0.085 * h)
        ball(on_head, long_hair, (x - 0.035 * h, 0, 0.895 * h), (Material.CLOTH, hair))
    nose = (0.014 * h, 0.01 * h, 0.014 * h)
    ball(on_head, nose, (x + 0.055 * h, 0, z - 0.006 * h), bare, 6)
    forearm = cloth if rng.random() < 0.65 else bare
    trousers = bare if skirt else (Material.CLOTH, legs)
    thick, leg = 0.033 * h * build, 0.05 * h * build
    joints = {"neck": np.array([0, 0, 0.85 * h])}
    for j, side in enumerate((1, -1)):
        s = np.array([0, side * wide * 1.06, shoulder])
        e = np.array([-0.01, side * (wide * 1.2 + 0.015), 0.63 * h])
        w = np.array([0.015, side * (wide * 1.22 + 0.015), 0.475 * h])
        radii = thick * np.array([0.62, 1.02, 1.1, 0.96, 0.82])
        meshes.append(_limb(s - [0, side * 0.012, 0.006 * h], e, radii, cloth, parts["arm"] + j))
        radii = thick * np.array([0.8, 0.8, 0.55])
        meshes.append(_limb(e + np.array([0, 0, 0.01]), w, radii, forearm, parts["fore"] + j))
        hand = (0.02 * h, 0.012 * h, 0.032 * h)
        ball(parts["fore"] + j, hand, w - [0, 0, 0.026 * h], bare, 8)
        top = np.array([0, side * wide * 0.5, hip])
        mid = np.array([0.005, side * wide * 0.46, knee])
        low = np.array([-0.01, side * wide * 0.44, ankle])
        radii = leg * np.array([0.9, 1.02, 0.92, 0.74])
        meshes.append(_limb(top, mid - [0, 0, 0.01], radii, trousers, parts["thigh"] + j))
        radii = leg * np.array([0.72, 0.78, 0.62, 0.5])
        meshes.append(_limb(mid + np.array([0, 0, 0.012]), low, radii, trousers, parts["shin"] + j))
        foot = low + np.array([0.035 * h, 0, -ankle * 0.45])
        ball(
            parts["shin"] + j, (0.075 * h, 0.026 * h, ankle * 0.62), foot, (Material.CLOTH, shoe), 8
        )
        places = {"shoulder": s, "elbow": e, "hip": top, "knee": mid, "wrist": w, "ankle": low}
        joints |= {f"{name}{j}": at for name, at in places.items()}
    if not helmet and rng.random() < 0.3:
        rucksack = (Material.CLOTH, _pick(rng, CLOTHES))
        ball(parts["torso"], (0.09, 0.15, 0.23), (-deep - 0.07, 0, 0.7 * h), rucksack)
    elif not helmet and rng.random() < 0.35:
        bag = (Material.CLOTH, _pick(rng, CLOTHES))
        at = (0.0, wide * 1.22 + 0.1, 0.38 * h)
        meshes.append(box((0.26, 0.08, 0.2), at, *bag, part=parts["fore"]))
    return meshes, joints


WALK_PARTS = {"torso": 0, "head": 1, "arm": 2, "fore": 4, "thigh": 6, "shin": 8}
_SIDES = [f"{name}{j}" for name in ("shoulder", "elbow", "hip", "knee") for j in (0, 1)]
WALK_JOINTS = ("neck", *_SIDES)


def pedestrian(rng: np.random.Generator) -> Asset:
    """A grown person or a child on foot; joints as in `WALK_JOINTS`, one a part from 1."""
    child = rng.random() < 0.12
    h = rng.uniform(1.15, 1.45) if child else rng.normal(1.73, 0.07)
    meshes, joints = _figure(rng, h, WALK_PARTS, helmet=False)
    mesh = grounded(merged(meshes), 0.7, 0.6)
    low, high = mesh.bounds
    size = (0.8, float(high[1] - low[1]), float(h))
    rows = np.stack([joints[n] for n in WALK_JOINTS])
    return Asset("child" if child else "adult", "pedestrian", mesh, size, Motion.WALK, rows)


CYCLE_PARTS = {"torso": 3, "head": 4, "arm": 5, "fore": 7, "thigh": 9, "shin": 11}
CRANK = np.array([-0.08, 0.0, 0.29])
CRANK_LENGTH = 0.165
SADDLE = np.array([-0.27, 0.0, 0.93])
GRIP = np.array([0.42, 0.22, 1.02])
CYCLE_WHEEL = 0.34
# rows of `Asset.joints` of a cyclist
CYCLE_JOINTS = ("hip0", "neck", *_SIDES, "wrist0", "ankle0")


def cyclist(rng: np.random.Generator) -> Asset:
    """A rider on a bicycle: one object. Part 0 frame, 1-2 wheels, 3-12 rider, 13 cranks."""
    h = rng.normal(1.74, 0.06)
    meshes, joints = _figure(rng, h, CYCLE_PARTS, helmet=rng.random() < 0.55)
    frame = _pick(rng, ((30, 30, 34), (150, 30, 30), (40, 70, 130), (180, 180, 182), (40, 90, 60)))
    r = CYCLE_WHEEL
    rear, front = np.array([-0.52, 0, r]), np.array([0.54, 0, r])
    head_low, head_top = np.array([0.36, 0, 0.66]), np.array([0.3, 0, 0.9])

    def bar(*points: Vector, radius: float = 0.019, tone: Tone = frame, part: int = 0) -> Mesh:
        return tube(np.array(points), radius, Material.METAL, tone, sides=6, part=part)

    y, stem = np.array([0, 1.0, 0]), np.array([0.36, 0, 1.0])
    meshes += [
        bar(CRANK, head_low),
        bar(CRANK, SADDLE - [0, 0, 0.06]),
        bar(SADDLE - [-0.04, 0, 0.16], head_top),
        bar(head_low, head_top + np.array([-0.02, 0, 0.08])),
        bar(head_top + np.array([-0.02, 0, 0.08]), stem, radius=0.014),
        bar(stem - 0.27 * y, [0.4, 0, 1.03], stem + 0.27 * y, radius=0.014, tone=(40, 40, 42)),
        ellipsoid((0.14, 0.075, 0.035), SADDLE, Material.CLOTH, (24, 22, 22)),
        box((0.05, 0.06, 0.05), (-0.6, 0, 0.72), Material.LAMP, (170, 20, 20)),
        box((0.4, 0.1, 0.012), (-0.52, 0, 0.74), Material.METAL, (70, 70, 72)),
    ]
    for s in (1, -1):
        crank = [CRANK + 0.06 * s * y, CRANK + 0.07 * s * y + [CRANK_LENGTH * s, 0, 0]]
        pedal = CRANK + 0.11 * s * y + [CRANK_LENGTH * s, 0, 0]
        meshes += [
            bar(CRANK + 0.04 * s * y, rear + 0.05 * s * y, radius=0.011),
            bar(SADDLE - [0, -0.03 * s, 0.16], rear + 0.05 * s * y, radius=0.011),
            bar(head_low, front + 0.05 * s * y, radius=0.014),
            bar(*crank, radius=0.012, tone=(90, 90, 92), part=13),
            box((0.1, 0.09, 0.025), pedal, Material.BLACK, (30, 30, 30), part=13),
        ]
    for part, hub in ((1, rear), (2, front)):
        angle = np.linspace(0, 2 * np.pi, 25)
        ring = hub + np.stack([np.cos(angle), 0 * angle, np.sin(angle)], axis=1) * (r - 0.02)
        meshes.append(tube(ring, 0.02, Material.TYRE, (24, 24, 25), sides=6, caps=False, part=part))
        for a in np.linspace(0, np.pi, 7, endpoint=False):
            reach = np.array([np.cos(a), 0, np.sin(a)]) * (r - 0.03)
            ends = np.stack([hub - reach, hub + reach])
            spoke = tube(
                ends, 0.004, Material.METAL, (150, 150, 152), sides=3, caps=False, part=part
            )
            meshes.append(spoke)
    mesh = grounded(merged(meshes), 0.7, 0.6)
    rows = np.stack([joints[n] for n in CYCLE_JOINTS])
    size = (1.78, 0.62, float(0.93 + 0.5 * h + 0.05))
    return Asset("cyclist", "cyclist", mesh, size, Motion.CYCLE, rows, r)
