"""Built things that a detector takes for vehicles: bridges, gantries, shelters, boxes, walls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from amodal_core.synthetic.materials import Material
from amodal_core.synthetic.mesh import (
    Mesh,
    Tone,
    Vector,
    box,
    faceted,
    grid_triangles,
    merged,
    pose,
    quad,
    tones,
    tube,
)
from amodal_core.synthetic.street import Street

CONCRETES = tones("b4b2ac 9c9a94 7e7c78 c6c2b8 686662")
STEELS = tones("5c4638 3c5a4c 4a5058 8a3c30 2e4a6c 9a9c9e")
BOXES = tones("8c2a24 24507c c8781e 3a6a44 8a8c8e d8d6d0 b49a2c 5a3c2c")
BOARDS = tones("1c4a9c 1c6a3c 24364a e0dcd0")
Piece = tuple[float, Mesh]  # its s and what stands there
Footprint = tuple[float, float, float, float]  # middle x, y and half extents along x, y, metres
CLEARANCE = 4.3  # metres that a bridge leaves at least: a lorry of 4 m passes


def swept(profile: Sequence[Vector], path: np.ndarray, material: int, colour: Vector) -> Mesh:
    """A closed profile carried along y, with flat ends.

    Args:
        profile: (P, 2) x and z of its corners, in either sense of rotation, metres.
        path: (N, 2) y and the z that is added there, y ascending.
        material: of all faces.
        colour: of all faces.
    """
    corners = np.asarray(profile, np.float64)
    x, z = corners.T
    if (x * np.roll(z, -1) - z * np.roll(x, -1)).sum() > 0:
        corners = corners[::-1]  # so that faces look outward as y grows
    count, rings = len(corners), len(path)
    rows = np.empty((rings, count, 3))
    rows[..., 0] = corners[:, 0]
    rows[..., 1] = path[:, :1]
    rows[..., 2] = corners[:, 1] + path[:, 1:]
    sides = grid_triangles(rings, count, wrap=True)
    fan = np.array([[0, k, k + 1] for k in range(1, count - 1)])
    ends = np.concatenate([fan[:, ::-1], fan + (rings - 1) * count])
    around = np.append(0.0, np.cumsum(np.hypot(*np.diff(corners, axis=0).T)))
    uv = np.stack(np.broadcast_arrays(path[:, :1], around[None]), -1).reshape(-1, 2) / 3
    vertices = rows.reshape(-1, 3)
    return faceted(
        vertices, np.concatenate([sides, ends]), material, colour, uv.astype(np.float32), crease=30
    )


def bridge(
    rng: np.random.Generator, edge: float, reach: float, turn: float
) -> tuple[Mesh, list[Footprint]]:
    """A bridge along y over a street along x: deck, girders, parapets and piers.

    Args:
        rng: its shape and finish.
        edge: |d| of the street that its piers keep free, metres.
        reach: half of its length, metres.
        turn: radians that it will be turned by, so that the piers keep to `edge` then.

    Returns:
        the mesh, whose underside is at least `CLEARANCE` above z = 0 between the innermost piers,
        and where its piers stand.
    """
    width = float(rng.choice([rng.uniform(2.5, 4.5), rng.uniform(6, 16)]))
    depth = rng.uniform(0.7, 1.9)
    slab = rng.uniform(0.22, 0.4)
    half, foot = width / 2, width / 2 * rng.uniform(0.45, 0.8)
    inner = (edge + 0.6 + foot * np.sin(abs(turn))) / np.cos(turn)
    supports = np.arange(inner, reach, rng.uniform(12, 22))
    slope = rng.uniform(0, 0.0016)  # many rise towards the middle of what they cross
    low = CLEARANCE + depth + slope * inner**2 + rng.uniform(0.2, 2.4)
    y = np.linspace(-reach, reach, 33)
    path = np.stack([y, np.maximum(low - slope * y**2, depth + 0.4)], axis=1)
    steel = rng.random() < 0.35
    body: tuple[int, Tone] = (
        (Material.METAL, STEELS[rng.integers(len(STEELS))])
        if steel
        else (Material.CONCRETE, CONCRETES[rng.integers(len(CONCRETES))])
    )
    if steel or rng.random() < 0.4:
        edges = np.linspace(-foot, foot, int(rng.integers(2, 5)))
        shapes = [[(-half, -slab), (half, -slab), (half, 0), (-half, 0)]]
        shapes += [
            [(x - 0.25, -depth), (x + 0.25, -depth), (x + 0.25, -slab), (x - 0.25, -slab)]
            for x in edges
        ]
    else:  # one hollow girder under a slab that stands out
        shapes = [
            [
                (-foot, -depth),
                (foot, -depth),
                (foot + 0.5 * (half - foot), -slab - 0.1),
                (half, -slab),
                (half, 0),
                (-half, 0),
                (-half, -slab),
                (-foot - 0.5 * (half - foot), -slab - 0.1),
            ]
        ]
    pieces = [swept(shape, path, *body) for shape in shapes]
    pieces += _parapets(rng, half, path)
    for d in [*supports, *-supports]:
        top = float(np.interp(d, *path.T)) - depth * 0.98
        pieces += _piers(rng, d, foot, top)
    return merged(pieces), [(0.0, float(d), foot, 0.6) for d in [*supports, *-supports]]


def _parapets(rng: np.random.Generator, half: float, path: np.ndarray) -> Iterator[Mesh]:
    """Both edges of a deck: a wall, a railing or the wire mesh of a footbridge."""
    tall, kind = rng.uniform(0.8, 1.3), rng.integers(3)
    tone = STEELS[rng.integers(len(STEELS))]
    for x in (-half + 0.1, half - 0.1):
        if kind == 0:
            wall = [(x - 0.12, 0), (x + 0.12, 0), (x + 0.12, tall), (x - 0.12, tall)]
            yield swept(wall, path, Material.CONCRETE, CONCRETES[rng.integers(len(CONCRETES))])
            continue
        for z in (0.45 * tall, tall) if kind == 1 else (tall * 1.6,):
            line = np.column_stack([np.full(len(path), x), path[:, 0], path[:, 1] + z])
            yield tube(line, 0.05, Material.METAL, tone, sides=5, caps=False)
        for (y0, z0), (y1, z1) in pairwise(path):
            post = np.array([[x, y0, z0], [x, y0, z0 + tall * (1 if kind == 1 else 1.6)]])
            yield tube(post, 0.04, Material.METAL, tone, sides=4, caps=False)
            if kind == 2:
                high = tall * 1.6
                sheet = np.array([[x, y0, z0], [x, y1, z1], [x, y1, z1 + high], [x, y0, z0 + high]])
                for face in (sheet, sheet[[1, 0, 3, 2]]):
                    yield quad(face, Material.MESH_FENCE, uv=(0, 0, (y1 - y0) / 2, 1))


def _piers(rng: np.random.Generator, d: float, foot: float, top: float) -> Iterator[Mesh]:
    """One row of piers at y = d: a wall, columns under a beam, or legs that spread upward."""
    colour = CONCRETES[rng.integers(len(CONCRETES))]
    kind = rng.integers(3)
    if kind == 0:
        size = 2 * foot, rng.uniform(0.6, 1.1), top
        material = Material.BRICK if rng.random() < 0.2 else Material.CONCRETE
        yield box(size, (0, d, top / 2), material, colour, texel=3)
    elif kind == 1:
        radius = rng.uniform(0.3, 0.6)
        for x in np.linspace(-foot + radius, foot - radius, max(1, round(foot / 2.2))):
            line = np.array([[x, d, 0], [x, d, top]])
            yield tube(line, radius, Material.CONCRETE, colour, sides=12)
        yield box((2 * foot, 2.2 * radius, 0.6), (0, d, top - 0.3), Material.CONCRETE, colour)
    else:
        for lean in (-1, 1):
            line = np.array([[0.35 * foot * lean, d, 0], [0.85 * foot * lean, d, top]])
            yield tube(line, rng.uniform(0.35, 0.5), Material.CONCRETE, colour, sides=8)


def gantry(rng: np.random.Generator, edge: float) -> Mesh:
    """Direction signs above a street along x: posts at y = ±edge, a beam and boards."""
    tone = STEELS[rng.integers(len(STEELS))]
    height, left = rng.uniform(5.3, 6.8), -edge
    right = edge if rng.random() < 0.6 else rng.uniform(-0.3, 0.3) * edge  # or one arm only
    size = rng.uniform(0.25, 0.5)
    pieces = [
        box((size, right - left, size), (0, (left + right) / 2, height), Material.METAL, tone)
    ]
    posts = (left, right) if right == edge else (left,)
    pieces += [box((size, size, height), (0, y, height / 2), Material.METAL, tone) for y in posts]
    y = left + rng.uniform(0.5, 2.0)
    while True:
        wide, tall = rng.uniform(2.0, 4.5), rng.uniform(1.4, 3.0)
        if y + wide > right:
            break
        board = BOARDS[rng.integers(len(BOARDS))]
        middle = height - 0.1 + rng.uniform(-0.1, 0.3) * tall
        pieces.append(box((0.08, wide, tall), (-size, y + wide / 2, middle), Material.METAL, board))
        for _ in range(int(rng.integers(2, 6))):  # the writing
            line = rng.uniform(0.3, 0.8) * wide, rng.uniform(0.1, 0.25)
            at = y + wide / 2 + rng.uniform(-0.08, 0.08) * wide, rng.uniform(-0.35, 0.35) * tall
            pieces.append(
                box(
                    (0.02, *line),
                    (-size - 0.05, at[0], middle + at[1]),
                    Material.METAL,
                    (236, 236, 232),
                )
            )
        y += wide + rng.uniform(0.3, 3.0)
    return merged(pieces).placed(pose(yaw=np.pi if rng.random() < 0.3 else 0.0))


def shelter(rng: np.random.Generator) -> Mesh:
    """A bus shelter along x, open towards +y: posts, glass, a roof, often a board at one end."""
    length, depth, height = rng.uniform(3, 6), rng.uniform(1.3, 1.8), rng.uniform(2.3, 2.7)
    tone = STEELS[rng.integers(len(STEELS))]
    pieces = [
        box(
            (length + 0.3, depth + 0.3, rng.uniform(0.1, 0.3)), (0, 0, height), Material.METAL, tone
        )
    ]
    for x in np.linspace(-length / 2, length / 2, max(2, round(length / 1.5) + 1)):
        size, at = (0.08, 0.08, height), (x, -depth / 2, height / 2)
        pieces.append(box(size, at, Material.METAL, tone))
    pane = (length, 0.03, height - 0.5), (0, -depth / 2, height / 2 + 0.1)
    pieces.append(box(*pane, Material.GLASS, (170, 180, 180)))
    if rng.random() < 0.7:
        board = (0.16, depth, height - 0.6), (length / 2, 0, height / 2)
        pieces.append(box(*board, Material.PAINT, BOXES[rng.integers(len(BOXES))]))
    bench = (0.6 * length, 0.4, 0.08), (0, -0.25 * depth, 0.48)
    return merged([*pieces, box(*bench, Material.WOOD, (150, 120, 90))])


def container(rng: np.random.Generator) -> Mesh:
    """A steel box along x that stands on the ground: freight, site hut, skip or kiosk."""
    kind = rng.integers(3)
    length = (rng.uniform(5.8, 6.2), rng.uniform(3, 5), rng.uniform(2.2, 3.6))[kind]
    width, height = (
        rng.uniform(2.0, 2.5),
        (2.59, rng.uniform(1.2, 1.7), rng.uniform(2.4, 3.0))[kind],
    )
    tone = BOXES[rng.integers(len(BOXES))]
    pieces = [box((length, width, height), (0, 0, height / 2), Material.METAL, tone, texel=2)]
    dark = tuple(int(0.75 * v) for v in tone)
    if kind < 2:  # ribs
        for x in np.arange(-length / 2 + 0.2, length / 2, 0.45):
            rib = (0.12, width + 0.1, height * 0.94), (x, 0, height / 2)
            pieces.append(box(*rib, Material.METAL, dark))
    else:
        front = (0.6 * length, 0.06, 0.9), (0, width / 2, 0.6 * height)
        pieces.append(box(*front, Material.GLASS, (120, 130, 130)))
        roof = (length + 0.8, width + 0.8, 0.15), (0, 0, height)
        pieces.append(box(*roof, Material.METAL, dark))
    return merged(pieces)


def wall(
    rng: np.random.Generator, length: float, step: float = 4.0
) -> Iterator[tuple[float, Mesh, Footprint]]:
    """A wall along x that faces +y: concrete, bricks, or panels between posts.

    Args:
        rng: its height, 0.8 m (what keeps cars off a pavement) to 5 m (what holds a slope or
            noise), and its finish.
        length: metres; what whole pieces leave of it stays free.
        step: length of its pieces, so that they can follow a bend, metres.

    Yields:
        how far along x a piece stands, the piece around x = 0, and what it blocks there.
    """
    height = rng.uniform(0.8, 1.2) if rng.random() < 0.25 else rng.uniform(1.6, 5.0)
    thick = rng.uniform(0.2, 0.5)
    kind = rng.integers(3)
    material = (Material.CONCRETE, Material.BRICK, Material.METAL)[kind]
    palette = BOXES if kind == 2 else CONCRETES
    tone, cap = palette[rng.integers(len(palette))], CONCRETES[rng.integers(len(CONCRETES))]
    stripes = rng.random() < 0.4  # panels of two heights, as noise barriers have
    for x in np.arange(step / 2, length, step):
        size = (step + 0.15, thick, height)  # bends leave no gap
        pieces = [box(size, (0, 0, height / 2), material, tone, texel=3)]
        if kind < 2:
            pieces.append(
                box((step + 0.15, thick + 0.12, 0.12), (0, 0, height), Material.CONCRETE, cap)
            )
        else:
            post = (0.25, thick + 0.14, height + 0.1), (step / 2, 0, height / 2 + 0.05)
            pieces.append(box(*post, Material.METAL, cap))
        if stripes:
            band = (step + 0.15, thick + 0.04, 0.35 * height), (0, 0, 0.3 * height)
            pieces.append(box(*band, material, cap))
        yield float(x), merged(pieces), (0.0, 0.0, step / 2, thick / 2)


@dataclass(frozen=True)
class Structures:
    """What stands over and beside a street.

    Attributes:
        pieces: meshes in the world.
        cleared: (s, half width along s) of ground that houses and trees leave free.
        footprints: (4, 4) world_from_structure and the half extents along x and y of what
            blocks the ground.
    """

    pieces: list[Piece] = field(default_factory=list)
    cleared: list[tuple[float, float]] = field(default_factory=list)
    footprints: list[tuple[np.ndarray, float, float]] = field(default_factory=list)

    def spare(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The pieces that stand on no ground that was cleared."""
        return (p for p in pieces if all(abs(p[0] - s) > half for s, half in self.cleared))

    def block(self, xy: np.ndarray, margin: float) -> bool:
        """Whether a way (F, 2) comes within a margin of what blocks the ground, metres."""
        for place, half_x, half_y in self.footprints:
            x, y = ((xy - place[:2, 3]) @ place[:2, :2]).T
            if ((np.abs(x) < half_x + margin) & (np.abs(y) < half_y + margin)).any():
                return True
        return False


def build(rng: np.random.Generator, street: Street, low: float, high: float) -> Structures:
    """Bridges, gantries, shelters, containers and walls of a street between two s."""
    made = Structures()

    def put(
        mesh: Mesh,
        footprints: Iterable[Footprint],
        s: float,
        d: float,
        turn: float = 0.0,
        z: float = 0.0,
    ) -> None:
        x, y, heading = street.curve.at(s, d)
        place = pose(float(x), float(y), z, float(heading) + turn)
        made.pieces.append((s, mesh.placed(place)))
        made.footprints.extend((place @ pose(at, aside), a, b) for at, aside, a, b in footprints)

    s = low + rng.uniform(40, 110)  # the first one in sight of where the drive begins
    while s < high:
        if not street.near_junction(s, 5.0):
            if rng.random() < 0.65:
                turn = rng.uniform(-0.45, 0.45)
                edge = street.kerb + rng.uniform(0, street.sidewalk + 2)
                put(*bridge(rng, edge, rng.uniform(45, 90), turn), s, 0.0, turn)
                made.cleared.append((s, 9.0 + street.front * abs(np.tan(turn))))
            else:
                edge = street.kerb + 0.6
                posts = [(0.0, side * edge, 0.25, 0.25) for side in (-1, 1)]
                put(gantry(rng, edge), posts, s, 0.0)
        s += rng.uniform(25, 90)
    for side in (1, -1):
        inward = np.pi if side > 0 else 0.0
        s = low + rng.uniform(10, 40)
        while s < high:
            if not street.near_junction(s, 6.0):
                if rng.random() < 0.5:
                    at = side * (street.kerb + street.sidewalk / 2 + 0.3)
                    put(shelter(rng), [(0.0, 0.0, 3.0, 0.9)], s, at, inward, 0.12)
                else:
                    at = side * (street.kerb + street.sidewalk + rng.uniform(0.2, 2.0))
                    askew = inward + rng.normal(0, 0.15)
                    put(container(rng), [(0.0, 0.0, 3.1, 1.3)], s, at, askew, 0.1)
            s += rng.uniform(15, 70)
        s = low + rng.uniform(0, 60)
        while s < high:
            # Behind the pavement or, where nobody walks, at the kerb.
            at = street.kerb + (0.5 if rng.random() < 0.3 else street.sidewalk + 0.3)
            for ahead, mesh, footprint in wall(rng, rng.uniform(12, 60)):
                if not street.near_junction(s + ahead, 4.0):
                    put(mesh, [footprint], s + ahead, side * at, inward, 0.1)
            s += rng.uniform(60, 160)
    return made
