"""What the recorded PointPillars networks were run on: a real scan, weights by a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import seeded_weights
import torch

from amodal_core.datasets.kitti import KittiObject
from amodal_core.geometry.projection import in_view

STEM = "training/image_2/000000"
_GAINS = {"conv_cls": 250.0, "conv_dir_cls": 60.0, "conv_reg": 4.0, "conv_box": 4.0}


def scan_of(root: Path) -> torch.Tensor:
    """(N, 4) float32, the part of the scan that the image shows."""
    data = KittiObject(root)
    (index,) = [k for k in range(len(data)) if data.place(k).name == STEM]
    frame = data.frame(index)
    return torch.from_numpy(frame.points[in_view(frame.points, frame.calibration)])


def weights_of(
    shapes: Mapping[str, Sequence[int]], bias: Sequence[float] | None = None
) -> dict[str, torch.Tensor]:
    """Seeded weights under which scores and boxes differ from place to place.

    Args:
        shapes: of the original's file.
        bias: of the scores, recorded.
    """
    state = seeded_weights.state_of(shapes)
    for name in state:
        *_, layer, kind = name.split(".") if "." in name else ("", name)
        if kind == "weight" and layer in _GAINS:
            state[name] *= _GAINS[layer]
        elif kind == "bias" and layer == "conv_cls" and bias is not None:
            state[name] = torch.tensor(bias, dtype=torch.float32)
    return state
