"""The surface of a street: carriageway, kerbs, sidewalks, verges, and paint on the road."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from amodal_core.synthetic.materials import Material
from amodal_core.synthetic.mesh import Mesh, faceted
from amodal_core.synthetic.population import KERB_HEIGHT
from amodal_core.synthetic.street import Junction, Street

CELL = 3.0  # metres of a ground cell along the street
PAINT_LIFT = 0.012


def strip(
    street: Street,
    s: np.ndarray,
    d: list[float],
    z: list[float],
    material: int,
    colours: np.ndarray,
    texel: float,
) -> Mesh:
    """A surface over rows s and columns d (from right to left); colours (columns, 4)."""
    columns = len(d)
    grid_s, grid_d = np.meshgrid(s, d, indexing="ij")
    x, y, _ = street.curve.at(grid_s, grid_d)
    height = np.broadcast_to(np.asarray(z), grid_s.shape)
    positions = np.stack([x, y, height], axis=-1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(len(s) - 1), np.arange(columns - 1), indexing="ij")
    a = (i * columns + j).reshape(-1)
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


def _shades(tones: list[tuple[int, int]]) -> np.ndarray:
    """(C, 4) grey vertex colours of (tone, ambient occlusion)."""
    return np.array([(t, t, t, ao) for t, ao in tones], np.uint8)


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
    for row in (0, n):
        quad = (
            np.stack(
                [np.stack([a, a + 1, a + 1 + n], 1), np.stack([a, a + 1 + n, a + n], 1)]
            ).reshape(-1, 3)
            + row
        )
        faces.append(quad if side < 0 else quad[:, ::-1])
    uv = np.concatenate([np.stack([s, np.full(n, v)], 1) for v in (0, 0.3, 0.6)]) / 1.5
    mesh = faceted(
        vertices, np.concatenate(faces), Material.CONCRETE, (196, 194, 190), uv, crease=30
    )
    mesh.colours[mesh.positions[:, 2] < 0.01, 3] = 130
    return mesh


def sections(
    street: Street, low: float, high: float
) -> Iterator[tuple[np.ndarray, Junction | None]]:
    """Rows of s in pieces of one cell group, cut at junctions."""
    cuts = sorted(
        {
            low,
            high,
            *(c for j in street.junctions for c in (j.s - j.half, j.s + j.half) if low < c < high),
        }
    )
    for a, b in itertools.pairwise(cuts):
        middle = (a + b) / 2
        inside = next((j for j in street.junctions if abs(middle - j.s) < j.half), None)
        pieces = max(1, round((b - a) / 24))
        for piece in range(pieces):
            c, e = a + (b - a) * piece / pieces, a + (b - a) * (piece + 1) / pieces
            yield np.linspace(c, e, max(2, round((e - c) / CELL) + 1)), inside


def ground(street: Street, low: float, high: float) -> Iterator[tuple[float, Mesh]]:
    """Pieces of the surface, each with its s."""
    k, wide = street.kerb, street.front
    green = street.kind != "urban"
    side_material = Material.PAVING if street.kind != "residential" else Material.ASPHALT
    for s, junction in sections(street, low, high):
        middle = float(s.mean())
        yield middle, _carriageway(street, s)
        for side in (1, -1):

            def columns(*d: float, side: int = side) -> list[float]:
                return [side * v for v in d] if side > 0 else [side * v for v in d][::-1]

            def tones(*t: tuple[int, int], side: int = side) -> np.ndarray:
                return _shades(list(t) if side > 0 else list(t)[::-1])

            if junction is not None:
                yield (
                    middle,
                    strip(
                        street,
                        s,
                        columns(k, 95.0),
                        [0.0, 0.0],
                        Material.ASPHALT,
                        _shades([(238, 255), (238, 255)]),
                        6.0,
                    ),
                )
                continue
            yield middle, _kerb(street, s, side * k, side)
            e = k + street.sidewalk
            z = [KERB_HEIGHT, KERB_HEIGHT]
            yield (
                middle,
                strip(
                    street,
                    s,
                    columns(k + 0.16, e),
                    z,
                    side_material,
                    tones((225, 250), (215, 215)),
                    4.0,
                ),
            )
            if wide > e + 0.05:
                lot = Material.GRASS if green else Material.PAVING
                yield (
                    middle,
                    strip(
                        street,
                        s,
                        columns(e, wide + 0.2),
                        z,
                        lot,
                        tones((235, 235), (205, 190)),
                        5.0,
                    ),
                )
            yield (
                middle,
                strip(
                    street,
                    s,
                    columns(wide + 0.2, wide + 25, 170.0),
                    [KERB_HEIGHT] * 3,
                    Material.GRASS,
                    tones((200, 200), (225, 240), (225, 240)),
                    5.0,
                ),
            )
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
    order = np.argsort(d)
    return strip(
        street,
        s,
        [d[i] for i in order],
        [0.0] * len(d),
        Material.ASPHALT,
        _shades([tone[i] for i in order]),
        6.0,
    )


def _median(street: Street, s: np.ndarray, middle: float) -> Iterator[tuple[float, Mesh]]:
    m = street.median / 2 - 0.25
    for side in (1, -1):
        yield middle, _kerb(street, s, side * m, -side)
    top = Material.GRAVEL if street.tram else Material.GRASS
    z = KERB_HEIGHT - 0.02
    yield (
        middle,
        strip(street, s, [-m + 0.1, m - 0.1], [z, z], top, _shades([(230, 240), (230, 240)]), 4.0),
    )
    if street.tram:
        for track in (-1.75, 1.75):
            for rail in (-0.72, 0.72):
                c = track + rail
                yield (
                    middle,
                    strip(
                        street,
                        s,
                        [c - 0.04, c + 0.04],
                        [z + 0.03] * 2,
                        Material.METAL,
                        _shades([(120, 230), (120, 230)]),
                        1.0,
                    ),
                )


def markings(street: Street, low: float, high: float) -> Iterator[tuple[float, Mesh]]:
    """Lines, zebra crossings, stop lines and parking bays."""

    def line(s0: float, s1: float, d: float, width: float) -> tuple[float, Mesh]:
        s = np.linspace(s0, s1, max(2, int((s1 - s0) / 4) + 2))
        return (s0 + s1) / 2, strip(
            street,
            s,
            [d - width / 2, d + width / 2],
            [PAINT_LIFT] * 2,
            Material.MARKING,
            _shades([(235, 255)] * 2),
            3.0,
        )

    def clear(s0: float, s1: float) -> bool:
        return not any(
            s1 > j.s - j.half - 5.5 and s0 < j.s + j.half + 5.5 for j in street.junctions
        )

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
                    inner = side * (street.kerb - street.parking)
                    yield (
                        s,
                        strip(
                            street,
                            np.array([s, s + 0.1]),
                            sorted([inner, side * street.kerb]),
                            [PAINT_LIFT] * 2,
                            Material.MARKING,
                            _shades([(225, 255)] * 2),
                            3.0,
                        ),
                    )
    for j in street.junctions:
        if not low < j.s < high:
            continue
        for sign in (-1, 1):
            s0 = j.s + sign * (j.half + 2.6)
            if not plain:
                for d in np.arange(-street.kerb + 0.5, street.kerb - 0.5, 1.0):
                    yield line(s0 - 1.5, s0 + 1.5, d, 0.5)
            lanes = sorted([-sign * -edge, -sign * -street.median / 2])
            s1 = j.s + sign * (j.half + 4.6)
            yield (
                s1,
                strip(
                    street,
                    np.array([s1 - 0.2, s1 + 0.2]),
                    lanes,
                    [PAINT_LIFT] * 2,
                    Material.MARKING,
                    _shades([(235, 255)] * 2),
                    3.0,
                ),
            )
            stop = sign * (street.kerb + 1.2)
            span = (
                np.array([j.s - j.half + 0.3, j.s])
                if sign > 0
                else np.array([j.s, j.s + j.half - 0.3])
            )
            yield (
                j.s,
                strip(
                    street,
                    span,
                    sorted([stop - 0.2, stop + 0.2]),
                    [PAINT_LIFT] * 2,
                    Material.MARKING,
                    _shades([(235, 255)] * 2),
                    3.0,
                ),
            )
            for d in np.arange(street.kerb + 6, 70, 6.0):
                yield (
                    j.s,
                    strip(
                        street,
                        np.array([j.s - 0.06, j.s + 0.06]),
                        sorted([sign * d, sign * (d + 3)]),
                        [PAINT_LIFT] * 2,
                        Material.MARKING,
                        _shades([(235, 255)] * 2),
                        3.0,
                    ),
                )
