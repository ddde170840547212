"""The surface of a street: carriageway, kerbs, sidewalks, verges, and paint on the road."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from amodal_core.synthetic.materials import Material
from amodal_core.synthetic.mesh import Mesh, Vector, faceted
from amodal_core.synthetic.population import KERB_HEIGHT
from amodal_core.synthetic.street import Junction, Street

CELL = 3.0  # metres of a ground cell along the street
PAINT_LIFT = 0.012


def strip(
    street: Street,
    s: np.ndarray,
    d: Sequence[float],
    z: float,
    material: int,
    tones: Sequence[tuple[int, int]],
    texel: float,
) -> Mesh:
    """A level surface over rows s and columns d; of each column the grey and ambient occlusion."""
    columns, order = len(d), np.argsort(d)  # from right to left
    colours = np.array([(t, t, t, ao) for t, ao in tones])[order]
    grid_s, grid_d = np.meshgrid(s, np.asarray(d)[order], indexing="ij")
    x, y, _ = street.curve.at(grid_s, grid_d)
    height = np.full(grid_s.shape, z)
    positions = np.stack([x, y, height], axis=-1).reshape(-1, 3)
    a = np.arange(len(positions) - columns).reshape(-1, columns)[:, :-1].reshape(-1)
    triangles = np.concatenate(
        [np.stack([a, a + columns, a + columns + 1], 1), np.stack([a, a + columns + 1, a + 1], 1)]
    )
    normals = np.zeros_like(positions)
    normals[:, 2] = 1.0
    uvs = np.stack([grid_s, grid_d + height], axis=-1).reshape(-1, 2) / texel
    n = len(positions)
    return Mesh(
        positions.astype(np.float32),
        normals.astype(np.float32),
        uvs.astype(np.float32),
        np.tile(colours, (len(s), 1)).astype(np.uint8),
        np.full(n, material, np.uint8),
        np.zeros(n, np.uint8),
        triangles.astype(np.int32),
    )


def _kerb(street: Street, s: np.ndarray, d: float, side: int) -> Mesh:
    """The kerb's upright face and its top."""
    x0, y0, heading = street.curve.at(s, d)
    normal = np.stack([np.sin(heading), -np.cos(heading)], 1) * side  # towards the road
    n = len(s)
    low = np.stack([x0, y0, np.zeros(n)], 1)
    high = low + np.array([0, 0, KERB_HEIGHT])
    back = high - np.concatenate([normal, np.zeros((n, 1))], 1) * 0.16
    vertices = np.concatenate([low, high, back])
    a = np.arange(n - 1)
    faces = []
    for row in (a, a + n):
        pair = [np.stack([row, row + 1, row + 1 + n], 1), np.stack([row, row + 1 + n, row + n], 1)]
        faces += pair if side < 0 else [half[:, ::-1] for half in pair]
    triangles, tone = np.concatenate(faces), (196, 194, 190)
    uv = np.concatenate([np.stack([s, np.full(n, v)], 1) for v in (0, 0.3, 0.6)]) / 1.5
    mesh = faceted(vertices, triangles, Material.CONCRETE, tone, uv, crease=30)
    mesh.colours[mesh.positions[:, 2] < 0.01, 3] = 130
    return mesh


def sections(
    street: Street, low: float, high: float
) -> Iterator[tuple[np.ndarray, Junction | None]]:
    """Rows of s in pieces of one cell group, cut at junctions."""
    borders = (c for j in street.junctions for c in (j.s - j.half, j.s + j.half))
    cuts = {low, high, *(c for c in borders if low < c < high)}
    for a, b in itertools.pairwise(sorted(cuts)):
        middle = (a + b) / 2
        inside = next((j for j in street.junctions if abs(middle - j.s) < j.half), None)
        pieces = max(1, round((b - a) / 24))
        for piece in range(pieces):
            c, e = a + (b - a) * piece / pieces, a + (b - a) * (piece + 1) / pieces
            yield np.linspace(c, e, max(2, round((e - c) / CELL) + 1)), inside


def ground(street: Street, low: float, high: float) -> Iterator[tuple[float, Mesh]]:
    """Pieces of the surface, each with its s."""
    k, wide = street.kerb, street.front
    green, meadow = street.kind != "urban", [(225, 240)] * 2
    side_material = Material.PAVING if street.kind != "residential" else Material.ASPHALT
    for s, junction in sections(street, low, high):
        middle = float(s.mean())
        yield middle, _carriageway(street, s)
        for side in (1, -1):
            if junction is not None:
                across, even = [side * k, side * 95.0], [(238, 255)] * 2
                yield middle, strip(street, s, across, 0.0, Material.ASPHALT, even, 6.0)
                continue
            yield middle, _kerb(street, s, side * k, side)
            e = k + street.sidewalk
            lot = Material.GRASS if green else Material.PAVING
            rows = [
                ((k + 0.16, e), side_material, ((225, 250), (215, 215)), 4.0),
                ((e, wide + 0.2), lot, ((235, 235), (205, 190)), 5.0),
                ((wide + 0.2, wide + 25, 170.0), Material.GRASS, ((200, 200), *meadow), 5.0),
            ]
            for d, material, tones, texel in rows:
                if d[-1] > d[0] + 0.25:  # a house may stand at the sidewalk
                    across = [side * v for v in d]
                    yield middle, strip(street, s, across, KERB_HEIGHT, material, tones, texel)
        if street.median > 1.0 and junction is None:
            yield from _median(street, s, middle)


def _carriageway(street: Street, s: np.ndarray) -> Mesh:
    """Asphalt with polished wheel tracks, oil between them, and dirt along the kerb."""
    k = street.kerb
    d, tone = [-k, -k + 0.5], [(205, 205), (238, 250)]
    for side in (-1, 1):
        for lane in range(street.lanes) if side > 0 else reversed(range(street.lanes)):
            c, w = side * street.lane(lane), street.lane_width
            d += [c - 0.36 * w, c - 0.23 * w, c, c + 0.23 * w, c + 0.36 * w]
            tone += [(244, 255), (255, 255), (226, 255), (255, 255), (244, 255)]
    d += [k - 0.5, k]
    tone += [(238, 250), (205, 205)]
    return strip(street, s, d, 0.0, Material.ASPHALT, tone, 6.0)


def _median(street: Street, s: np.ndarray, middle: float) -> Iterator[tuple[float, Mesh]]:
    m = street.median / 2 - 0.25
    for side in (1, -1):
        yield middle, _kerb(street, s, side * m, -side)
    top = Material.GRAVEL if street.tram else Material.GRASS
    z = KERB_HEIGHT - 0.02
    yield middle, strip(street, s, [-m + 0.1, m - 0.1], z, top, [(230, 240)] * 2, 4.0)
    if street.tram:
        for c in (-1.75 - 0.72, -1.75 + 0.72, 1.75 - 0.72, 1.75 + 0.72):
            d, steel = [c - 0.04, c + 0.04], [(120, 230)] * 2
            yield middle, strip(street, s, d, z + 0.03, Material.METAL, steel, 1.0)


def markings(street: Street, low: float, high: float) -> Iterator[tuple[float, Mesh]]:
    """Lines, zebra crossings, stop lines and parking bays."""

    def paint(s: Vector, *d: float, tone: int = 235) -> Mesh:
        tones = [(tone, 255)] * 2
        return strip(street, np.array(s), d, PAINT_LIFT, Material.MARKING, tones, 3.0)

    def line(s0: float, s1: float, d: float, width: float) -> tuple[float, Mesh]:
        s = np.linspace(s0, s1, max(2, int((s1 - s0) / 4) + 2))
        return (s0 + s1) / 2, paint(s, d - width / 2, d + width / 2)

    def clear(s0: float, s1: float) -> bool:
        reach = ((j.s, j.half + 5.5) for j in street.junctions)
        return not any(s1 > s - half and s0 < s + half for s, half in reach)

    plain = street.kind == "residential"
    dashes: list[tuple[float, float, float]] = [
        (side * (street.median / 2 + k * street.lane_width), 4.0, 8.0)
        for side in (1, -1)
        for k in range(1, street.lanes)
    ]
    if street.median == 0 and not plain:
        dashes.append((0.0, 3.0, 6.0) if street.lanes == 1 else (0.0, 12.0, 12.0))
    edge = street.median / 2 + street.lanes * street.lane_width
    if street.cycle and not plain:
        dashes += [(side * edge, 1.0, 2.0) for side in (1, -1)]
    for d, dash, period in dashes:
        for s in np.arange(low, high, period):
            if clear(s, s + dash):
                yield line(s, s + dash, d, 0.13)
    if street.kind == "arterial":
        for d in (edge - 0.12, -edge + 0.12, street.median / 2 + 0.15, -street.median / 2 - 0.15):
            for s in np.arange(low, high, 12.0):
                if clear(s, s + 12):
                    yield line(s, s + 12, d, 0.14)
    if street.parking:
        for side in (1, -1):
            for s in np.arange(low, high, 6.0):
                if clear(s - 4, s + 4):
                    inner, outer = side * (street.kerb - street.parking), side * street.kerb
                    yield s, paint([s, s + 0.1], inner, outer, tone=225)
    for j in street.junctions:
        if not low < j.s < high:
            continue
        for sign in (-1, 1):
            s0 = j.s + sign * (j.half + 2.6)
            if not plain:
                for d in np.arange(-street.kerb + 0.5, street.kerb - 0.5, 1.0):
                    yield line(s0 - 1.5, s0 + 1.5, d, 0.5)
            s1 = j.s + sign * (j.half + 4.6)
            yield s1, paint([s1 - 0.2, s1 + 0.2], sign * edge, sign * street.median / 2)
            stop = sign * (street.kerb + 1.2)
            span = [j.s - j.half + 0.3, j.s] if sign > 0 else [j.s, j.s + j.half - 0.3]
            yield j.s, paint(span, stop - 0.2, stop + 0.2)
            for d in np.arange(street.kerb + 6, 70, 6.0):
                yield j.s, paint([j.s - 0.06, j.s + 0.06], sign * d, sign * (d + 3))
