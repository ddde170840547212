"""Graphs whose convolutions compute in int8, with ranges as some frames have them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.extras import extra

Inputs = dict[str, np.ndarray]


def quantise(
    graph: Path, frames: Iterable[Inputs], target: Path, exact: Sequence[str] = ()
) -> None:
    """Write a graph in int8: weights a channel, inputs of convolutions a tensor.

    What is no convolution stays in float32. A range is the mean of those that the frames have.

    Args:
        graph: an ONNX file in float32.
        frames: inputs by name.
        target: the new file.
        exact: what the names of weights begin with whose convolutions stay in float32, too.

    Raises:
        InputError: onnx or onnxruntime is not installed.
    """
    with extra("export", "export --int8"):
        import onnx
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(frames)

        def get_next(self) -> Inputs | None:
            return next(self._left, None)

    nodes = onnx.load(str(graph)).graph.node
    excluded = [
        node.name
        for node in nodes
        if node.op_type == "Conv" and node.input[1].startswith(tuple(exact))
    ]
    # It warns of a preparation that the exporter has made.
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        quantize_static(
            str(graph),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=excluded,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                # Means of the frames' extremes: one frame's outlier costs all others their steps.
                "CalibMovingAverage": True,
                # A convolution is followed by its activation, whose result is rounded, once.
                "OpTypesToExcludeOutputQuantization": ["Conv"],
            },
        )
    finally:
        logger.setLevel(level)
    model = onnx.load(str(target))
    _restore_inputs(model.graph)
    onnx.save(model, str(target))


def _restore_inputs(graph: Any) -> None:
    """Give all but convolutions in int8 the numbers that the quantiser has rounded for those."""
    before = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    rounded, weights = {}, set()
    for node in graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        if node.input[0] in before:
            rounded[node.output[0]] = before[node.input[0]]
        else:
            weights.add(node.output[0])
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] not in weights:
            node.input[:] = [rounded.get(name, name) for name in node.input]
