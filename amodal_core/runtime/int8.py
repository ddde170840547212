"""Graphs whose convolutions compute in int8, with ranges as some frames have them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from amodal_core.extras import extra

Inputs = dict[str, np.ndarray]


def quantise(graph: Path, frames: Iterable[Inputs], target: Path) -> None:
    """Write a graph in int8: weights a channel, inputs of convolutions a tensor.

    What is no convolution stays in float32. A range is the mean of those that the frames have.

    Args:
        graph: an ONNX file in float32.
        frames: inputs by name.
        target: the new file.

    Raises:
        InputError: onnx or onnxruntime is not installed.
    """
    with extra("export", "export --int8"):
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
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Means of the frames' extremes: one frame's outlier costs all others their steps.
            extra_options={"CalibMovingAverage": True},
        )
    finally:
        logger.setLevel(level)
