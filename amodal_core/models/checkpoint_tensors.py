"""ONNX graphs whose weights stay in the checkpoint: one copy of them, and none to go stale.

ONNX lets a tensor lie in another file of the same folder, by offset and length, and a safetensors
file is a header that tells both, and then nothing but the tensors' bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Number types of safetensors, by name in ONNX.
_TYPES = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16"}


def refer(graph: Any, checkpoint: Path, prefix: str) -> None:
    """Let a graph read its weights in a checkpoint.

    What the exporter notes of its own code goes, too: most of the file otherwise.

    Args:
        graph: an ONNX ModelProto in float32, changed in place.
        checkpoint: a safetensors file.
        prefix: of the weights' names in the graph.
    """
    from onnx import TensorProto, helper

    header, begin = _header(checkpoint)
    tensors, casts = [], []
    for tensor in graph.graph.initializer:
        entry = header.get(tensor.name.removeprefix(prefix))
        if entry is None or entry["dtype"] not in _TYPES:
            tensors.append(tensor)
            continue
        kind = getattr(TensorProto, _TYPES[entry["dtype"]])
        stored = TensorProto(name=tensor.name, data_type=kind, dims=entry["shape"])
        stored.data_location = TensorProto.EXTERNAL
        first, last = entry["data_offsets"]
        place = {"location": checkpoint.name, "offset": begin + first, "length": last - first}
        for key, value in place.items():
            stored.external_data.add(key=key, value=str(value))
        if kind != TensorProto.FLOAT:
            stored.name = f"{tensor.name}.stored"
            casts.append(
                helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT)
            )
        tensors.append(stored)
    nodes = [*casts, *graph.graph.node]
    del graph.graph.initializer[:], graph.graph.node[:], graph.graph.value_info[:]
    graph.graph.initializer.extend(tensors)
    graph.graph.node.extend(nodes)
    for node in graph.graph.node:
        node.name = ""


def _header(checkpoint: Path) -> tuple[dict[str, Any], int]:
    """Tensors of a safetensors file by name, and where their bytes begin."""
    with checkpoint.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length
