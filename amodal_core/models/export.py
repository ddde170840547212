"""ONNX files of models that are one graph or several, compared with onnxruntime after writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from amodal_core.errors import InputError
from amodal_core.extras import extra
from amodal_core.models.checkpoint import load_weights, read_info
from amodal_core.models.flagship import Flagship
from amodal_core.models.flagship_config import graph_settings
from amodal_core.models.layers.parts import Part
from amodal_core.models.learned import LearnedModel
from amodal_core.models.onnx_export import export_onnx, input_names, write_part
from amodal_core.models.registry import learned
from amodal_core.models.two_stage import TwoStage
from amodal_core.runtime import graphs
from amodal_core.runtime.parity import difference, distance


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        inputs: names and shapes.
        outputs: names.
        error: see `runtime.parity`, of onnxruntime's outputs from torch's on random inputs.
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
    written = export_onnx(single, path, (height, width), batch)
    return _compared(
        single.eval(), single.outputs, difference, written, _frames(single, size, batch)
    )


def export_parts(model: LearnedModel, path: str | Path, size: tuple[int, int]) -> list[Exported]:
    """Write the parts of a two-stage model as ONNX files and compare each with torch.

    What lies between them is not in them: the choice of proposals and of detections, and RoIAlign.

    Args:
        model: on the CPU.
        path: NAME.onnx; the files are NAME.PART.onnx.
        size: width, height of the trunk's input in pixels, multiples of 32.

    Raises:
        InputError: another model, an impossible size, or a missing package.
    """
    if not isinstance(model, TwoStage):
        raise _without_graph(model)
    path, (width, height) = Path(path), size
    results = []
    for part in model.parts():
        target = path.with_name(f"{path.stem}.{part.name}.onnx")
        write_part(model, part, target, None if part.rows else (height, width))
        inputs = _random_inputs(part, len(model.classes), (height, width))
        results.append(_compared(part.network().eval(), part.outputs, distance, target, inputs))
    return results


def _random_inputs(part: Part, classes: int, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """As large as the part's, images of a size."""
    draw = torch.Generator().manual_seed(0)
    result = {}
    for name, example in part.inputs.items():
        shape = example.shape if part.rows else (*example.shape[:2], *size)
        if example.dtype == torch.int64:
            result[name] = torch.randint(0, classes, shape, generator=draw)
        else:
            result[name] = torch.randn(shape, generator=draw)
    return result


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
    path, model = Path(checkpoint), beside_model(checkpoint)
    graph = graphs.beside(path, graph_settings(model.config))
    export_onnx(model, graph, weights=path)
    for other in path.parent.glob(f"{path.stem}.{'[0-9a-f]' * graphs.DIGITS}.onnx"):
        if other != graph:
            other.unlink()
    inputs = _frames(model, (640, 192), 1)
    return _compared(model.eval(), model.outputs, difference, graph, inputs)


def beside_model(checkpoint: str | Path) -> Flagship:
    """The model of a checkpoint as it was trained, whose graph may lie beside it.

    Raises:
        InputError: a model that is no single graph.
    """
    path, info = Path(checkpoint), read_info(checkpoint)
    config = info.config | ({"weights": ""} if "weights" in info.config else {})
    model = _one_graph(learned(info.model).from_config(config, str(path)))
    load_weights(path, model, info.model)
    return model


def _one_graph(model: LearnedModel) -> Flagship:
    if isinstance(model, TwoStage):
        raise InputError(
            f"{model.name} is no single graph: it runs in PyTorch, which writes its parts itself",
            "export",
            "leave --beside and --batch out",
        )
    if not isinstance(model, Flagship):
        raise _without_graph(model)
    return model


def _without_graph(model: LearnedModel) -> InputError:
    return InputError(
        f"{model.name} has no graph",
        "export",
        "models that can be exported: flagship and the two-stage ones",
    )


def _frames(model: Flagship, size: tuple[int, int], batch: int) -> dict[str, torch.Tensor]:
    """Random inputs of the flagship."""
    width, height = size
    draw = torch.Generator().manual_seed(0)
    valid = (torch.rand((batch, 1, height, width), generator=draw) < 0.05).float()
    log_depth = torch.rand((batch, 1, height, width), generator=draw) * valid
    values = {
        "images": torch.randn((batch, 3, height, width), generator=draw),
        "depth": torch.cat([log_depth, valid], 1),
        # The last rows and columns are padding.
        "limits": torch.tensor([[width - 5.0, height - 3.0]]).repeat(batch, 1),
        "heights": (2 * torch.rand((batch, 1, height, width), generator=draw) - 1) * valid,
    }
    return {name: values[name] for name in input_names(model)}


def _compared(
    network: nn.Module,
    outputs: tuple[str, ...],
    measure: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], float],
    written: Path,
    inputs: dict[str, torch.Tensor],
) -> Exported:
    """What was written, run in onnxruntime."""
    with extra("export", "export"):
        import onnxruntime
    with torch.inference_mode():
        expected = network(**inputs)
    session = onnxruntime.InferenceSession(str(written), providers=["CPUExecutionProvider"])
    results = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return Exported(
        written,
        {name: tuple(value.shape) for name, value in inputs.items()},
        outputs,
        measure([value.numpy() for value in expected], results),
    )
