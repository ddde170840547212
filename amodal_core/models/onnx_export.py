"""A model that is one graph as an ONNX file, for runtimes without PyTorch."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from amodal_core.errors import InputError
from amodal_core.files import atomic
from amodal_core.models.checkpoint_tensors import refer
from amodal_core.models.layers.inputs import DEPTH_CHANNELS, MEAN, STD, STRIDE

OPSET = 18
INPUTS = ("images", "depth", "limits")
_EXAMPLE = 192, 640  # height and width that a graph for any size is traced with
_LEAST, _MOST = 4, 256  # of such a graph, strides along a side; fewer have too few locations


class Exportable(Protocol):
    """A model that is one graph: a forward of `INPUTS` that gives tensors of fixed sizes."""

    name: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]
    config: Any

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        ...

    def fuse(self) -> nn.Module:
        """Fold norms into convolutions."""
        ...

    def config_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        ...


def input_names(model: Exportable) -> tuple[str, ...]:
    """Names of a model's inputs, in the order of its `forward`."""
    return tuple(name for name in INPUTS if model.config.lidar or name != "depth")


class _Named(nn.Module):
    """A model whose inputs have names whatever is left out."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.model(**inputs))


def export_onnx(
    model: Exportable,
    path: str | Path,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    *,
    weights: Path | None = None,
) -> Path:
    """Write a model as ONNX; inputs and outputs are those of its `forward`.

    The file's metadata tell the classes, the configuration and how inputs are prepared:
    `images` (B, 3, H, W) is RGB / 255 less `mean` over `std`; `depth` (B, 2, H, W), for models with
    LiDAR, is log(metres) / log(80) and 1 where a return falls, zeros elsewhere. Images of another
    size are padded with zeros at the right and bottom; `limits` (B, 2) are their width and height
    without that, float32, where boxes end.

    Args:
        model: in float32; stays as it is.
        path: of the .onnx file, written under another name first.
        size: (height, width) of the inputs, multiples of 32; None for any such size.
        batch: images at a time.
        weights: the model's checkpoint; the graph then reads its weights there, as they are, and
            must lie in the same folder.

    Raises:
        InputError: a size that is no multiple of 32, or the packages for it are missing.
    """
    path = Path(path)
    height, width = size or _EXAMPLE
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
    # Folded norms are no weights of the checkpoint; runtimes fold them, too.
    ready: Any = copy.deepcopy(model) if weights else copy.deepcopy(model).fuse()
    ready = ready.cpu().float()
    names = input_names(model)
    example = {
        "images": torch.zeros(batch, 3, height, width),
        "depth": torch.zeros(batch, DEPTH_CHANNELS, height, width),
        "limits": torch.tensor([[width, height]], dtype=torch.float32).repeat(batch, 1),
    }
    high, wide = (STRIDE * torch.export.Dim(n, min=_LEAST, max=_MOST) for n in ("rows", "columns"))
    free = None if size else {n: None if n == "limits" else {2: high, 3: wide} for n in names}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that it gives to dimensions
        program = torch.onnx.export(
            _Named(ready, names).eval(),
            kwargs={name: example[name] for name in names},
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=model.outputs,
            dynamic_shapes=free,
            optimize=weights is None,
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
    if weights is not None:
        refer(graph, weights, "model.")
    else:
        onnx.checker.check_model(graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        onnx.save(graph, part)
    return path
