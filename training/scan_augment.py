"""Changes of a scan alone, for models that learn 3D boxes from it: they have no image to fit.

SECOND's (Yan, Mao, Li, Sensors 2018) and PointPillars' (Lang et al., CVPR 2019), in their order:
objects of other scans are put in, every object is moved a little, the street is mirrored, turned,
scaled and shifted. The calibration goes with the last three, so that projected points stay where
they were in the image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from amodal_core.frame import Calibration, Frame
from amodal_core.geometry.boxes3d import iou_bev, points_in_boxes

from .augment import flipped
from .config import ScanAugment
from .mask_crops import CroppedTargets, MaskCrops
from .object_bank import ObjectBank


def augmented_scan(
    frame: Frame,
    targets: CroppedTargets,
    options: ScanAugment,
    flip: float,
    bank: ObjectBank | None,
    draw: np.random.Generator,
) -> tuple[Frame, CroppedTargets]:
    """A changed copy of a sample with points and 3D boxes.

    Args:
        frame: with points, cut to what the model is to see.
        targets: with `boxes3d`; objects without one stay as they are.
        options: what may happen.
        flip: probability of mirroring.
        bank: where other scans' objects come from; None for none.
        draw: decides.
    """
    assert frame.points is not None
    points = frame.points
    if bank is not None:
        points, targets = _with_objects(points, targets, options, bank, draw)
    if options.move or options.spin:
        points, targets = _with_noise(points, targets, options, draw)
    frame = replace(frame, points=points)
    if draw.random() < flip:
        frame, targets = flipped(frame, targets)
    frame, targets = moved_street(
        frame,
        targets,
        draw.uniform(-options.turn, options.turn),
        draw.uniform(*options.scale),
        draw.normal(0.0, options.shift, 3),
    )
    assert frame.points is not None
    return replace(frame, points=draw.permutation(frame.points)), targets


def _solid(targets: CroppedTargets) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the objects with a 3D box, and these (N, 7) float64."""
    boxes = targets.boxes3d.numpy().astype(np.float64)
    rows = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    return rows, boxes[rows]


def _with_objects(
    points: np.ndarray,
    targets: CroppedTargets,
    options: ScanAugment,
    bank: ObjectBank,
    draw: np.random.Generator,
) -> tuple[np.ndarray, CroppedTargets]:
    """Objects of other scans where they stood there, if nothing stands there here."""
    _, boxes = _solid(targets)
    own = targets.labels[~targets.ignore].tolist()
    chosen: list[int] = []
    for label, name in enumerate(bank.classes):
        candidates = bank.of_class(label)
        wanted = min(options.objects.get(name, 0) - own.count(label), len(candidates))
        for number in draw.permutation(candidates)[: max(wanted, 0)].tolist():
            box = bank.boxes[number : number + 1].astype(np.float64)
            if not (iou_bev(box, boxes) > 0).any():
                boxes = np.concatenate([boxes, box])
                chosen.append(number)
    if not chosen:
        return points, targets
    covered = points_in_boxes(points, bank.boxes[chosen]).any(axis=0)
    points = np.concatenate([*(bank.points_of(n) for n in chosen), points[~covered]])
    return points, _joined(targets, bank.boxes[chosen], bank.labels[chosen])


def _joined(targets: CroppedTargets, boxes3d: np.ndarray, labels: np.ndarray) -> CroppedTargets:
    """The targets and further objects, of which nothing is known in the image."""
    n, before = len(labels), len(targets)
    parts: dict[str, Any] = {
        name: value.with_empty(n)
        if isinstance(value, MaskCrops)
        else torch.cat([value, value.new_zeros((n, *value.shape[1:]))])
        for name, value in vars(targets).items()
    }
    parts["occluders"] = torch.zeros((before + n, before + n), dtype=torch.bool)
    parts["occluders"][:before, :before] = targets.occluders
    parts["labels"][before:] = torch.from_numpy(labels)
    parts["boxes3d"][before:] = torch.from_numpy(boxes3d)
    most = int(targets.ids.max()) if before else -1
    parts["ids"][before:] = torch.arange(most + 1, most + 1 + n)
    return CroppedTargets(**parts)


def _with_noise(
    points: np.ndarray, targets: CroppedTargets, options: ScanAugment, draw: np.random.Generator
) -> tuple[np.ndarray, CroppedTargets]:
    """Each object with its points moved and turned, to the first drawn place that is free."""
    rows, boxes = _solid(targets)
    if not len(rows):
        return points, targets
    points = points.copy()
    inside = points_in_boxes(points, boxes)
    free = np.ones(len(points), bool)  # a point moves once
    for k, box in enumerate(boxes.copy()):
        others = np.delete(boxes, k, axis=0)
        moves = draw.normal(0.0, options.move, (options.tries, 3))
        turns = draw.uniform(-options.spin, options.spin, options.tries)
        for move, turn in zip(moves, turns, strict=True):
            candidate = box + np.array([*move, 0, 0, 0, turn])
            if not (iou_bev(candidate[None], others) > 0).any():
                boxes[k] = candidate
                own = inside[k] & free
                free &= ~own
                local = points[own, :3] - box[:3]
                points[own, :3] = local @ _rotation(turn).T + candidate[:3]
                break
    boxes3d = targets.boxes3d.clone()
    boxes3d[torch.from_numpy(rows)] = torch.from_numpy(boxes).to(boxes3d)
    return points, replace(targets, boxes3d=boxes3d)


def moved_street(
    frame: Frame, targets: CroppedTargets, turn: float, scale: float, shift: np.ndarray
) -> tuple[Frame, CroppedTargets]:
    """The scan turned about +z, scaled and shifted (3,), in this order.

    What is scaled about the camera projects to where it was, so that the calibration can follow.
    """
    assert frame.points is not None
    R = _rotation(turn)
    points = frame.points.copy()
    points[:, :3] = scale * points[:, :3] @ R.T + shift
    calibration = frame.calibration
    if calibration is not None:
        T = calibration.camera_from_lidar.copy()
        T[:3, :3] = T[:3, :3] @ R.T
        T[:3, 3] = scale * T[:3, 3] - T[:3, :3] @ shift
        calibration = Calibration(calibration.K, T, calibration.width, calibration.height)
    boxes = targets.boxes3d.numpy().astype(np.float64)
    boxes[:, :3] = scale * boxes[:, :3] @ R.T + shift
    boxes[:, 3:6] *= scale
    boxes[:, 6] += turn
    boxes3d = torch.from_numpy(boxes).to(targets.boxes3d)
    frame = replace(frame, points=points, calibration=calibration)
    return frame, replace(targets, boxes3d=boxes3d)


def _rotation(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
