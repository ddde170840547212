"""Overlap of rotated rectangles and the suppression of weaker ones, in plain torch."""

from __future__ import annotations

import torch

_EPSILON = 1e-6
_PAIRS = 200_000  # at a time: 0.4 GB


def corners_bev(boxes: torch.Tensor) -> torch.Tensor:
    """(N, 4, 2) corners, counter-clockwise, of (N, 5) x, y, length, width, yaw."""
    signs = boxes.new_tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    local = signs * boxes[:, None, 2:4]
    c, s = torch.cos(boxes[:, 4]), torch.sin(boxes[:, 4])
    turn = torch.stack([torch.stack([c, s], 1), torch.stack([-s, c], 1)], 1)
    return local @ turn + boxes[:, None, :2]


def _inside(points: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """(..., P) bool: (..., P, 2) points within (..., 4, 2) counter-clockwise rectangles."""
    edge = torch.roll(corners, -1, -2) - corners
    to_point = points[..., :, None, :] - corners[..., None, :, :]
    cross = edge[..., None, :, 0] * to_point[..., 1] - edge[..., None, :, 1] * to_point[..., 0]
    return (cross >= -_EPSILON).all(-1)


def iou_bev(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(N, M) intersection over union of (N, 5) and (M, 5) x, y, length, width, yaw."""
    n, m = len(a), len(b)
    rows, columns = a[:, None].expand(n, m, 5).flatten(0, 1), b.expand(n, m, 5).flatten(0, 1)
    return paired_iou_bev(rows, columns).reshape(n, m)


def paired_iou_bev(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(N,) intersection over union of (N, 5) and (N, 5) x, y, length, width, yaw, one by one.

    The intersection of two rectangles has its corners among the corners of one within the other and
    the crossings of their edges; sorted by angle they give its area.
    """
    if len(a) == 0:
        return a.new_zeros(0)
    one, two = corners_bev(a.double()), corners_bev(b.double())
    p, q = one[:, :, None], two[:, None]
    r = (torch.roll(one, -1, 1) - one)[:, :, None]
    s = (torch.roll(two, -1, 1) - two)[:, None]
    denominator = r[..., 0] * s[..., 1] - r[..., 1] * s[..., 0]
    parallel = denominator.abs() < 1e-12
    safe = torch.where(parallel, 1.0, denominator)
    gap = q - p
    t = (gap[..., 0] * s[..., 1] - gap[..., 1] * s[..., 0]) / safe
    u = (gap[..., 0] * r[..., 1] - gap[..., 1] * r[..., 0]) / safe
    crossing = ~parallel & (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)
    points = torch.cat([one, two, (p + t[..., None] * r).flatten(1, 2)], dim=1)
    valid = torch.cat([_inside(one, two), _inside(two, one), crossing.flatten(1)], dim=1)
    count = valid.sum(1)
    centre = (points * valid[..., None]).sum(1) / count.clamp(min=1)[..., None]
    offset = points - centre[:, None]
    angle = torch.atan2(offset[..., 1], offset[..., 0])
    order = torch.where(valid, angle, torch.inf).argsort(1)
    offset = torch.gather(offset, 1, order[..., None].expand_as(offset))
    valid = torch.gather(valid, 1, order)
    # Places without a corner repeat the first one, which closes the polygon.
    offset = torch.where(valid[..., None], offset, offset[:, :1])
    after = torch.roll(offset, -1, 1)
    doubled = (offset[..., 0] * after[..., 1] - offset[..., 1] * after[..., 0]).sum(1)
    shared = torch.where(count >= 3, doubled.abs() / 2, 0.0)
    area_a, area_b = (x[:, 2].double() * x[:, 3].double() for x in (a, b))
    return (shared / (area_a + area_b - shared).clamp(min=1e-9)).to(a.dtype)


def rotated_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Positions of the boxes that no better one overlaps by more than `threshold`, best first.

    Args:
        boxes: (N, 5) x, y, length, width, yaw.
        scores: (N,).
        threshold: IoU.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    # Only boxes whose circles meet can overlap: few pairs of thousands of boxes in a street.
    reach = boxes[:, 2:4].norm(dim=1) / 2
    gap = boxes[:, None, :2] - boxes[None, :, :2]
    near = gap.norm(dim=2) < (reach[:, None] + reach) * (1 + _EPSILON)
    better, worse = torch.nonzero(near.triu(1), as_tuple=True)
    overlap = torch.zeros(near.shape, dtype=torch.bool)
    for i, j in zip(better.split(_PAIRS), worse.split(_PAIRS), strict=True):
        above = paired_iou_bev(boxes[i], boxes[j]) > threshold
        overlap[i[above].cpu(), j[above].cpu()] = True
    kept = torch.ones(len(order), dtype=torch.bool)
    for n in range(len(order)):
        if kept[n]:
            kept[n + 1 :] &= ~overlap[n, n + 1 :]
    return order[kept.to(order.device)]
