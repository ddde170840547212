"""A model that is one graph as an ONNX file, for runtimes without PyTorch."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from amodal_core.errors import InputError
from amodal_core.files import atomic
from amodal_core.models.checkpoint_tensors import refer
from amodal_core.models.layers.inputs import DEPTH_CHANNELS, MEAN, STD, STRIDE
from amodal_core.models.layers.parts import Part

OPSET = 18
INPUTS = ("images", "depth", "limits", "heights")
EXAMPLE = 192, 640  # height and width that a graph for any size is traced with
_LEAST, _MOST = 4, 256  # of such a graph, strides along a side; fewer have too few locations


class Described(Protocol):
    """What a graph's metadata tell of its model."""

    name: ClassVar[str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        ...

    def config_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        ...


class Exportable(Described, Protocol):
    """A model that is one graph: a forward of `INPUTS` that gives tensors of fixed sizes."""

    outputs: ClassVar[tuple[str, ...]]
    config: Any

    def fuse(self) -> nn.Module:
        """Fold norms into convolutions."""
        ...


def input_names(model: Exportable) -> tuple[str, ...]:
    """Names of a model's inputs, in the order of its `forward`."""
    config = model.config
    wanted = {"depth": config.lidar, "heights": config.lidar and config.heights}
    return tuple(name for name in INPUTS if wanted.get(name, True))


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
    without that, float32, where boxes end. `heights` (B, 1, H, W), for models that see them, is
    metres above the camera over 4, within -1 and 1, where a return falls, zeros elsewhere.

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
    height, width = size or EXAMPLE
    checked_size((height, width))
    # Folded norms are no weights of the checkpoint; runtimes fold them, too.
    ready: Any = copy.deepcopy(model) if weights else copy.deepcopy(model).fuse()
    ready = ready.cpu().float()
    names = input_names(model)
    example = {
        "images": torch.zeros(batch, 3, height, width),
        "depth": torch.zeros(batch, DEPTH_CHANNELS, height, width),
        "limits": torch.tensor([[width, height]], dtype=torch.float32).repeat(batch, 1),
        "heights": torch.zeros(batch, 1, height, width),
    }
    free = _any_size(n for n in names if n != "limits") if size is None else None
    program = _traced(_Named(ready, names), {n: example[n] for n in names}, model.outputs, free,
                      optimize=weights is None)  # fmt: skip
    graph = _described(program, model)
    if weights is not None:
        refer(graph, weights, "model.")
    return _saved(graph, path, check=weights is None)


def write_part(
    model: Described, part: Part, path: str | Path, size: tuple[int, int] | None = None
) -> Path:
    """Write a part of a network as ONNX, with `model`'s metadata and the part's name.

    Args:
        model: in float32, the part's; stays as it is.
        part: of it.
        path: see `export_onnx`.
        size: of images, where the part takes some, see there.

    Raises:
        InputError: see `export_onnx`.
    """
    inputs = dict(part.inputs)
    free = None
    if not part.rows:
        checked_size(size or EXAMPLE)
        if size is not None:
            inputs = {n: x.new_zeros((*x.shape[:2], *size)) for n, x in inputs.items()}
        else:
            free = _any_size(inputs)
    ready = copy.deepcopy(part.network()).cpu().float()
    program = _traced(_Named(ready, tuple(inputs)), inputs, part.outputs, free, optimize=True)
    return _saved(_described(program, model, part=part.name), path, check=True)


def checked_size(size: tuple[int, int]) -> None:
    """Make sure that a height and width of inputs can be.

    Raises:
        InputError: one is no multiple of 32.
    """
    height, width = size
    if height % STRIDE or width % STRIDE or height <= 0 or width <= 0:
        raise InputError(
            f"inputs of {width}x{height}", "export", f"both sides are multiples of {STRIDE}"
        )


def _any_size(images: Iterable[str]) -> dict[str, Any]:
    """What torch is to know of inputs that are images of any size."""
    high, wide = (STRIDE * torch.export.Dim(n, min=_LEAST, max=_MOST) for n in ("rows", "columns"))
    return {name: {2: high, 3: wide} for name in images}


def _traced(
    network: nn.Module,
    example: dict[str, torch.Tensor],
    outputs: Sequence[str],
    free: dict[str, Any] | None,
    *,
    optimize: bool,
) -> Any:
    """The graph of a network, an ONNX ModelProto."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401  torch.onnx needs it and says so late
    except ImportError:
        raise InputError(
            "ONNX is not installed", "export", "pip install 'amodal_ros[export]'"
        ) from None
    if free is not None:
        free = {name: free.get(name) for name in example}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that it gives to dimensions
        program = torch.onnx.export(
            network.eval(),
            kwargs=example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(example),
            output_names=list(outputs),
            dynamic_shapes=free,
            optimize=optimize,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    # Each node tells the lines of code that made it, with the folders of this machine.
    parts = (graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output)
    for part in (*parts, *graph.graph.value_info, *graph.graph.initializer, *graph.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    return graph


def _described(graph: Any, model: Described, **more: str) -> Any:
    """The graph, with what a user has to know in its metadata."""
    import onnx

    values = {
        "model": model.name,
        "classes": json.dumps(list(model.classes)),
        "config": json.dumps(model.config_json()),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
    }
    onnx.helper.set_model_props(graph, values | more)
    return graph


def _saved(graph: Any, path: str | Path, *, check: bool) -> Path:
    import onnx

    if check:
        onnx.checker.check_model(graph)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        onnx.save(graph, part)
    return path
