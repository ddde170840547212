"""What stands beside a street: houses, gardens, trees, furniture, and the horizon."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from amodal_core.synthetic import scenery
from amodal_core.synthetic.materials import Material
from amodal_core.synthetic.mesh import Mesh, pose, quad
from amodal_core.synthetic.street import Street
from amodal_core.synthetic.traffic import signal_of

Piece = tuple[float, Mesh]


def _put(street: Street, mesh: Mesh, s: float, d: float, turn: float = 0, z: float = 0.12) -> Piece:
    x, y, heading = street.curve.at(s, d)
    return s, mesh.placed(pose(float(x), float(y), z, float(heading) + turn))


def houses(rng: np.random.Generator, street: Street, low: float, high: float) -> Iterator[Piece]:
    """Rows of houses along the street and the first ones of every crossing."""
    gaps = {"urban": 0.06, "residential": 0.55, "arterial": 0.7}[street.kind]
    for side in (1, -1):
        s = low + rng.uniform(0, 8)
        while s < high:
            width = rng.uniform(10, 17) if street.kind != "residential" else rng.uniform(9, 13)
            depth = rng.uniform(9, 13)
            tall = {"urban": (2, 6), "residential": (1, 3), "arterial": (2, 6)}[street.kind]
            centre = s + width / 2
            if any(abs(centre - j.s) < j.half + 3.2 + width / 2 for j in street.junctions):
                s += 2.0
                continue
            if rng.random() > gaps:
                flat = street.kind != "residential" and rng.random() < 0.4
                floors = int(rng.integers(*tall))
                shops = street.kind == "urban" and rng.random() < 0.55
                house = scenery.building(rng, width, depth, floors, shops=shops, flat=flat)
                turn = 0.0 if side < 0 else np.pi
                yield _put(street, house, centre, side * (street.front + depth / 2), turn)
            elif street.kind != "urban":
                for _ in range(int(rng.integers(1, 4))):
                    tree = scenery.tree(rng, height=rng.uniform(7, 13), far=True)
                    at = centre + rng.uniform(-5, 5), side * (street.front + rng.uniform(2, 14))
                    yield _put(street, tree, *at, rng.uniform(0, 6))
            adjoining = street.kind == "urban" and rng.random() < 0.8
            s += width + (0.0 if adjoining else rng.uniform(3, 9))
    for j in street.junctions:
        if not low - 10 < j.s < high:
            continue
        for side in (1, -1):
            for bank in (1, -1):
                d = street.front + rng.uniform(14, 18)
                while d < 75:
                    width, depth, floors = rng.uniform(10, 15), 10.0, int(rng.integers(2, 5))
                    flat = rng.random() < 0.3
                    house = scenery.building(rng, width, depth, floors, shops=False, flat=flat)
                    at = j.s + bank * (j.half + 3.6 + depth / 2), side * (d + width / 2)
                    yield _put(street, house, *at, bank * np.pi / 2)
                    d += width + rng.uniform(0.2, 6)


def planting(rng: np.random.Generator, street: Street, low: float, high: float) -> Iterator[Piece]:
    """Street trees, hedges, fences and shrubs."""
    edge = street.kerb + street.sidewalk
    for side in (1, -1):
        if street.kind == "urban":
            trees = rng.random() < 0.6
            spacing = rng.uniform(9, 16)
            at = street.kerb + 0.55
        elif street.kind == "residential":
            trees, spacing, at = rng.random() < 0.7, rng.uniform(9, 18), edge + 1.6
        else:
            trees, spacing, at = True, rng.uniform(5, 9), edge + rng.uniform(2.0, 5.0)
        if trees:
            pool = [scenery.tree(rng, height=rng.uniform(5.5, 11)) for _ in range(4)]
            for s in np.arange(low + rng.uniform(0, spacing), high, spacing):
                s = float(s + rng.normal(0, 0.08 * spacing))
                if street.near_junction(s, 5.0) or rng.random() < 0.12:
                    continue
                tree, d = pool[rng.integers(4)], side * (at + rng.normal(0, 0.08))
                yield _put(street, tree, s, d, rng.uniform(0, 6.28), 0.1)
        if street.kind == "residential":
            s = low
            while s < high:
                length = rng.uniform(6, 14)
                if not street.near_junction(s + length / 2, length / 2 + 2):
                    if rng.random() < 0.5:
                        piece = scenery.hedge(rng, length, rng.uniform(0.9, 2.0))
                    else:
                        piece = scenery.fence(rng, length)
                    yield _put(street, piece, s + length / 2, side * (edge + 0.6))
                s += length + rng.choice([0.5, 3.2])
        if street.kind == "arterial":
            rail = rng.random() < 0.55
            for s in np.arange(low, high, 12.0):
                if rail and not street.near_junction(s + 6, 9):
                    at, turn = side * (street.kerb + 0.5), np.pi if side > 0 else 0.0
                    yield _put(street, scenery.guard_rail(12.0), s + 6, at, turn)
                for _ in range(5):
                    d = edge + rng.uniform(1, 7)
                    if not street.near_junction(s, 8):
                        bush = scenery.bush(rng, rng.uniform(0.8, 1.7), rng.uniform(0.8, 2.2))
                        yield _put(street, bush, s + rng.uniform(0, 12), side * d)
    if street.median > 2.4 and not street.tram:
        for s in np.arange(low, high, rng.uniform(3.5, 9)):
            if not street.near_junction(s, 4):
                bush = scenery.bush(rng, 0.7, rng.uniform(0.6, 1.1))
                yield _put(street, bush, s, rng.normal(0, 0.15))


def furniture(rng: np.random.Generator, street: Street, low: float, high: float) -> Iterator[Piece]:
    """Lamps, masts, signs, bins, signals."""
    at = street.kerb + 0.38
    gap = rng.uniform(22, 30)
    shape = scenery.pole(rng, rng.uniform(6, 9))
    for side in (1, -1):
        for s in np.arange(low + (0 if side > 0 else gap / 2), high, gap):
            if not street.near_junction(s, 3):
                yield _put(street, shape, float(s), side * at, np.pi if side > 0 else 0.0)
        for s in np.arange(low, high, 13.0):
            s = float(s + rng.uniform(0, 10))
            if street.near_junction(s, 2.5):
                continue
            draw = rng.random()
            if draw < 0.4:
                face = scenery.sign(rng, facing=np.pi if side < 0 else 0.0)
                yield _put(street, face, s, side * at)
            elif draw < 0.62:
                item, d = scenery.bin_or_box(rng), side * (street.kerb + street.sidewalk - 0.4)
                yield _put(street, item, s, d, rng.choice([0, np.pi / 2]))
            elif draw < 0.78 and street.kind == "urban":
                for k in range(int(rng.integers(2, 5))):
                    yield _put(street, scenery.bollard(), s + 1.5 * k, side * at)
    if street.tram or rng.random() < 0.3:
        for s in np.arange(low, high, 34.0):
            for side in (1, -1):
                if not street.near_junction(s, 1):
                    yield _put(street, scenery.mast(rng), float(s), side * (street.kerb + 0.7))
    for j in street.junctions:
        if not low < j.s < high or street.kind == "residential":
            continue
        main, cross = (scenery.traffic_light(signal_of(j, 0.0, own)) for own in (True, False))
        for sign in (1, -1):
            s, d = j.s + sign * (j.half + 4.4), sign * (street.kerb + 0.5)
            yield _put(street, main, s, d, np.pi if sign < 0 else 0.0)
            s, d = j.s + sign * (j.half + 0.8), -sign * (street.kerb + 1.0)
            yield _put(street, cross, s, d, sign * np.pi / 2 + np.pi)


def horizon(rng: np.random.Generator, street: Street, low: float, high: float) -> Iterator[Piece]:
    """Strips of wood and roofs far away on all sides."""

    def screen(s: list[float], d: list[float], tall: float, repeat: float, tone: float) -> Mesh:
        x, y, _ = street.curve.at(np.array(s), np.array(d))
        foot, high = (np.column_stack([x, y, np.full(2, z)]) for z in (0.0, tall))
        colour = tuple(int(c) for c in np.array([200, 210, 200]) * tone)
        u = rng.uniform(0, 1)
        corners = np.concatenate([foot, high[::-1]])
        return quad(corners, Material.TREELINE, colour, (u, 0, u + repeat, 1), ao=200)

    for side in (1, -1):
        for s in np.arange(low, high, 40.0).tolist():
            near = rng.uniform(22, 40) if street.kind != "urban" else rng.uniform(30, 50)
            d = side * (street.front + near)
            tall = rng.uniform(9, 17)
            yield s, screen([s, s + 46], [d, d], tall, 1.3, rng.uniform(0.7, 1.1))
    for distance, height in ((25.0, 12.0), (70.0, 19.0), (130.0, 30.0)):
        for end, sign in ((high, 1.0), (low, -1.0)):
            for d in np.arange(-140, 140, 46.0).tolist():
                if distance < 60 and abs(d + 23) < 30:
                    continue
                tall, across = height * rng.uniform(0.8, 1.2), [end + sign * distance] * 2
                yield end, screen(across, [d, d + 50], tall, 1.2, rng.uniform(0.7, 1.0))
