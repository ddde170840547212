"""The flagship as an ONNX file, for runtimes without PyTorch."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch

from amodal_core.errors import InputError
from amodal_core.files import atomic
from amodal_core.models.flagship import Flagship, Outputs
from amodal_core.models.layers.batch import DEPTH_CHANNELS, MEAN, STD, STRIDE

OPSET = 18
INPUTS = ("images", "depth")
OUTPUTS = Outputs._fields


def export_onnx(model: Flagship, path: str | Path, size: tuple[int, int], batch: int = 1) -> Path:
    """Write a model as ONNX; inputs and outputs are those of `Flagship.forward`, of fixed size.

    The file's metadata tell the classes, the configuration and how inputs are prepared:
    `images` (B, 3, H, W) is RGB / 255 less `mean` over `std`; `depth` (B, 2, H, W), for models with
    LiDAR, is log(metres) / log(80) and 1 where a return falls, zeros elsewhere. Images of another
    size are padded with zeros at the right and bottom.

    Args:
        model: in float32; stays as it is.
        path: of the .onnx file, written under another name first.
        size: (height, width) of the inputs, multiples of 32.
        batch: images at a time.

    Raises:
        InputError: a size that is no multiple of 32, or the packages for it are missing.
    """
    path = Path(path)
    height, width = size
    if height % STRIDE or width % STRIDE or height <= 0 or width <= 0:
        raise InputError(
            f"inputs of {width}x{height}", "export", f"both sides are multiples of {STRIDE}"
        )
    try:
        import onnx
        import onnxscript  # noqa: F401  torch.onnx needs it and says so late
    except ImportError:
        raise InputError(
            "ONNX is not installed", "export", "pip install 'amodal_ros[export]'"
        ) from None
    ready = copy.deepcopy(model).cpu().float().fuse()
    example: tuple[torch.Tensor, ...] = (torch.zeros(batch, 3, height, width),)
    if model.config.lidar:
        example += (torch.zeros(batch, DEPTH_CHANNELS, height, width),)
    with torch.no_grad():
        program = torch.onnx.export(
            ready,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS[: len(example)],
            output_names=OUTPUTS,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    onnx.helper.set_model_props(
        graph,
        {
            "model": model.name,
            "classes": json.dumps(list(model.classes)),
            "config": json.dumps(model.config_json()),
            "mean": json.dumps(MEAN),
            "std": json.dumps(STD),
        },
    )
    onnx.checker.check_model(graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        onnx.save(graph, part)
    return path
