"""Weights by a rule, so that an original and a test have the same ones without a file of them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

FIXTURES = Path(__file__).parent / "fixtures" / "weights"

BYTES = 0.02  # what first kernels are multiplied by that take bytes, where their name tells nothing
KEPT = 30  # of what is found
SIZE, SHORT = (112, 176), 128  # an image, and what its shorter side becomes
# Images of bytes come in, boxes move a little, scores differ without being certain.
_GAINS = (
    (("stem", "conv1_w"), 0.03),
    (("deltas", "bbox_pred", "fc_reg", "rpn_reg"), 0.05),
    (("cls_score", "fc_cls", "objectness", "rpn_cls"), 1.0),
)


def seeded(name: str, shape: Sequence[int]) -> torch.Tensor:
    """A tensor that depends on nothing but its name and shape.

    Values keep activations in bounds: kernels by their fan-in, norms near 1, small biases.
    """
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        values = draw.uniform(0.7, 1.3, shape)
    elif len(shape) > 1:
        gain = next((g for words, g in _GAINS if any(w in name for w in words)), 1.4)
        values = draw.standard_normal(shape) * gain / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        values = draw.uniform(0.4, 0.6, shape)
    else:
        values = draw.standard_normal(shape) * 0.05
    return torch.from_numpy(np.asarray(values, np.float32))


def codebook(label: int, width: int, count: int = 24) -> torch.Tensor:
    """(count, width) latents of a class, as ReLU leaves them."""
    draw = np.random.default_rng(label)
    return torch.from_numpy(draw.standard_normal((count, width)).clip(0).astype(np.float32))


def state_of(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """A whole state by `seeded`."""
    return {name: seeded(name, shape) for name, shape in shapes.items()}


def shapes_of(state: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    """The names and shapes of a state, without counters."""
    return {n: list(t.shape) for n, t in state.items() if not n.endswith("num_batches_tracked")}


def image(height: int = 128, width: int = 192) -> np.ndarray:
    """(H, W, 3) uint8 RGB: blocks of colours and noise."""
    draw = np.random.default_rng(7)
    coarse = draw.integers(0, 256, (height // 16, width // 16, 3))
    noise = draw.integers(-20, 21, (height, width, 3))
    return np.clip(coarse.repeat(16, 0).repeat(16, 1) + noise, 0, 255).astype(np.uint8)


def moments(masks: np.ndarray) -> np.ndarray:
    """(N, 3) of (N, H, W) masks: pixels, and the means of their columns and rows."""
    v, u = np.mgrid[: masks.shape[1], : masks.shape[2]]
    area = masks.sum((1, 2))
    sums = [(masks * places).sum((1, 2)) / np.maximum(area, 1) for places in (u, v)]
    return np.stack([area, *sums], 1)


def write(
    name: str,
    shapes: Mapping[str, Any],
    outputs: Mapping[str, Any],
    kept: int | None = KEPT,
    digits: int = 6,
) -> None:
    """Keep a fixture: names and shapes of a file, and what the original made of its input.

    Args:
        name: of the file.
        shapes: of the original's tensors.
        outputs: arrays with a row for each thing found.
        kept: so many of the rows; None for all.
        digits: after the point.
    """
    FIXTURES.mkdir(parents=True, exist_ok=True)
    arrays = {k: np.asarray(v, np.float64)[:kept].round(digits) for k, v in outputs.items()}
    value = {"shapes": dict(shapes), "outputs": {k: v.tolist() for k, v in arrays.items()}}
    text = json.dumps(value, separators=(",", ":")).encode()
    (FIXTURES / f"{name}.json.gz").write_bytes(gzip.compress(text, 9, mtime=0))


def read(name: str) -> tuple[dict[str, list[int]], dict[str, np.ndarray]]:
    """A fixture: names and shapes, outputs."""
    value = json.loads(gzip.decompress((FIXTURES / f"{name}.json.gz").read_bytes()))
    return value["shapes"], {k: np.asarray(v) for k, v in value["outputs"].items()}


def save_pointpillars() -> None:
    """OpenPCDet's published file, in this folder."""
    state = state_of(read("pointpillars_pcdet")[0])
    torch.save(
        {"model_state": state, "epoch": 80, "version": "pcdet+0.5.2"}, "pointpillar_7728.pth"
    )


class Mine:
    """An object of a training script's own class."""

    def __init__(self) -> None:
        self.log = [1, 2]
