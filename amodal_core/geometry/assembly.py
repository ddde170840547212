"""Objects out of clusters: what glass, a mirror or a pole split is put together again.

Whatever cluster could be a vehicle's side is completed to a whole vehicle first; the clusters that
lie inside that vehicle (its seats behind glass, its roof behind the rear window's gap) are its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from amodal_core.geometry.boxes3d import iou_bev, points_in_boxes
from amodal_core.geometry.clustering import Evidence, Ground, RangeImage, gather_evidence
from amodal_core.geometry.completion import VEHICLES, Candidate, complete

_INSIDE = 0.6
"""Share of a cluster's returns inside a completed vehicle from which on they are the vehicle's."""

_MARGIN = 0.2

_COUPLING = 1.3
"""Metres between a tractor's and a trailer's returns; vehicles in a queue keep farther apart."""


_THINNED = 300


@dataclass(frozen=True, eq=False)
class Found:
    """A candidate with its returns, `index` (M,) into the scan's points, and their evidence."""

    candidate: Candidate
    index: np.ndarray
    evidence: Evidence


def assemble(
    points: np.ndarray,
    heights: np.ndarray,
    labels: np.ndarray,
    image: RangeImage,
    ground: Ground,
    seen: np.ndarray,
    min_points: int,
) -> tuple[list[Found], np.ndarray]:
    """The objects of a scan.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        heights: (N,) float32, metres above the ground.
        labels: (N,) int32 clusters, -1 for points of none.
        image: the range image.
        ground: the ground's shape.
        seen: (N,) bool, points that fall into the camera's image; clusters without any are left
            alone.
        min_points: clusters with fewer returns found no object (they may become part of one).

    Returns:
        The objects, and (N,) int32 the object of each point, -1 for points of none.
    """
    count = int(labels.max(initial=-1)) + 1
    inside = np.flatnonzero(labels >= 0)
    own = labels[inside]
    size = np.bincount(own, minlength=count)
    # Two bytes sort several times faster than four.
    short = own.astype(np.uint16) if count <= 0xFFFF else own
    order = inside[np.argsort(short, kind="stable")]
    last = np.cumsum(size).tolist()
    members = [order[end - n : end] for end, n in zip(last, size.tolist(), strict=True)]
    visible = np.bincount(own[seen[inside]], minlength=count)
    evidence = gather_evidence(points, image, labels, count)
    centres = np.stack([np.bincount(own, points[inside, k], minlength=count) for k in range(3)])
    centres = (centres / np.maximum(size, 1)).T
    taken = np.zeros(count, bool)
    found: list[Found] = []
    rest: list[Found] = []
    # The vehicle with the most returns first: it is the best known.
    for k in np.argsort(-size, kind="stable"):
        if taken[k] or size[k] < min_points or visible[k] < 3:
            continue
        index = members[k]
        candidate = complete(points[index], heights[index], evidence[k], ground)
        if candidate is None:
            continue
        if candidate.name not in VEHICLES:
            rest.append(Found(candidate, index, evidence[k]))
            continue
        taken[k] = True
        parts = _parts_inside(candidate.box, points, members, taken, centres)
        if parts:
            union = np.concatenate([index, *(members[p] for p in parts)])
            whole = complete(points[union], heights[union], evidence[k], ground)
            if whole is not None and whole.name in VEHICLES:
                candidate, index = whole, union
                taken[parts] = True
        found.append(Found(candidate, index, evidence[k]))
    # What a vehicle took after it was looked at is no object of its own any more.
    found += [r for r in rest if not taken[labels[r.index[0]]]]
    found = _without_overlap(_coupled(found, points, heights, ground))
    owner = np.full(len(points), -1, np.int32)
    for number, f in enumerate(found):
        owner[f.index] = number
    return found, owner


def _parts_inside(
    box: np.ndarray,
    points: np.ndarray,
    members: list[np.ndarray],
    taken: np.ndarray,
    centres: np.ndarray,
) -> list[int]:
    """The clusters, not yet taken, that stand inside a box of any height."""
    column = box[None].copy()
    column[0, 5] = 20.0
    close = np.flatnonzero(points_in_boxes(centres, column, 2 * _MARGIN)[0] & ~taken)
    return [
        int(k)
        for k in close
        if np.mean(points_in_boxes(points[members[k]], column, _MARGIN)) > _INSIDE
    ]


def _coupled(
    found: list[Found], points: np.ndarray, heights: np.ndarray, ground: Ground
) -> list[Found]:
    """Join a truck with what stands in line right before or behind it: cab, chassis, trailer."""
    parts = [_Part.of(f, points) for f in found if f.candidate.name in VEHICLES]
    i = 0
    while i < len(parts):
        a = parts[i]
        joined = -1
        for j, b in enumerate(parts):
            if j == i or a.found.candidate.name != "truck" or not a.meets(b):
                continue
            whole = _join(a.found, b.found, points, heights, ground)
            if whole is not None:
                joined = j
                parts[i] = _Part.of(whole, points)
                break
        if joined >= 0:
            del parts[joined]
            i = 0
        else:
            i += 1
    return [p.found for p in parts] + [f for f in found if f.candidate.name not in VEHICLES]


def _join(
    a: Found, b: Found, points: np.ndarray, heights: np.ndarray, ground: Ground
) -> Found | None:
    """Both as one truck, if they make one no wider than the narrower of them allows."""
    index = np.concatenate([a.index, b.index])
    evidence = Evidence(
        # Which ends are the whole's is not known: as little is its own as of the parts.
        hidden_left=max(a.evidence.hidden_left, b.evidence.hidden_left),
        hidden_right=max(a.evidence.hidden_right, b.evidence.hidden_right),
        touching=max(a.evidence.touching, b.evidence.touching),
        cut_above=max(a.evidence.cut_above, b.evidence.cut_above),
        smooth=float(
            np.average((a.evidence.smooth, b.evidence.smooth), weights=(len(a.index), len(b.index)))
        ),
    )
    whole = complete(points[index], heights[index], evidence, ground)
    widest = 1.25 * max(2.4, min(a.candidate.box[4], b.candidate.box[4]))
    if whole is None or whole.name != "truck" or whole.box[4] > widest:
        return None
    return Found(whole, index, evidence)


@dataclass(frozen=True, eq=False)
class _Part:
    """A vehicle's returns on the ground plane, thinned, and the box around them."""

    found: Found
    xy: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, found: Found, points: np.ndarray) -> _Part:
        thinned = found.index[:: -(-len(found.index) // _THINNED)]
        xy = points[thinned, :2].astype(np.float64)
        return cls(found, xy, xy.min(axis=0), xy.max(axis=0))

    def meets(self, other: _Part) -> bool:
        """Whether any two returns are nearer than a coupling is long."""
        if (np.maximum(self.low - other.high, other.low - self.high) > _COUPLING).any():
            return False
        return bool(cdist(self.xy, other.xy).min() < _COUPLING)


def _without_overlap(found: list[Found]) -> list[Found]:
    """Of two that stand in the same place only the one with more returns is real."""
    if len(found) < 2:
        return found
    found = sorted(found, key=lambda f: -len(f.index))
    boxes = np.array([f.candidate.box for f in found])
    overlap = iou_bev(boxes, boxes)
    area = boxes[:, 3] * boxes[:, 4]
    shared = overlap * (area[:, None] + area[None]) / (1 + overlap)
    keep: list[int] = []
    for i in range(len(found)):
        if all(shared[i, j] < 0.4 * min(area[i], area[j]) for j in keep):
            keep.append(i)
    return [found[i] for i in keep]
