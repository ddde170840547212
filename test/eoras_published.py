"""Inputs and weights for comparisons with EoRaS' published network, from seeds."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

FIXTURE = Path(__file__).parent / "fixtures" / "eoras.npz"
SIDE = 128  # of the images, which are the crops
STEP = 3  # every third value of a mask is kept


@dataclass(frozen=True)
class Case:
    """One way in which the network was published.

    Attributes:
        published: our setting.
        decoder: theirs and ours.
        positions: theirs and ours.
        intrinsics: as their loader of this data set reads them.
        camera: position of the camera in its world; on the ground it looks level.
        frames: of the clip.
    """

    published: str
    decoder: str
    positions: str
    intrinsics: tuple[tuple[float, float, float], ...]
    camera: tuple[float, float, float] = (1.0, 0.0, 0.0)
    frames: int = 2


CASES = {
    # MOVi-D: Kubric's K in shares of the image, the camera looks along -z.
    "movi": Case(
        "movi", "fm+vm", "sincos", ((1.09, 0, -0.5), (0, -1.09, -0.5), (0, 0, -1)),
        (8.48113, -7.50764, 1.5),
    ),
    # KITTI: K in pixels. The other kinds of positions and decoders.
    "kitti": Case(
        "kitti", "fm+vm+occ", "random", ((90.0, 0, 60.0), (0, 90.0, 40.0), (0, 0, 1)), frames=1
    ),
}  # fmt: skip


def images(case: Case) -> np.ndarray:
    """(T, 128, 128, 3) uint8 with large and small shapes."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (case.frames, 8, 8, 3)).repeat(16, 1).repeat(16, 2)
    fine = rng.integers(0, 256, (case.frames, SIDE, SIDE, 3))
    return ((2 * coarse + fine) // 3).astype(np.uint8)


def seeded(
    shapes: Mapping[str, tuple[int, ...]], formula: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Tensors that follow from their names: normal, as large as keeps features as large.

    Args:
        shapes: by name.
        formula: tensors that are kept, where their values follow from a formula.
    """
    state = {}
    for name, shape in shapes.items():
        if name.endswith(("_pos", "mean", "std")) and not name.endswith("running_mean"):
            state[name] = formula[name] if formula else torch.zeros(shape)
            continue
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
            continue
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        values = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            values = 1 + 0.1 * np.abs(values)
        elif len(shape) > 1 and name != "slot.weight" and not name.endswith("_pos.weight"):
            fan = np.prod(shape[1:]) if "deconv" not in name else shape[0] * 9 / 4
            # Attention that looks at one token alone would make much of the smallest rounding.
            gain = 0.05 if "_fc" in name else 0.5 if "attn" in name else 1
            values *= np.float32((gain / fan) ** 0.5)
        elif len(shape) == 1:
            values *= np.float32(0.1)
        state[name] = torch.from_numpy(values)
    return state


def shapes_of(case: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a published checkpoint."""
    lines = str(np.load(FIXTURE)[f"{case}/tensors"]).splitlines()
    return {name: tuple(map(int, shape)) for name, *shape in map(str.split, lines)}
