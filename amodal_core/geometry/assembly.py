"""Objects out of clusters: what glass, a mirror or a pole split is put together again.

Whatever cluster could be a vehicle's side is completed to a whole vehicle first; the clusters that
lie inside that vehicle (its seats behind glass, its roof behind the rear window's gap) are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from amodal_core.geometry.boxes3d import iou_bev
from amodal_core.geometry.classification import CLASSES, NOTHING, VEHICLES
from amodal_core.geometry.completion import complete
from amodal_core.geometry.config import DEFAULTS, GeometricConfig
from amodal_core.geometry.context import CONTEXT, ClusterContext, context_shares
from amodal_core.geometry.footprints import measured
from amodal_core.geometry.ground import Ground
from amodal_core.geometry.range_image import RangeImage


@dataclass(frozen=True, eq=False)
class Candidate:
    """An object of a scan.

    Attributes:
        name: one of `classification.CLASSES`.
        box: (7,) float64, see `amodal_core.geometry.boxes3d`, standing on the ground.
        score: 0-1.
        cut_above: the scan ends below the object's top, so that its height is a guess.
    """

    name: str
    box: np.ndarray
    score: float
    cut_above: bool


@dataclass(frozen=True, eq=False)
class Detection:
    """A candidate with its returns, `index` (M,) into the scan's points, and their context."""

    candidate: Candidate
    index: np.ndarray
    context: ClusterContext


def assemble(
    points: np.ndarray,
    heights: np.ndarray,
    labels: np.ndarray,
    image: RangeImage,
    ground: Ground,
    inside: np.ndarray,
    config: GeometricConfig = DEFAULTS,
) -> tuple[list[Detection], np.ndarray]:
    """The objects of a scan.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        heights: (N,) float32, metres above the ground.
        labels: (N,) int32 clusters, -1 for points of none.
        image: the range image.
        ground: the ground's shape.
        inside: (M,) int64, points that fall into the camera's image; clusters without any are left
            alone.
        config: clusters with fewer returns than `cluster.min_points` begin no object (they may
            become part of one).

    Returns:
        The objects, and (N,) int32 the object of each point, -1 for points of none.
    """
    # The members of each cluster, their number, their centre, and how many are in view.
    count = int(labels.max(initial=-1)) + 1
    order, size, visible, centres = _census(points, labels, inside, count)
    last = np.cumsum(size)
    shares = context_shares(points, image, labels, count, config.context)
    # What could be an object is measured, the cluster with the most returns first.
    many = np.flatnonzero(
        (size >= config.cluster.min_points) & (visible >= config.cluster.min_inside)
    )
    many = many[np.argsort(-size[many], kind="stable")]
    if not len(many):
        return [], np.full(len(points), -1, np.int32)
    members = [order[end - n : end] for end, n in zip(last[many], size[many], strict=True)]
    contexts = shares[many].astype(np.float64).view(CONTEXT)[:, 0]
    candidates = _candidates(points, heights, members, contexts, ground, config)
    # Vehicles take what is inside them; the one with the most returns first, as the best known.
    taken = np.zeros(count, bool)
    vehicles: list[Detection] = []
    others: list[Detection] = []
    for k, index, row, candidate in zip(many.tolist(), members, contexts, candidates, strict=True):
        if taken[k] or candidate is None:
            continue
        context = ClusterContext._make(row.item())
        if candidate.name not in VEHICLES:
            others.append(Detection(candidate, index, context))
            continue
        taken[k] = True
        column = candidate.box.copy()
        column[5] = config.assembly.column
        turn = np.cos(column[6]), np.sin(column[6])
        limits = config.assembly.margin, config.assembly.inside
        inner = _inside(points, order, last, size, taken, centres, column, turn, limits)
        if len(inner):
            union = np.concatenate([index, *(order[last[p] - size[p] : last[p]] for p in inner)])
            (joined,) = _candidates(points, heights, [union], row, ground, config)
            if joined is not None and joined.name in VEHICLES:
                candidate, index = joined, union
                taken[inner] = True
        vehicles.append(Detection(candidate, index, context))
    # What a vehicle took after it was looked at is no object of its own any more.
    others = [d for d in others if not taken[labels[d.index[0]]]]
    vehicles = _coupled(vehicles, points, heights, ground, config)
    detections = _without_overlap(vehicles + others, config.assembly.overlap)
    owner = np.full(len(points), -1, np.int32)
    for number, d in enumerate(detections):
        owner[d.index] = number
    return detections, owner


@njit(cache=True)
def _census(
    points: np.ndarray, labels: np.ndarray, inside: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points by cluster, in their order; of each cluster how many, how many in view, the centre."""
    size, visible = np.zeros(count, np.int64), np.zeros(count, np.int64)
    centres = np.zeros((count, 3))
    for i in range(len(labels)):
        k = labels[i]
        if k >= 0:
            size[k] += 1
            for m in range(3):
                centres[k, m] += points[i, m]
    for i in inside:
        if labels[i] >= 0:
            visible[labels[i]] += 1
    begin, total = np.zeros(count, np.int64), 0
    for k in range(count):
        for m in range(3):
            centres[k, m] /= max(size[k], 1)
        begin[k] = total
        total += size[k]
    order = np.empty(total, np.int64)
    for i in range(len(labels)):
        k = labels[i]
        if k >= 0:
            order[begin[k]] = i
            begin[k] += 1
    return order, size, visible, centres


@njit(cache=True)
def _inside(
    points: np.ndarray,
    order: np.ndarray,
    last: np.ndarray,
    size: np.ndarray,
    taken: np.ndarray,
    centres: np.ndarray,
    box: np.ndarray,
    turn: tuple[float, float],
    limits: tuple[float, float],
) -> np.ndarray:
    """The clusters, not yet taken, of which more than a share stands inside a box."""
    margin, share = limits
    chosen = np.zeros(len(size), np.bool_)
    total = 0
    for k in range(len(size)):
        if taken[k] or not _within(centres[k], box, turn, 2 * margin):
            continue
        count = 0
        for m in range(last[k] - size[k], last[k]):
            count += _within(points[order[m]], box, turn, margin)
        chosen[k] = count / size[k] > share
        total += chosen[k]
    result = np.empty(total, np.int64)
    total = 0
    for k in range(len(size)):
        if chosen[k]:
            result[total] = k
            total += 1
    return result


@njit(cache=True)
def _within(point: np.ndarray, box: np.ndarray, turn: tuple[float, float], margin: float) -> bool:
    """As `points_in_boxes`, for one of each."""
    c, s = turn
    dx, dy, dz = point[0] - box[0], point[1] - box[1], point[2] - box[2]
    inside = abs(c * dx + s * dy) <= box[3] / 2 + margin
    inside &= abs(-s * dx + c * dy) <= box[4] / 2 + margin
    return inside & (abs(dz) <= box[5] / 2 + margin)


def _candidates(
    points: np.ndarray,
    heights: np.ndarray,
    members: Sequence[np.ndarray],
    contexts: np.ndarray,
    ground: Ground,
    config: GeometricConfig,
) -> list[Candidate | None]:
    """The objects that K things' returns are part of, None where they are no one's."""
    footprints, xy, high = measured(points, heights, members, contexts, config)
    kinds, boxes, scores = complete(footprints, xy, high, ground, config.objects)
    return [
        None if kind == NOTHING else Candidate(CLASSES[kind], box, score, cut)
        for kind, box, score, cut in zip(
            kinds.tolist(), boxes, scores.tolist(), footprints["cut"].tolist(), strict=True
        )
    ]


def _coupled(
    vehicles: list[Detection],
    points: np.ndarray,
    heights: np.ndarray,
    ground: Ground,
    config: GeometricConfig,
) -> list[Detection]:
    """Join a truck with what stands in line right before or behind it: cab, chassis, trailer."""
    if all(d.candidate.name != "truck" for d in vehicles):
        return vehicles
    outlines = [_Outline.of(d, points, config.assembly.thinned) for d in vehicles]
    i = 0
    while i < len(outlines):
        a = outlines[i]
        joined = -1
        near = []
        if a.detection.candidate.name == "truck":
            gaps = np.maximum(
                [a.low - o.high for o in outlines], [o.low - a.high for o in outlines]
            )
            near = np.flatnonzero((gaps <= config.assembly.coupling).all(1)).tolist()
        for j in near:
            b = outlines[j]
            if j == i or not a.meets(b, config.assembly.coupling):
                continue
            truck = _join(a.detection, b.detection, points, heights, ground, config)
            if truck is not None:
                joined = j
                outlines[i] = _Outline.of(truck, points, config.assembly.thinned)
                break
        if joined >= 0:
            del outlines[joined]
            i = 0
        else:
            i += 1
    return [outline.detection for outline in outlines]


def _join(
    a: Detection,
    b: Detection,
    points: np.ndarray,
    heights: np.ndarray,
    ground: Ground,
    config: GeometricConfig,
) -> Detection | None:
    """Both as one truck, if they make one no wider than the narrower of them allows."""
    index = np.concatenate([a.index, b.index])
    smooth = len(a.index) * a.context.smooth + len(b.index) * b.context.smooth
    context = ClusterContext(
        # Which ends are the joined one's is not known: as little is its own as of the two.
        hidden_left=max(a.context.hidden_left, b.context.hidden_left),
        hidden_right=max(a.context.hidden_right, b.context.hidden_right),
        touching=max(a.context.touching, b.context.touching),
        cut_above=max(a.context.cut_above, b.context.cut_above),
        smooth=smooth / len(index),
    )
    (joined,) = _candidates(points, heights, [index], np.array(context, CONTEXT), ground, config)
    narrower = min(a.candidate.box[4], b.candidate.box[4])
    widest = config.assembly.coupled_width * max(config.assembly.coupled_least, narrower)
    if joined is None or joined.name != "truck" or joined.box[4] > widest:
        return None
    return Detection(joined, index, context)


@dataclass(frozen=True, eq=False)
class _Outline:
    """A vehicle's returns on the ground plane, thinned, and the box around them."""

    detection: Detection
    xy: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, detection: Detection, points: np.ndarray, count: int) -> _Outline:
        thinned = detection.index[:: -(-len(detection.index) // count)]
        xy = points.take(thinned, axis=0)[:, :2].astype(np.float64)
        return cls(detection, xy, xy.min(axis=0), xy.max(axis=0))

    def meets(self, other: _Outline, coupling: float) -> bool:
        """Whether any two returns are nearer than a coupling is long."""
        return bool(_meet(self.xy, other.xy, other.low - coupling, other.high + coupling, coupling))


@njit(cache=True)
def _meet(a: np.ndarray, b: np.ndarray, low: np.ndarray, high: np.ndarray, least: float) -> bool:
    """Whether any two are nearer than the least; all that are so near b stand in the box."""
    for i in range(len(a)):
        if a[i, 0] < low[0] or a[i, 1] < low[1] or a[i, 0] > high[0] or a[i, 1] > high[1]:
            continue
        for j in range(len(b)):
            dx, dy = a[i, 0] - b[j, 0], a[i, 1] - b[j, 1]
            if np.sqrt(dx * dx + dy * dy) < least:
                return True
    return False


def _without_overlap(detections: list[Detection], most: float) -> list[Detection]:
    """Of two that stand in the same place only the one with more returns is real."""
    if len(detections) < 2:
        return detections
    detections = sorted(detections, key=lambda d: -len(d.index))
    boxes = np.array([d.candidate.box for d in detections])
    overlap = iou_bev(boxes, boxes)
    area = boxes[:, 3] * boxes[:, 4]
    shared = overlap * (area[:, None] + area[None]) / (1 + overlap)
    same = shared >= most * np.minimum(area[:, None], area[None])
    keep: list[int] = []
    for i in range(len(detections)):
        if not same[i, keep].any():
            keep.append(i)
    return [detections[i] for i in keep]
