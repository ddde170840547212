"""Triangle meshes and the primitives that assets are built of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from amodal_core.synthetic.materials import Material

Vector = Sequence[float] | np.ndarray
Tone = tuple[int, int, int]  # sRGB, 0-255


def tones(text: str) -> tuple[Tone, ...]:
    """Colours of a list such as "e0b698 ce9e7e", each rrggbb."""
    rgb = (bytes.fromhex(word) for word in text.split())
    return tuple((r, g, b) for r, g, b in rgb)


@dataclass(eq=False)
class Mesh:
    """Indexed triangles with everything that the shader and the LiDAR read from a vertex.

    Attributes:
        positions: (V, 3) float32, metres.
        normals: (V, 3) float32, unit length.
        uvs: (V, 2) float32, texture coordinates, v up.
        colours: (V, 4) uint8, sRGB albedo and ambient occlusion (255 = open).
        materials: (V,) uint8, `Material`.
        parts: (V,) uint8, the rigid part of an articulated asset that the vertex follows.
        triangles: (T, 3) int32, counter-clockwise seen from outside.
    """

    positions: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray
    colours: np.ndarray
    materials: np.ndarray
    parts: np.ndarray
    triangles: np.ndarray

    def placed(self, transform: np.ndarray) -> Mesh:
        """The mesh moved by a (4, 4) similarity transform."""
        linear = transform[:3, :3]
        normals = self.normals @ linear.T
        normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        positions = self.positions @ linear.T + transform[:3, 3]
        triangles = self.triangles if np.linalg.det(linear) > 0 else self.triangles[:, ::-1]
        return replace(
            self,
            positions=positions.astype(np.float32),
            normals=normals.astype(np.float32),
            triangles=np.ascontiguousarray(triangles),
        )

    def tinted(self, factor: Vector) -> Mesh:
        """The mesh with its colours multiplied by an RGB factor."""
        colours = self.colours.copy()
        colours[:, :3] = np.clip(colours[:, :3] * np.asarray(factor), 0, 255)
        return replace(self, colours=colours)

    @cached_property
    def bounds(self) -> np.ndarray:
        """(2, 3) smallest and largest corner."""
        return np.stack([self.positions.min(axis=0), self.positions.max(axis=0)])


def merged(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of several."""
    offsets = np.cumsum([0, *(len(m.positions) for m in meshes[:-1])])
    moved = [replace(m, triangles=m.triangles + o) for m, o in zip(meshes, offsets, strict=True)]
    return Mesh(*(np.concatenate([getattr(m, f.name) for m in moved]) for f in fields(Mesh)))


def faceted(
    positions: np.ndarray,
    triangles: np.ndarray,
    material: np.ndarray | int,
    colour: Vector,
    uvs: np.ndarray | None = None,
    *,
    crease: float = 40.0,
    part: int = 0,
    ao: int = 255,
) -> Mesh:
    """A mesh with normals smoothed across edges flatter than `crease` degrees.

    Args:
        positions: (V, 3).
        triangles: (T, 3), indices into positions.
        material: one for all or (T,).
        colour: RGB, one for all or (T, 3).
        uvs: (T, 3, 2) a corner each, or (V, 2), or None.
        crease: degrees.
        part: rigid part.
        ao: ambient occlusion of all vertices, 255 = open.
    """
    positions = np.asarray(positions, np.float64)
    triangles = np.asarray(triangles, np.int64)
    a, b, c = (positions[triangles[:, i]] for i in range(3))
    weighted = cross(b - a, c - a)
    area = np.linalg.norm(weighted, axis=1)
    keep = area > 1e-10
    triangles, weighted, area = triangles[keep], weighted[keep], area[keep]
    count = len(triangles)
    unit = weighted / area[:, None]
    _, weld = _distinct(list(np.round(positions, 4).T))
    corners = weld[triangles].reshape(-1)
    faces = np.repeat(np.arange(count), 3)
    # Each corner (rows) beside all faces at its vertex (columns), each once.
    by_vertex = np.argsort(corners, kind="stable")
    vertices, meeting = corners[by_vertex], faces[by_vertex]
    once = np.append(True, (np.diff(vertices) != 0) | (np.diff(meeting) != 0))[: len(vertices)]
    vertices, meeting = vertices[once], meeting[once]
    begins, ends = (np.searchsorted(vertices, corners, side) for side in ("left", "right"))
    rows = np.repeat(np.arange(3 * count), ends - begins)
    last = np.cumsum(ends - begins)
    columns = meeting[np.arange(len(rows)) + np.repeat(ends - last, ends - begins)]
    alike = (unit[faces[rows]] * unit[columns]).sum(axis=1) > np.cos(np.radians(crease))
    rows, columns = rows[alike], columns[alike]
    normals = np.stack(
        [np.bincount(rows, weighted[columns, i], minlength=3 * count) for i in range(3)], axis=1
    )
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    corner_positions = positions[triangles].reshape(-1, 3)
    if uvs is None:
        corner_uvs = np.zeros((3 * count, 2))
    elif np.ndim(uvs) == 3:
        corner_uvs = np.asarray(uvs)[keep].reshape(-1, 2)
    else:
        corner_uvs = np.asarray(uvs)[triangles].reshape(-1, 2)
    colour = np.asarray(colour)
    corner_colours = np.full((3 * count, 4), ao, np.uint8)
    corner_colours[:, :3] = np.repeat(colour[keep], 3, axis=0) if colour.ndim == 2 else colour
    material = np.asarray(material)
    corner_materials = (
        np.repeat(material[keep], 3) if material.ndim else np.full(3 * count, material)
    ).astype(np.uint8)
    # Colour and material of a corner as one number, in the order of their bytes.
    look = corner_colours.astype(np.int64) @ (1 << 8 * np.arange(4, 0, -1)) + corner_materials
    first, inverse = _distinct(
        [
            *np.round(corner_positions, 5).T,
            *np.round(normals, 3).T,
            *np.round(corner_uvs, 4).T,
            look,
        ]
    )
    return Mesh(
        corner_positions[first].astype(np.float32),
        normals[first].astype(np.float32),
        corner_uvs[first].astype(np.float32),
        corner_colours[first],
        corner_materials[first],
        np.full(len(first), part, np.uint8),
        inverse.reshape(-1, 3).astype(np.int32),
    )


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 3) cross products of vectors (N, 3): `np.cross` without what small arrays cost there."""
    x, y, z = a.T
    u, v, w = b.T
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=1)


def _distinct(columns: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each kind, in ascending order, and the kind of each row (N,).

    As `np.unique` over rows, several times as fast.
    """
    order = np.lexsort([c for c in columns if len(c) and (c != c[0]).any()][::-1] or [columns[0]])
    changes = np.zeros(len(order), bool)
    changes[:1] = True
    for column in columns:
        ordered = column[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
    kinds = np.empty(len(order), np.int64)
    kinds[order] = np.cumsum(changes) - 1
    return order[changes], kinds


def grid_triangles(rows: int, columns: int, *, wrap: bool = False) -> np.ndarray:
    """(T, 3) triangles of a rows x columns grid of vertices; `wrap` closes columns to a ring."""
    i, j = np.meshgrid(
        np.arange(rows - 1), np.arange(columns if wrap else columns - 1), indexing="ij"
    )
    right = (j + 1) % columns
    a, b = i * columns + j, i * columns + right
    c, d = (i + 1) * columns + right, (i + 1) * columns + j
    both = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], axis=2)
    return both.reshape(-1, 3)


def box(
    size: Vector,
    centre: Vector = (0, 0, 0),
    material: int = Material.CONCRETE,
    colour: Vector = (255, 255, 255),
    *,
    part: int = 0,
    texel: float = 1.0,
    ao: int = 255,
) -> Mesh:
    """An axis-aligned box; texture coordinates are metres / `texel` on every face."""
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    corners = signs * np.asarray(size) + np.asarray(centre)
    quads = np.array(
        [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [1, 5, 7, 3], [0, 2, 6, 4]]
    )
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    axes = np.array([[1, 2], [1, 2], [0, 2], [0, 2], [0, 1], [0, 1]])
    flat = corners[triangles]
    pick = np.concatenate([axes, axes])
    uvs = np.take_along_axis(flat, pick[:, None, :].repeat(3, axis=1), axis=2) / texel
    return faceted(corners, triangles, material, colour, uvs, crease=10, part=part, ao=ao)


def tube(
    points: np.ndarray,
    radii: Vector | float,
    material: int = Material.METAL,
    colour: Vector = (128, 128, 128),
    *,
    sides: int = 8,
    squash: float = 1.0,
    caps: bool = True,
    part: int = 0,
    texel: float = 1.0,
) -> Mesh:
    """A tube of varying radius along a polyline (P, 3); `squash` scales its second axis."""
    points = np.asarray(points, np.float64)
    radii = np.broadcast_to(np.asarray(radii, np.float64), len(points))
    tangent = np.gradient(points, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    helper = np.where(np.abs(tangent[:, 2:3]) > 0.9, [[1.0, 0, 0]], [[0.0, 0, 1]])
    first = np.cross(helper, tangent)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-9)
    second = np.cross(tangent, first)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = (
        np.cos(angle)[None, :, None] * first[:, None]
        + np.sin(angle)[None, :, None] * second[:, None] * squash
    )
    vertices = points[:, None] + ring * radii[:, None, None]
    triangles = grid_triangles(len(points), sides, wrap=True)
    flat = vertices.reshape(-1, 3)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    uv = np.stack(
        np.broadcast_arrays(np.linspace(0, 1, sides)[None] * 2, along[:, None] / texel), axis=-1
    ).reshape(-1, 2)
    if caps:
        n = len(flat)
        flat = np.concatenate([flat, points[[0, -1]]])
        uv = np.concatenate([uv, uv[[0, -1]]])
        k = np.arange(sides)
        nxt = (k + 1) % sides
        last = (len(points) - 1) * sides
        triangles = np.concatenate(
            [
                triangles,
                np.stack([nxt, k, np.full(sides, n)], 1),
                np.stack([last + k, last + nxt, np.full(sides, n + 1)], 1),
            ]
        )
    return faceted(flat, triangles, material, colour, uv, crease=60, part=part)


def ellipsoid(
    radii: Vector,
    centre: Vector,
    material: int,
    colour: Vector,
    *,
    part: int = 0,
    sides: int = 10,
) -> Mesh:
    """An ellipsoid with `sides` meridians."""
    v = np.linspace(0, np.pi, sides // 2 + 2)
    u = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.stack(
        [
            np.sin(v)[:, None] * np.cos(u),
            np.sin(v)[:, None] * np.sin(u),
            np.broadcast_to(-np.cos(v)[:, None], (len(v), sides)),
        ],
        axis=-1,
    )
    positions = ring.reshape(-1, 3) * np.asarray(radii) + np.asarray(centre)
    return faceted(
        positions, grid_triangles(len(v), sides, wrap=True), material, colour, crease=90, part=part
    )


def quad(
    corners: np.ndarray,
    material: int,
    colour: Vector = (255, 255, 255),
    uv: Sequence[float] = (0, 0, 1, 1),
    *,
    part: int = 0,
    ao: int = 255,
) -> Mesh:
    """A rectangle of four corners, counter-clockwise from the lower left; uv = u0, v0, u1, v1."""
    corners = np.asarray(corners, np.float64)
    u0, v0, u1, v1 = uv
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    normal /= max(float(np.linalg.norm(normal)), 1e-12)
    colours = np.full((4, 4), ao, np.uint8)
    colours[:, :3] = colour
    return Mesh(
        corners.astype(np.float32),
        np.tile(normal, (4, 1)).astype(np.float32),
        np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]], np.float32),
        colours,
        np.full(4, material, np.uint8),
        np.full(4, part, np.uint8),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
    )


def grounded(mesh: Mesh, height: float, least: float) -> Mesh:
    """The mesh with ambient light fading from `height` metres to a share `least` at the ground.

    What stands on a dark road sees less of the sky the lower it is, least where it looks down.
    """
    rise = np.clip(mesh.positions[:, 2] / height, 0, 1)
    open_ = least + (1 - least) * rise**0.7
    open_ = open_ * np.where(mesh.normals[:, 2] < -0.5, 0.55, 1.0)
    colours = mesh.colours.copy()
    colours[:, 3] = np.clip(colours[:, 3] * open_, 0, 255)
    return replace(mesh, colours=colours)


def pose(x: float = 0, y: float = 0, z: float = 0, yaw: float = 0) -> np.ndarray:
    """(4, 4) transform: turn by yaw about +z, then move."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])


def rotation_y(angle: float, pivot: Vector = (0, 0, 0)) -> np.ndarray:
    """(4, 4) turn about the +y axis through a pivot (positive: +z towards +x)."""
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1.0]])
    pivot = np.asarray(pivot, np.float64)
    matrix[:3, 3] = pivot - matrix[:3, :3] @ pivot
    return matrix
