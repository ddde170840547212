"""ONNX for the models whose forward pass is one graph, checked against onnxruntime.

The file takes what `make_batch` prepares (normalised images, depth channels) at one fixed size and
gives the model's outputs by name. Its metadata says what the checkpoint says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from amodal_core.errors import InputError
from amodal_core.models.batch import DEPTH_CHANNELS, STRIDE
from amodal_core.models.learned import LearnedModel

OPSET = 18


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        inputs: names and shapes.
        outputs: names.
        error: largest difference of onnxruntime's outputs from torch's, relative to each output's
            largest value.
    """

    path: Path
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    error: float


def export_onnx(
    model: LearnedModel, path: str | Path, size: tuple[int, int], batch: int = 1
) -> Exported:
    """Write a model as ONNX under a temporary name, compare it with torch, then rename it.

    Args:
        model: on the CPU, with a `forward(images, depth)` that gives a NamedTuple of tensors.
        path: of the .onnx file.
        size: width, height of the input in pixels, multiples of 32.
        batch: images at once.

    Raises:
        InputError: a model without such a forward pass, an impossible size, or onnx is missing.
    """
    path = Path(path)
    if type(model).forward is torch.nn.Module.forward or not hasattr(model, "fuse"):
        raise InputError(
            f"{model.name} is no single graph (its proposals have no fixed number)",
            "export",
            "models that can be exported: flagship",
        )
    width, height = size
    if width % STRIDE or height % STRIDE or min(size) <= 0:
        raise InputError(
            f"an input of {width}x{height}", "--size", f"give multiples of {STRIDE} pixels"
        )
    try:
        import onnx
        import onnxruntime
    except ImportError as missing:
        raise InputError(
            f"{missing.name} is not installed", "export", "pip install 'amodal_ros[export]'"
        ) from None
    model.eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((batch, 3, height, width), generator=generator)
    inputs = {"images": images}
    if model.config.lidar:
        known = torch.rand((batch, 1, height, width), generator=generator) < 0.05
        log = torch.rand((batch, 1, height, width), generator=generator)
        inputs["depth"] = torch.cat([log * known, known.float()], 1)
        assert inputs["depth"].shape[1] == DEPTH_CHANNELS
    with torch.inference_mode():
        expected = model(*inputs.values())
    names = tuple(expected._fields)
    part = path.with_name(f".{path.stem}.{os.getpid()}.onnx")
    try:
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(part),
            input_names=list(inputs),
            output_names=list(names),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        graph = onnx.load(str(part))
        told = {"model": model.name, "config": model.config_json(), "classes": model.classes}
        for key, value in told.items():
            entry = graph.metadata_props.add()
            entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
        onnx.save(graph, str(part))
        session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        found = session.run(None, {k: v.numpy() for k, v in inputs.items()})
        error = difference([v.numpy() for v in expected], found)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return Exported(path, {k: tuple(v.shape) for k, v in inputs.items()}, names, error)


def difference(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """The largest difference of any output, relative to that output's largest value.

    Equally good instances may come in another order: each of an image's is compared with the one
    in the nearest box among the other side's. Suppressed ones, of score 0, do not count.

    Args:
        expected: (B, K, ...) each, boxes first, then visible boxes, then scores.
        found: the same of the other side.
    """
    worst = 0.0
    for n in range(len(expected[0])):
        there = np.flatnonzero(expected[2][n] > 0)
        if not len(there):
            continue
        apart = np.abs(expected[0][n, there, None] - found[0][n, None]).sum(-1)
        apart += np.abs(expected[2][n, there, None] - found[2][n, None]) * expected[0].max()
        twin = apart.argmin(1)
        for a, b in zip(expected, found, strict=True):
            ours, theirs = a[n, there].astype(float), b[n, twin].astype(float)
            scale = max(float(np.abs(ours).max()), 1e-6)
            worst = max(worst, float(np.abs(ours - theirs).max()) / scale)
    return worst
