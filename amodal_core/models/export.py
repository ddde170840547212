"""ONNX files of the models that are one graph, compared with onnxruntime after writing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from amodal_core.errors import InputError
from amodal_core.extras import extra
from amodal_core.models.checkpoint import load_weights, read_info
from amodal_core.models.flagship import Flagship
from amodal_core.models.flagship_config import graph_settings
from amodal_core.models.learned import LearnedModel
from amodal_core.models.onnx_export import export_onnx, input_names
from amodal_core.models.registry import learned
from amodal_core.runtime import graphs
from amodal_core.runtime.parity import difference


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
    width, height = size
    single = _one_graph(model)
    return _compared(single, export_onnx(single, path, (height, width), batch), size, batch)


def export_beside(checkpoint: str | Path) -> Exported:
    """Write the graph of a checkpoint beside it, for inputs of any size, and compare it with torch.

    Machines without PyTorch run it (`models.flagship_graph`), and those with it need not write it.
    It reads its weights in the checkpoint, and its name tells which it is of; graphs of other
    weights or settings of that checkpoint's name are removed.

    Args:
        checkpoint: of a model that is one graph.

    Raises:
        InputError: see `export`.
    """
    path = Path(checkpoint)
    info = read_info(path)
    config = info.config | ({"weights": ""} if "weights" in info.config else {})
    model = _one_graph(learned(info.model).from_config(config, str(path)))
    load_weights(path, model, info.model)
    graph = graphs.beside(path, graph_settings(model.config))
    export_onnx(model, graph, weights=path)
    for other in path.parent.glob(f"{path.stem}.{'[0-9a-f]' * graphs.DIGITS}.onnx"):
        if other != graph:
            other.unlink()
    return _compared(model, graph, (640, 192), 1)


def _one_graph(model: LearnedModel) -> Flagship:
    if not isinstance(model, Flagship):
        raise InputError(
            f"{model.name} is no single graph: its proposals have no fixed number",
            "export",
            "models that can be exported: flagship",
        )
    return model


def _compared(model: Flagship, written: Path, size: tuple[int, int], batch: int) -> Exported:
    """What was written, run in onnxruntime on random inputs."""
    with extra("export", "export"):
        import onnxruntime
    width, height = size
    draw = torch.Generator().manual_seed(0)
    valid = (torch.rand((batch, 1, height, width), generator=draw) < 0.05).float()
    log_depth = torch.rand((batch, 1, height, width), generator=draw) * valid
    values = {
        "images": torch.randn((batch, 3, height, width), generator=draw),
        "depth": torch.cat([log_depth, valid], 1),
        # The last rows and columns are padding.
        "limits": torch.tensor([[width - 5.0, height - 3.0]]).repeat(batch, 1),
    }
    inputs = {name: values[name] for name in input_names(model)}
    with torch.inference_mode():
        expected = model.eval()(**inputs)
    session = onnxruntime.InferenceSession(str(written), providers=["CPUExecutionProvider"])
    results = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return Exported(
        written,
        {name: tuple(value.shape) for name, value in inputs.items()},
        model.outputs,
        difference([value.numpy() for value in expected], results),
    )
