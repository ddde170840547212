"""Which locations learn which object: task-aligned assignment (TOOD, Feng et al. 2021).

A location is good for an object when it scores the object's class and draws its amodal box well.
Only locations on the object's visible part are asked, as nothing is seen of it elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from amodal_core.models.layers.batch import Targets

_LOCATIONS = 10  # an object
_CLASS_POWER, _BOX_POWER = 0.5, 4.0
_TINY = 1e-6  # weight of closeness to the object, which decides while nothing is learned yet


@dataclass
class Assignment:
    """What every one of A locations of B images is to learn.

    Attributes:
        objects: (B, A) int64, the object's index in its image, -1 for background.
        ranks: (B, A) int64, place of the location among the object's, 0 the best.
        quality: (B, A) float32, the score to be learned, 0 on background.
        ignored: (B, A) bool, background that may hide an object without annotation.
    """

    objects: torch.Tensor
    ranks: torch.Tensor
    quality: torch.Tensor
    ignored: torch.Tensor


def pair_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """IoU of boxes (..., 4) with boxes (..., 4) that broadcast."""
    # Side by side, not as pairs on the last axis: what broadcasts is made once and read in order.
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.unbind(-1), b.unbind(-1)
    width = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    height = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    shared = width * height
    own = (ax1 - ax0).clamp(min=0) * (ay1 - ay0).clamp(min=0)
    other = (bx1 - bx0).clamp(min=0) * (by1 - by0).clamp(min=0)
    return shared / (own + other - shared).clamp(min=1e-6)


@torch.no_grad()
def assign(
    scores: torch.Tensor,
    boxes: torch.Tensor,
    points: torch.Tensor,
    targets: Sequence[Targets],
) -> Assignment:
    """Assign locations to the objects of each image.

    Args:
        scores: (B, A, classes) float32, 0-1.
        boxes: (B, A, 4) float32, each location's amodal box.
        points: (A, 2) float32 x, y of the locations in pixels.
        targets: one an image; what is to be ignored is no object.
    """
    results = [_one(s, b, points, t) for s, b, t in zip(scores, boxes, targets, strict=True)]
    return Assignment(*[torch.stack(values) for values in zip(*results, strict=True)])


def _one(
    scores: torch.Tensor, boxes: torch.Tensor, points: torch.Tensor, targets: Targets
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    count = len(points)
    objects = torch.full((count,), -1, dtype=torch.int64, device=points.device)
    ranks = torch.zeros_like(objects)
    quality = points.new_zeros(count)
    ignored = points.new_zeros(count, dtype=torch.bool)
    wanted = trainable(targets)
    if len(targets):
        skipped = targets.boxes[~wanted]
        ignored = _inside(points, skipped).any(0)
    rows = torch.nonzero(wanted)[:, 0]
    if len(rows) == 0:
        return objects, ranks, quality, ignored
    truth, labels = targets.boxes[rows], targets.labels[rows]
    shown = targets.visible_boxes[rows]
    where = torch.where((shown[:, 2:] > shown[:, :2]).all(1)[:, None], shown, truth)
    offset = points[None] - (where[:, None, :2] + where[:, None, 2:]) / 2
    distance = (offset / (where[:, None, 2:] - where[:, None, :2] + 8)).norm(dim=-1)
    candidate = _inside(points, where)
    # An object between all locations gets the nearest one.
    nearest = distance.argmin(1, keepdim=True)
    candidate = candidate.scatter(1, nearest, True)
    overlap = pair_iou(boxes[None], truth[:, None])
    aligned = scores[:, labels].t() ** _CLASS_POWER * overlap**_BOX_POWER
    metric = torch.where(candidate, aligned + _TINY * torch.exp(-distance), 0.0)
    best, places = metric.topk(min(_LOCATIONS, count), dim=1)
    rank = torch.full_like(metric, -1).scatter(
        1, places, torch.arange(best.shape[1], device=metric.device).expand_as(best).to(metric)
    )
    chosen = (rank >= 0) & candidate
    # A location that several objects want goes to the one that its box fits best.
    claim = torch.where(chosen, overlap + metric, -1.0)
    owner = claim.argmax(0)
    taken = chosen.any(0)
    own = torch.arange(count, device=points.device)
    # The best location of an object learns the IoU that the object's best box has.
    held = chosen & (torch.arange(len(rows), device=points.device)[:, None] == owner)
    strongest = torch.where(held, metric, 0.0).amax(1, keepdim=True).clamp(min=1e-12)
    widest = torch.where(held, overlap, 0.0).amax(1, keepdim=True)
    share = metric / strongest * widest
    objects = torch.where(taken, rows[owner], objects)
    ranks = torch.where(taken, rank[owner, own].long(), ranks)
    quality = torch.where(taken, share[owner, own], quality)
    return objects, ranks, quality, ignored & ~taken


def trainable(targets: Targets) -> torch.Tensor:
    """(N,) bool: objects that are not to be ignored and have an extent."""
    return ~targets.ignore & (targets.boxes[:, 2:] > targets.boxes[:, :2]).all(1)


def _inside(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(N, A) bool: which of the points lie in which box."""
    low, high = points[None] - boxes[:, None, :2], boxes[:, None, 2:] - points[None]
    return (torch.minimum(low, high) > 0).all(-1)
