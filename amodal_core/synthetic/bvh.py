"""Bounding volume hierarchies in two levels: shapes once, instances of them every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from amodal_core.synthetic.materials import Material, Mode
from amodal_core.synthetic.mesh import Mesh
from amodal_core.synthetic.texture_array import CUTOUTS, LAYERS, texture_array

LEAF = 4
_DEEP = 64
_BINS = 12
_FAR = 1e30


class Geometry(NamedTuple):
    """Every shape's triangles and hierarchy, one after the other.

    Attributes:
        bounds: (M, 6) float32 of nodes: least and greatest corner.
        links: (M, 2) int32 of nodes: first and count. With a count it is a leaf over
            order[first : first + count], without one its children are first and first + 1.
        order: (T,) triangles in the order of the leaves, from each shape's first.
        corners: (T, 9) float64, a corner and the two edges from it.
        uvs: (T, 3, 2) texture coordinates.
        layers: (T,) layer of `alpha` with the triangle's holes, -1 for none.
        alpha: (L, S, S) uint8.
    """

    bounds: np.ndarray
    links: np.ndarray
    order: np.ndarray
    corners: np.ndarray
    uvs: np.ndarray
    layers: np.ndarray
    alpha: np.ndarray


class Instances(NamedTuple):
    """I shapes in the world and the hierarchy over them: nodes as in `Geometry`.

    Attributes:
        bounds, links, order: the hierarchy.
        inverses: (I, 4, 4) instance_from_world.
        velocities: (I, 3) metres a second.
        roots, firsts: (I,) where its shape's nodes and triangles begin.
    """

    bounds: np.ndarray
    links: np.ndarray
    order: np.ndarray
    inverses: np.ndarray
    velocities: np.ndarray
    roots: np.ndarray
    firsts: np.ndarray


class Rays(NamedTuple):
    """R rays: origins (R, 3) and unit directions (R, 3) in the world, delays (R,) in seconds."""

    origins: np.ndarray
    directions: np.ndarray
    delays: np.ndarray


@njit(cache=True)
def build(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes over boxes (N, 3) float32: bounds (M, 6), links (M, 2), order (N,); binned SAH."""
    n = len(low)
    order = np.arange(n)
    bounds = np.empty((max(2 * n, 1), 6), np.float32)
    links = np.zeros((max(2 * n, 1), 2), np.int32)
    centre = (low + high) * np.float32(0.5)
    stack = np.empty((_DEEP * 4, 3), np.int64)
    stack[0] = (0, 0, n)
    top, used = 1, 1
    while top:
        top -= 1
        node, a, b = stack[top]
        _around(low, high, order, a, b, bounds[node])
        if b - a <= LEAF:
            links[node] = (a, b - a)
            continue
        middle = _split(low, high, centre, order, a, b)
        links[node] = (used, 0)
        stack[top] = (used, a, middle)
        stack[top + 1] = (used + 1, middle, b)
        top += 2
        used += 2
    return bounds[:used].copy(), links[:used].copy(), order


@njit(cache=True)
def _around(
    low: np.ndarray, high: np.ndarray, order: np.ndarray, a: int, b: int, bound: np.ndarray
) -> None:
    """The box around the boxes order[a:b]."""
    for k in range(3):
        lo, hi = np.float32(_FAR), np.float32(-_FAR)
        for m in range(a, b):
            lo = min(lo, low[order[m], k])
            hi = max(hi, high[order[m], k])
        bound[k], bound[k + 3] = lo, hi


@njit(cache=True)
def _split(
    low: np.ndarray, high: np.ndarray, centre: np.ndarray, order: np.ndarray, a: int, b: int
) -> int:
    """Sorts order[a:b] into two parts that rays are cheapest to cast at; where the second begins.

    The surface area heuristic over bins along the axis on which the boxes' centres spread most.
    """
    axis, c0, c1 = 0, np.float32(0), np.float32(0)
    widest = np.float32(-1)
    for k in range(3):
        lo, hi = np.float32(_FAR), np.float32(-_FAR)
        for m in range(a, b):
            c = centre[order[m], k]
            lo, hi = min(lo, c), max(hi, c)
        if hi - lo > widest:
            widest, axis, c0, c1 = hi - lo, k, lo, hi
    if widest <= 1e-6:
        return (a + b) // 2
    # What lies in each bin.
    counts = np.zeros(_BINS, np.int64)
    bin_low = np.full((_BINS, 3), np.float32(_FAR))
    bin_high = np.full((_BINS, 3), np.float32(-_FAR))
    scale = _BINS * np.float32(0.9999) / (c1 - c0)
    for m in range(a, b):
        i = int((centre[order[m], axis] - c0) * scale)
        counts[i] += 1
        for k in range(3):
            bin_low[i, k] = min(bin_low[i, k], low[order[m], k])
            bin_high[i, k] = max(bin_high[i, k], high[order[m], k])
    # The cost of what lies from each bin on, then of what lies before it with that.
    costs = np.empty(_BINS, np.float32)
    lo3, hi3 = np.full(3, np.float32(_FAR)), np.full(3, np.float32(-_FAR))
    number = 0
    for i in range(_BINS - 1, 0, -1):
        number += counts[i]
        costs[i] = _cost(bin_low[i], bin_high[i], lo3, hi3, number)
    lo3[:] = _FAR
    hi3[:] = -_FAR
    number, best, split = 0, np.float32(1e38), -1
    for i in range(_BINS - 1):
        number += counts[i]
        cost = _cost(bin_low[i], bin_high[i], lo3, hi3, number) + costs[i + 1]
        if 0 < number < b - a and cost < best:
            best, split = cost, i
    if split < 0:
        return (a + b) // 2
    i, j = a, b - 1
    while i <= j:
        if int((centre[order[i], axis] - c0) * scale) <= split:
            i += 1
        else:
            order[i], order[j] = order[j], order[i]
            j -= 1
    return i if a < i < b else (a + b) // 2


@njit(cache=True)
def _cost(
    low: np.ndarray, high: np.ndarray, lo3: np.ndarray, hi3: np.ndarray, number: int
) -> float:
    """Grows the box (lo3, hi3) by a bin's; its surface times the number of boxes in it."""
    for k in range(3):
        lo3[k], hi3[k] = min(lo3[k], low[k]), max(hi3[k], high[k])
    e = hi3 - lo3
    return number * (e[0] * e[1] + e[1] * e[2] + e[2] * e[0]) if number else np.float32(0)


@njit(cache=True, inline="always")
def _box(bounds: np.ndarray, node: int, o: np.ndarray, inverse: np.ndarray, limit: float) -> float:
    """Where a ray enters a box, or a number over the limit."""
    ax, bx = (bounds[node, 0] - o[0]) * inverse[0], (bounds[node, 3] - o[0]) * inverse[0]
    ay, by = (bounds[node, 1] - o[1]) * inverse[1], (bounds[node, 4] - o[1]) * inverse[1]
    az, bz = (bounds[node, 2] - o[2]) * inverse[2], (bounds[node, 5] - o[2]) * inverse[2]
    near = max(0.0, min(ax, bx), min(ay, by), min(az, bz))
    far = min(limit, max(ax, bx), max(ay, by), max(az, bz))
    return near if near <= far else 1e30


@njit(cache=True)
def _hole(uv: np.ndarray, t: int, u: float, v: float, alpha: np.ndarray, layer: int) -> bool:
    """Whether a hit at barycentrics u, v of triangle t lies in a hole of its texture."""
    size = alpha.shape[1]
    x = (uv[t, 0, 0] * (1 - u - v) + uv[t, 1, 0] * u + uv[t, 2, 0] * v) * size - 0.5
    y = (uv[t, 0, 1] * (1 - u - v) + uv[t, 1, 1] * u + uv[t, 2, 1] * v) * size - 0.5
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - x0, y - y0
    a = (
        alpha[layer, y0 % size, x0 % size] * (1 - fx)
        + alpha[layer, y0 % size, (x0 + 1) % size] * fx
    )
    b = (
        alpha[layer, (y0 + 1) % size, x0 % size] * (1 - fx)
        + alpha[layer, (y0 + 1) % size, (x0 + 1) % size] * fx
    )
    return a * (1 - fy) + b * fy < 127.5


@njit(cache=True, inline="always")
def _triangle(
    corners: np.ndarray, t: int, o: np.ndarray, d: np.ndarray
) -> tuple[float, float, float]:
    """Distance along a ray to a triangle, -1 for none, and where it is hit (barycentric).

    Moeller and Trumbore, "Fast, Minimum Storage Ray-Triangle Intersection", 1997.
    """
    e1x, e1y, e1z = corners[t, 3], corners[t, 4], corners[t, 5]
    e2x, e2y, e2z = corners[t, 6], corners[t, 7], corners[t, 8]
    px = d[1] * e2z - d[2] * e2y
    py = d[2] * e2x - d[0] * e2z
    pz = d[0] * e2y - d[1] * e2x
    det = e1x * px + e1y * py + e1z * pz
    if abs(det) < 1e-12:
        return -1.0, 0.0, 0.0
    tx, ty, tz = o[0] - corners[t, 0], o[1] - corners[t, 1], o[2] - corners[t, 2]
    u = (tx * px + ty * py + tz * pz) / det
    if u < 0 or u > 1:
        return -1.0, 0.0, 0.0
    qx = ty * e1z - tz * e1y
    qy = tz * e1x - tx * e1z
    qz = tx * e1y - ty * e1x
    v = (d[0] * qx + d[1] * qy + d[2] * qz) / det
    if v < 0 or u + v > 1:
        return -1.0, 0.0, 0.0
    return (e2x * qx + e2y * qy + e2z * qz) / det, u, v


@njit(cache=True)
def _shape(
    geometry: Geometry,
    root: int,
    first: int,
    o: np.ndarray,
    d: np.ndarray,
    inverse: np.ndarray,
    stack: np.ndarray,
    limit: float,
) -> tuple[float, int]:
    """Closest triangle of one shape along a ray: distance and triangle, (limit, -1) for none."""
    bounds, links, order, corners, uvs, layers, alpha = geometry
    for k in range(3):
        inverse[k] = 1.0 / d[k] if abs(d[k]) > 1e-12 else 1e12
    stack[0] = root
    top, hit = 1, -1
    while top:
        top -= 1
        node = stack[top]
        if _box(bounds, node, o, inverse, limit) > limit:
            continue
        count = links[node, 1]
        if count == 0:
            left = root + links[node, 0]
            a = _box(bounds, left, o, inverse, limit)
            b = _box(bounds, left + 1, o, inverse, limit)
            if a <= b:
                if b <= limit:
                    stack[top] = left + 1
                    top += 1
                if a <= limit:
                    stack[top] = left
                    top += 1
            else:
                if a <= limit:
                    stack[top] = left
                    top += 1
                stack[top] = left + 1
                top += 1
            continue
        for m in range(links[node, 0], links[node, 0] + count):
            t = first + order[first + m]
            along, u, v = _triangle(corners, t, o, d)
            if along > 1e-4 and along < limit:
                if layers[t] >= 0 and _hole(uvs, t, u, v, alpha, layers[t]):
                    continue
                limit, hit = along, t
    return limit, hit


@njit(cache=True, nogil=True)
def cast(
    geometry: Geometry,
    instances: Instances,
    rays: Rays,
    limit: float,
    distance: np.ndarray,
    instance: np.ndarray,
    triangle: np.ndarray,
) -> None:
    """Closest hits of rays within `limit`; fills distance, instance and triangle (-1 = none).

    A ray is cast `delays[r]` seconds after the instances' poses: each is moved by its velocity.
    """
    bounds, links, order, inverses, velocities, roots, firsts = instances
    origins, directions, delays = rays
    o, d, inverse, local_inverse = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    stack, local_stack = np.empty(_DEEP, np.int64), np.empty(_DEEP, np.int64)
    for r in range(len(origins)):
        best, which, hit = limit, -1, -1
        for k in range(3):
            inverse[k] = 1.0 / directions[r, k] if abs(directions[r, k]) > 1e-12 else 1e12
        stack[0] = 0
        top = 1
        while top:
            top -= 1
            node = stack[top]
            if _box(bounds, node, origins[r], inverse, best) > best:
                continue
            count = links[node, 1]
            if count == 0:
                stack[top] = links[node, 0]
                stack[top + 1] = links[node, 0] + 1
                top += 2
                continue
            for m in range(links[node, 0], links[node, 0] + count):
                i = order[m]
                # The ray in the instance's frame.
                for k in range(3):
                    o[k] = inverses[i, k, 3]
                    d[k] = 0.0
                    for c in range(3):
                        o[k] += inverses[i, k, c] * (origins[r, c] - velocities[i, c] * delays[r])
                        d[k] += inverses[i, k, c] * directions[r, c]
                t, nearest = _shape(
                    geometry, roots[i], firsts[i], o, d, local_inverse, local_stack, best
                )
                if nearest >= 0:
                    best, which, hit = t, i, nearest
        distance[r], instance[r], triangle[r] = best, which, hit


@dataclass(frozen=True)
class Shape:
    """Where one shape's nodes and triangles begin in a `Library`, and its box."""

    root: int
    first: int
    low: np.ndarray
    high: np.ndarray


class Library:
    """Shapes with their hierarchies, ready to be cast at.

    `normals` (T, 3), `materials` (T,) and `tones` (T,) 0-1 are of every shape's triangles.

    Args:
        meshes: one shape each; parts of articulated assets are given one by one.
        texture_seed: seed of the texture layers, whose holes rays fall through.
    """

    def __init__(self, meshes: Sequence[Mesh], texture_seed: int) -> None:
        self.shapes: list[Shape] = []
        cut_table = np.full(256, -1, np.int32)
        for m in Material:
            if m.surface.mode is Mode.CUTOUT:
                cut_table[m] = CUTOUTS.index(m.surface.texture)
        columns: list[tuple[np.ndarray, ...]] = []
        root = first = 0
        for mesh in meshes:
            triangles = mesh.positions[mesh.triangles].astype(np.float32)
            low, high = triangles.min(axis=1), triangles.max(axis=1)
            bounds, links, order = build(low, high)
            self.shapes.append(Shape(root, first, low.min(axis=0), high.max(axis=0)))
            root += len(bounds)
            first += len(order)
            a, b, c = triangles.transpose(1, 0, 2)
            corners = np.concatenate([a, b - a, c - a], axis=1)
            normal = np.cross(corners[:, 3:6], corners[:, 6:9])
            normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
            kind = mesh.materials[mesh.triangles[:, 0]]
            tone = mesh.colours[mesh.triangles[:, 0], :3].mean(axis=1) / 255
            uvs = mesh.uvs[mesh.triangles]
            columns.append(
                (bounds, links, order, corners, uvs, cut_table[kind], normal, kind, tone)
            )
        bounds, links, order, corners, uvs, layers, *rest = map(
            np.concatenate, zip(*columns, strict=True)
        )
        self.normals, self.materials, self.tones = rest
        texture = texture_array(texture_seed)
        alpha = np.ascontiguousarray(texture[[LAYERS[n] for n in CUTOUTS], ..., 3])
        self.geometry = Geometry(
            bounds, links, order, corners.astype(np.float64), uvs, layers, alpha
        )


@dataclass(eq=False)
class Hits:
    """Closest hits of R rays: distance (R,), instance (R,) and triangle (R,), -1 where none."""

    distance: np.ndarray
    instance: np.ndarray
    triangle: np.ndarray


def cast_rays(
    library: Library,
    shapes: Sequence[int],
    poses: np.ndarray,
    velocities: np.ndarray,
    origins: np.ndarray,
    directions: np.ndarray,
    delays: np.ndarray,
    limit: float,
) -> Hits:
    """Cast rays at instances of a library's shapes.

    Args:
        library: the shapes.
        shapes: (I,) shape of each instance.
        poses: (I, 4, 4) world_from_instance, rigid.
        velocities: (I, 3) metres a second.
        origins: (R, 3) world.
        directions: (R, 3) unit vectors, world.
        delays: (R,) seconds after the poses' moment.
        limit: metres.
    """
    used = [library.shapes[s] for s in shapes]
    corners = np.stack([np.stack([s.low, s.high]) for s in used])
    picks = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])
    local = np.take_along_axis(corners, picks[None].repeat(len(used), axis=0), axis=1)
    world = local @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]
    span = max(abs(float(delays.min())), abs(float(delays.max()))) if len(delays) else 0.0
    slack = np.abs(velocities) * span + 1e-3
    low = (world.min(axis=1) - slack).astype(np.float32)
    high = (world.max(axis=1) + slack).astype(np.float32)
    bounds, links, order = build(low, high)
    instances = Instances(
        bounds,
        links,
        order,
        np.linalg.inv(poses),
        np.ascontiguousarray(velocities, np.float64),
        np.array([s.root for s in used]),
        np.array([s.first for s in used]),
    )
    rays = Rays(*(np.ascontiguousarray(a, np.float64) for a in (origins, directions, delays)))
    count = len(origins)
    hits = Hits(np.empty(count), np.empty(count, np.int64), np.empty(count, np.int64))
    cast(
        library.geometry,
        instances,
        rays,
        float(limit),
        hits.distance,
        hits.instance,
        hits.triangle,
    )
    return hits
