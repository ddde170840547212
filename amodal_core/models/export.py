"""ONNX files of the models that are one graph, compared with onnxruntime after writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from amodal_core.errors import InputError
from amodal_core.extras import extra
from amodal_core.models.flagship import Flagship
from amodal_core.models.learned import LearnedModel
from amodal_core.models.onnx_export import INPUTS, OUTPUTS, export_onnx


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        inputs: names and shapes.
        outputs: names.
        error: see `difference`, of onnxruntime's outputs from torch's on random inputs.
    """

    path: Path
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    error: float


def export(
    model: LearnedModel, path: str | Path, size: tuple[int, int], batch: int = 1
) -> Exported:
    """Write a model as ONNX and compare it with torch.

    Args:
        model: on the CPU.
        path: of the .onnx file.
        size: width, height of the input in pixels, multiples of 32.
        batch: images at once.

    Raises:
        InputError: a model that is no single graph, an impossible size, or a missing package.
    """
    if not isinstance(model, Flagship):
        raise InputError(
            f"{model.name} is no single graph: its proposals have no fixed number",
            "export",
            "models that can be exported: flagship",
        )
    with extra("export", "export"):
        import onnxruntime
    width, height = size
    written = export_onnx(model, path, (height, width), batch)
    draw = torch.Generator().manual_seed(0)
    example = [torch.randn((batch, 3, height, width), generator=draw)]
    if model.config.lidar:
        valid = (torch.rand((batch, 1, height, width), generator=draw) < 0.05).float()
        log_depth = torch.rand((batch, 1, height, width), generator=draw) * valid
        example.append(torch.cat([log_depth, valid], 1))
    with torch.inference_mode():
        expected = model.eval()(*example)
    inputs = dict(zip(INPUTS, example, strict=False))
    session = onnxruntime.InferenceSession(str(written), providers=["CPUExecutionProvider"])
    results = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return Exported(
        written,
        {name: tuple(value.shape) for name, value in inputs.items()},
        OUTPUTS,
        difference([value.numpy() for value in expected], results),
    )


def difference(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """The largest difference of any output, relative to that output's largest value.

    Equally good instances may come in another order: each of an image's is compared with the one
    in the nearest box among the other side's. Suppressed ones, of score 0, do not count.

    Args:
        expected: (B, K, ...) each, boxes first, then visible boxes, then scores.
        actual: the same of the other side.
    """
    worst = 0.0
    for n in range(len(expected[0])):
        real = np.flatnonzero(expected[2][n] > 0)
        if not len(real):
            continue
        apart = np.abs(expected[0][n, real, None] - actual[0][n, None]).sum(-1)
        apart += np.abs(expected[2][n, real, None] - actual[2][n, None]) * expected[0].max()
        twin = apart.argmin(1)
        for a, b in zip(expected, actual, strict=True):
            ours, theirs = a[n, real].astype(float), b[n, twin].astype(float)
            scale = max(float(np.abs(ours).max()), 1e-6)
            worst = max(worst, float(np.abs(ours - theirs).max()) / scale)
    return worst
