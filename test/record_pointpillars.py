"""Records what the public PointPillars finds in a real scan, for test_models_imports.py.

    git clone https://github.com/zhulf0804/PointPillars
    PYTHONPATH=.:test:PointPillars python test/record_pointpillars.py KITTI_OBJECT

Its network runs as it is, on seeded weights; its compiled operations are stood in for by the loop
of its CPU voxelization in Python and suppression by OpenCV's intersection of rectangles. The scan
is KITTI's training scan 000000, cut to the image.
"""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import cv2
import numpy as np
import seeded_weights
import torch

from amodal_core.datasets.kitti import KittiObject
from amodal_core.geometry.projection import in_view

STEM = "training/image_2/000000"


def scan_of(root: Path) -> torch.Tensor:
    """(N, 4) float32, the part of the scan that the image shows."""
    data = KittiObject(root)
    (index,) = [k for k in range(len(data)) if data.place(k).name == STEM]
    frame = data.frame(index)
    return torch.from_numpy(frame.points[in_view(frame.points, frame.calibration)])


def weights_of(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Seeded weights under which scores and boxes differ from place to place.

    Empty ground looks the same everywhere: those scores of an anchor count that its objects raise.
    """
    state = seeded_weights.state_of(shapes)
    for name, gain in (("cls", 60.0), ("reg", 4.0), ("dir_cls", 60.0)):
        state[f"head.conv_{name}.weight"] *= gain
    peaks = {1: 7.9, 2: 4.1, 3: -1.0, 4: 0.1, 6: 1.3, 8: 2.7, 11: 0.1, 14: -3.4}
    bias = state["head.conv_cls.bias"]
    for channel in range(len(bias)):
        bias[channel] += 1.0 - peaks[channel] if channel in peaks else -30.0
    return state


def _voxelize(points, voxels, coors, counts, size, limits, most, most_voxels, *_):  # type: ignore[no-untyped-def]
    places: dict[tuple[int, ...], int] = {}
    low, cell = np.float32(limits[:3]), np.float32(size)
    shape = np.round((np.float32(limits[3:]) - low) / cell).astype(int)
    for point in points:
        place = np.floor((point[:3].numpy() - low) / cell).astype(int)
        if (place < 0).any() or (place >= shape).any():
            continue
        key = tuple(place[::-1].tolist())
        if key not in places:
            if len(places) >= most_voxels:
                continue
            places[key] = len(places)
            coors[places[key]] = torch.tensor(key)
        row = places[key]
        if counts[row] < most:
            voxels[row, counts[row]] = point
            counts[row] += 1
    return len(places)


def _nms(boxes, scores, thresh, pre_maxsize=None, post_max_size=None):  # type: ignore[no-untyped-def]
    rows = boxes.double().tolist()
    rects = [
        (((a + c) / 2, (b + d) / 2), (c - a, d - b), -math.degrees(t)) for a, b, c, d, t in rows
    ]
    kept: list[int] = []
    for index in scores.sort(0, descending=True)[1].tolist():
        for other in kept:
            kind, corners = cv2.rotatedRectangleIntersection(rects[index], rects[other])
            shared = cv2.contourArea(cv2.convexHull(corners)) if kind else 0.0
            areas = [w * h for w, h in (rects[index][1], rects[other][1])]
            if shared / (sum(areas) - shared) > thresh:
                break
        else:
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def main(root: Path) -> None:
    """Run the original and keep its boxes in the form of its results."""
    operations = types.ModuleType("pointpillars.ops.voxel_op")
    operations.hard_voxelize = _voxelize  # type: ignore[attr-defined]
    overlaps = types.ModuleType("pointpillars.ops.iou3d_module")
    overlaps.nms_cuda = _nms  # type: ignore[attr-defined]
    overlaps.boxes_iou_bev = overlaps.boxes_overlap_bev = None  # type: ignore[attr-defined]
    sys.modules |= {m.__name__: m for m in (operations, overlaps)} | {"open3d": MagicMock()}
    from pointpillars.model import PointPillars  # type: ignore[import-not-found]

    network = PointPillars(nclasses=3).eval()
    shapes = seeded_weights.shapes_of(network.state_dict())
    network.load_state_dict(weights_of(shapes), strict=False)
    with torch.inference_mode():
        (found,) = network(batched_pts=[scan_of(root)], mode="test")
    order = np.argsort(-found["scores"], kind="stable")
    outputs = {
        "boxes": found["lidar_bboxes"][order],
        "labels": found["labels"][order],
        "scores": found["scores"][order],
    }
    seeded_weights.write("pointpillars", shapes, outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
