"""Anchors of 3D boxes on a bird's-eye grid, and boxes as deltas to them.

A network's boxes are x, y, z of the bottom's centre, two sizes in the ground plane, height and a
heading, in one of two forms (`Heading`); outside they are ours (`Instances.boxes3d`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

# How a network describes boxes. rotation_y: width, length, and KITTI's angle, clockwise from -y
# (mmdetection3d 0.x); yaw: length, width, and the angle from +x to +y (mmdetection3d 1.x,
# OpenPCDet since 0.2). At an angle of 0 the first size lies along x, the second along y.
Heading = Literal["rotation_y", "yaw"]


@dataclass(frozen=True)
class Anchor:
    """A class's anchor: width, length, height and z of its bottom in metres, and its IoU limits."""

    size: tuple[float, float, float]
    bottom: float
    positive: float
    negative: float


ANCHORS = {
    "pedestrian": Anchor((0.6, 0.8, 1.73), -0.6, 0.5, 0.35),
    "cyclist": Anchor((0.6, 1.76, 1.73), -0.6, 0.5, 0.35),
    "car": Anchor((1.6, 3.9, 1.56), -1.78, 0.6, 0.45),
}
ROTATIONS = (0.0, 1.57)


def anchor_grid(
    classes: Sequence[str],
    extent: tuple[float, float, float, float],
    size: tuple[int, int],
    heading: Heading,
    align_center: bool,
) -> torch.Tensor:
    """(rows * columns * classes * 2, 7) anchors in the network's form, x fastest but for classes.

    Args:
        classes: keys of `ANCHORS`.
        extent: x and y of the first edge, x and y of the last, metres.
        size: rows along y, columns along x.
        heading: the form.
        align_center: in the middle of cells; else evenly from the first edge to the last, both
            included, so that only the middle of the grid has them where its cells are.
    """
    rows, columns = size
    x0, y0, x1, y1 = extent
    if align_center:
        x = torch.linspace(x0, x1, columns + 1)[:-1] + (x1 - x0) / columns / 2
        y = torch.linspace(y0, y1, rows + 1)[:-1] + (y1 - y0) / rows / 2
    else:
        x, y = torch.linspace(x0, x1, columns), torch.linspace(y0, y1, rows)
    own = [ANCHORS[name] for name in classes]
    kinds = torch.tensor([[a.bottom, *a.size] for a in own])
    if heading == "yaw":
        kinds = kinds[:, [0, 2, 1, 3]]
    anchors = torch.empty((rows, columns, len(own), len(ROTATIONS), 7))
    anchors[..., 0] = x[None, :, None, None]
    anchors[..., 1] = y[:, None, None, None]
    anchors[..., 2:6] = kinds[None, None, :, None]
    anchors[..., 6] = torch.tensor(ROTATIONS)
    return anchors.reshape(-1, 7)


def nearest_axis(boxes: torch.Tensor) -> torch.Tensor:
    """(N, 4) xyxy in the ground plane of (N, 7) network boxes, turned to the nearest axis."""
    turned = torch.remainder(boxes[:, 6] + math.pi / 4, math.pi) >= math.pi / 2
    along_x = torch.where(turned, boxes[:, 4], boxes[:, 3])
    along_y = torch.where(turned, boxes[:, 3], boxes[:, 4])
    half = torch.stack([along_x, along_y], 1) / 2
    return torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def encode(anchors: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(N, 7) deltas that lead from anchors to boxes, both in the network's form."""
    diagonal = torch.sqrt(anchors[:, 3] ** 2 + anchors[:, 4] ** 2)
    middle = (boxes[:, 2] + boxes[:, 5] / 2) - (anchors[:, 2] + anchors[:, 5] / 2)
    return torch.cat(
        [
            (boxes[:, :2] - anchors[:, :2]) / diagonal[:, None],
            (middle / anchors[:, 5])[:, None],
            torch.log(boxes[:, 3:6] / anchors[:, 3:6]),
            boxes[:, 6:] - anchors[:, 6:],
        ],
        dim=1,
    )


def decode(anchors: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    """(N, 7) boxes in the network's form; the inverse of `encode`."""
    diagonal = torch.sqrt(anchors[:, 3] ** 2 + anchors[:, 4] ** 2)
    size = anchors[:, 3:6] * torch.exp(deltas[:, 3:6])
    middle = deltas[:, 2] * anchors[:, 5] + anchors[:, 2] + anchors[:, 5] / 2
    return torch.cat(
        [
            deltas[:, :2] * diagonal[:, None] + anchors[:, :2],
            (middle - size[:, 2] / 2)[:, None],
            size,
            anchors[:, 6:] + deltas[:, 6:],
        ],
        dim=1,
    )


def to_lidar_boxes(boxes: torch.Tensor, heading: Heading = "rotation_y") -> torch.Tensor:
    """(N, 7) network boxes to centre, length, width, height, yaw about +z."""
    x, y, z, first, second, h, angle = boxes.unbind(1)
    if heading == "rotation_y":
        first, second, angle = second, first, -angle - math.pi / 2
    yaw = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    return torch.stack([x, y, z + h / 2, first, second, h, yaw], 1)


def from_lidar_boxes(boxes: torch.Tensor, heading: Heading = "rotation_y") -> torch.Tensor:
    """The inverse of `to_lidar_boxes`, up to whole turns."""
    x, y, z, length, w, h, yaw = boxes.unbind(1)
    sizes = (w, length, h, -yaw - math.pi / 2) if heading == "rotation_y" else (length, w, h, yaw)
    return torch.stack([x, y, z - h / 2, *sizes], 1)
