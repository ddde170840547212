"""MobileSAM's files made by hand: its checkpoint, and graphs as ONNX exporters leave them."""

from __future__ import annotations

import re

import numpy as np
import onnx
import torch

from amodal_core.models.layers.sam import make_sam

_META = (
    (r"^vision_encoder\.", "image_encoder."),
    (r"^image_encoder\.patch_embed\.", "image_encoder.patch_embed.seq."),
    (r"^(image_encoder\.neck)\.conv1\.", r"\1.0."),
    (r"^(image_encoder\.neck)\.layer_norm1\.", r"\1.1."),
    (r"^(image_encoder\.neck)\.conv2\.", r"\1.2."),
    (r"^(image_encoder\.neck)\.layer_norm2\.", r"\1.3."),
    (r"\.point_embed\.", ".point_embeddings."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.0\.", r"\1.layers.1."),
    (r"(mlps\.\d|iou_prediction_head)\.proj_in\.", r"\1.layers.0."),
    (r"(mlps\.\d|iou_prediction_head)\.proj_out\.", r"\1.layers.2."),
    (r"\.layer_norm(\d|_final_attn)\.", r".norm\1."),
    (r"shared_embedding\.positional_embedding$",
     "pe_layer.positional_encoding_gaussian_matrix"),
)  # fmt: skip


def tensors(seed=0):
    """Random ones of MobileSAM's, under its own names but for its norms, which are folded."""
    torch.manual_seed(seed)
    result = {}
    for name, value in make_sam("mobile", 64).state_dict().items():
        if name.startswith("shared_image_embedding"):
            continue
        for pattern, new in _META:
            name = re.sub(pattern, new, name)
        result[name] = torch.randn(value.shape)
    return result


def with_norm(name):
    """Whether a convolution has a norm in MobileSAM's checkpoint."""
    return bool(re.match(r"image_encoder\.(patch_embed|layers)\b.*(seq\.\d|conv\d?)$", name))


def checkpoint(state):
    """The state as MobileSAM's file has it; norms have numbers that leave all as it was."""
    result = {"image_encoder.norm_head.weight": torch.ones(320),
              "image_encoder.head.bias": torch.zeros(1000)}  # fmt: skip
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        if not with_norm(module):
            result[name] = value
        elif kind == "weight":
            result[f"{module}.c.weight"] = value / 2
            result[f"{module}.bn.weight"] = torch.full((len(value),), 3.0)
            result[f"{module}.bn.running_mean"] = torch.full((len(value),), 0.5)
            result[f"{module}.bn.running_var"] = torch.full((len(value),), 2.25 - 1e-5)
            result[f"{module}.bn.num_batches_tracked"] = torch.tensor(7)
        else:
            result[f"{module}.bn.bias"] = value + 1
    return result


class Graph:
    """Nodes that take tensors, joined to nothing: what a reader of weights looks at."""

    def __init__(self):
        self.nodes, self.tensors = [], []

    def add(self, kind, scope, **values):
        """A node; a tensor that exporters change has a number instead of its name, here `_`."""
        inputs = ["x"]
        for name, value in values.items():
            named = name.replace("prompt_encoder.", "model.prompt_encoder.")
            inputs.append(f"onnx::{kind}_{len(self.tensors)}" if name[0] == "_" else named)
            array = np.ascontiguousarray(value.numpy())
            self.tensors.append(onnx.numpy_helper.from_array(array, inputs[-1]))
        name = f"{scope}/{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, ["y"], name=name))

    def constant(self, scope, value):
        """A tensor that is a node's own."""
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value.numpy()))
        name = f"{scope}/Constant"
        self.nodes.append(onnx.helper.make_node("Constant", [], ["c"], name=name, value=tensor))

    def content(self):
        """Bytes of its file."""
        # The order of the nodes is not that of the modules.
        graph = onnx.helper.make_graph(self.nodes[::-1], "g", [], [], self.tensors[::-1])
        return onnx.helper.make_model(graph).SerializeToString()


def _scope(module):
    """/neck/neck.0 of neck.0, where neck is a sequence."""
    path = re.sub(r"\.(\d+)\b", r"#\1", module).replace(".", "/").replace("#", ".")
    return "/" + re.sub(r"\b(seq|neck|mask_downscaling|output_upscaling)\.", r"\1/\1.", path)


def graphs(state, folder):
    """Write the encoder of a state and the rest of it into a folder."""
    encoder, rest = Graph(), Graph()
    for module in dict.fromkeys(name.rpartition(".")[0] for name in state):
        values = {n: v for n, v in state.items() if n.rpartition(".")[0] == module}
        part, _, short = module.partition(".")
        graph, scope = rest, _scope(short)
        if part == "image_encoder":
            graph = encoder
            values = {n.removeprefix("image_encoder."): v for n, v in values.items()}
        (_, weight), *bias = values.items()
        if module.endswith(".attn"):
            graph.constant(scope, weight[:, apart(int(weight.shape[1] ** 0.5))])
        elif module.endswith("no_mask_embed"):
            graph.add("Mul", "", _=weight[..., None, None])
        elif "_token" in module and weight.shape[0] < 5:
            continue
        elif with_norm(module):
            graph.add("Conv", f"{scope}/c", _=weight, __=bias[0][1])
        elif weight.ndim == 4:
            graph.add("ConvTranspose" if "upscaling" in module else "Conv", scope, **values)
        elif re.search("mlps|iou_prediction_head", module):
            graph.add("Gemm", scope, **values)
        elif not bias:
            graph.add("Mul", "", **values)
        elif weight.ndim == 2:
            graph.add("MatMul", scope, _=weight.T)
            graph.add("Add", scope, **dict(bias))
        elif re.search("neck|downscaling|upscaling", module):
            graph.add("Mul", scope, _=weight[:, None, None])
            graph.add("Add", scope, _=bias[0][1][:, None, None])
        elif graph is rest:
            graph.add("LayerNormalization", scope, **values)
        else:
            graph.add("Mul", scope, **dict([*values.items()][:1]))
            graph.add("Add", scope, **dict(bias))
    tokens = [state[f"mask_decoder.{name}.weight"] for name in ("iou_token", "mask_tokens")]
    rest.add("Expand", "", _=torch.cat(tokens)[None])
    (folder / "encoder.onnx").write_bytes(encoder.content())
    (folder / "sam.onnx").write_bytes(rest.content())
    return folder


def apart(window):
    """Slowly: the place of each two cells' distance in a window's table of biases."""
    cells = [(y, x) for y in range(window) for x in range(window)]
    return torch.tensor([[abs(a - c) * window + abs(b - d) for c, d in cells] for a, b in cells])
