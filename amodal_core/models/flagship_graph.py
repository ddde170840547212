"""The flagship where PyTorch is not installed: its graph in OpenVINO or onnxruntime, NumPy around.

It gives what `flagship.Flagship` gives, but for rounding. The graph lies beside the checkpoint and
reads its weights there; `amodal export CHECKPOINT --beside` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.errors import InputError
from amodal_core.frame import RUNTIME, Frame, Instances, Report
from amodal_core.models.checkpoint_info import read_info
from amodal_core.models.detections import instances_of
from amodal_core.models.flagship_config import (
    FlagshipConfig,
    Outputs,
    detections_of,
    graph_settings,
)
from amodal_core.models.layers.inputs import DEPTH_CHANNELS, NetworkInputs, network_inputs
from amodal_core.models.learned_config import OF_THE_MACHINE
from amodal_core.runtime import graphs
from amodal_core.runtime.engines import CPU, Engine, Runtime, candidates, open_engine, threads
from amodal_core.runtime.parity import Arithmetic
from amodal_core.settings import checked

_SIZES = 8  # of inputs that have an engine at a time
_TORCH = "pip install 'amodal_ros[torch]'"


class FlagshipGraph:
    """The flagship's network as a graph; fits `amodal_core.models.base.Model`.

    Args:
        config: settings.
        graph: the ONNX file.

    Raises:
        InputError: no runtime that could run it is installed.
    """

    name = "flagship"
    Config = FlagshipConfig
    inputs = frozenset({"image"})

    def __init__(self, config: FlagshipConfig, graph: Path) -> None:
        self.config, self.graph = config, graph
        self.classes = config.classes
        self.optional = frozenset({"depth"}) if config.lidar else frozenset()
        self.runtime, self.precision = _choice(config, int8=config.precision == "int8")
        self._engines: dict[tuple[int, ...], Engine] = {}

    @classmethod
    def from_checkpoint(cls, path: str, device: str = "cpu", **settings: Any) -> FlagshipGraph:
        """A model with a checkpoint's configuration and weights.

        Args:
            path: of the checkpoint.
            device: "cpu"; others need PyTorch.
            **settings: replace values of the configuration that the graph does not depend on.

        Raises:
            InputError: the checkpoint is missing, of another model, or without the graph of these
                settings; or another device.
        """
        info = read_info(path)
        if info.model != cls.name:
            raise InputError(f"a checkpoint of '{info.model}'", str(path), f"wanted: '{cls.name}'")
        if device != "cpu":
            raise InputError("PyTorch is not installed", f"device {device}", _TORCH)
        trained = {k: v for k, v in info.config.items() if k not in OF_THE_MACHINE}
        values = trained | {"weights": ""} | settings
        config = checked(FlagshipConfig, values, f"settings of {cls.name}" if settings else path)
        inside = graph_settings(config)
        if config.precision == "int8":
            return cls(config, graphs.int8_beside(path, inside))
        rounded = graphs.beside(path, inside, "int8")
        if _choice(config, int8=rounded.is_file())[1] == "int8":
            return cls(replace(config, precision="int8"), rounded)
        graph = graphs.beside(path, inside)
        if not graph.is_file():
            what = "PyTorch is not installed, and no graph of these weights and settings is there"
            raise InputError(
                what, path, f"{_TORCH}, or where it is: amodal export {Path(path).name} --beside"
            )
        return cls(config, graph)

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """The instances of each frame, on the host; masks as logits in boxes.

        Where there is depth, an object that the LiDAR looks through loses that share of its score.
        """
        report = report if report is not None else Report()
        return [self._instances(frame, report) for frame in frames]

    def reset(self) -> None:
        """Nothing to forget: every frame stands alone."""

    def prepared(self, frame: Frame) -> tuple[dict[str, np.ndarray], NetworkInputs]:
        """The graph's inputs by name for a frame, and what they are made of."""
        config = self.config
        given = network_inputs(
            frame, config.short_side, config.long_side, config.resize, config.most_pixels
        )
        height, width = given.size
        inputs = {"images": given.image, "limits": np.array([[width, height]], np.float32)}
        if config.lidar:
            unknown = (1, DEPTH_CHANNELS, *given.image.shape[2:])
            depth = given.depth
            inputs["depth"] = np.zeros(unknown, np.float32) if depth is None else depth
            if config.heights:
                none = np.zeros((1, 1, *given.image.shape[2:]), np.float32)
                inputs["heights"] = none if given.heights is None else given.heights
        return inputs, given

    def _instances(self, frame: Frame, report: Report) -> Instances:
        config = self.config
        with report.time(f"{self.name}.prepare"):
            inputs, given = self.prepared(frame)
            depth = given.depth if config.lidar else None
        with report.time(f"{self.name}.network"):
            out = Outputs(*self._engine(given.image.shape[2:], inputs, report)(inputs))
            detections = detections_of(out, 0, None if depth is None else depth[0], config)
            if depth is not None:
                detections = detections.borne_out(depth[0])
        with report.time(f"{self.name}.instances"):
            return instances_of(detections, given.original_size, given.scale)

    def _engine(
        self, size: tuple[int, ...], inputs: dict[str, np.ndarray], report: Report
    ) -> Engine:
        if size not in self._engines:
            if len(self._engines) >= _SIZES:
                del self._engines[next(iter(self._engines))]
            shapes = {name: value.shape for name, value in inputs.items()}
            if not self._engines:
                text = f"the network runs in {self.runtime} ({self.precision}, "
                stated = graphs.properties(self.graph).get("int8", "")
                stated = stated and f"; {stated}"
                report.warn(RUNTIME, f"{text}{threads()} thread(s)), without PyTorch{stated}")
            self._engines[size] = open_engine(self.runtime, self.graph, shapes, CPU, self.precision)
        return self._engines[size]


def _choice(config: FlagshipConfig, *, int8: bool) -> tuple[Runtime, Arithmetic]:
    """What runs the graph the fastest, and in which arithmetic.

    Args:
        config: with what is asked for.
        int8: whether the graph in int8 is there.

    Raises:
        InputError: nothing that could is installed.
    """
    every = candidates(CPU, config.precision, written=True, int8=int8)
    for choice in every:
        if config.runtime in ("auto", choice[0]):
            return choice
    runtime, openvino = config.runtime, "pip install openvino"
    cures = {"auto": openvino, "openvino": openvino, "compile": _TORCH}
    if config.precision in ("bfloat16", "int8"):
        cures["onnxruntime"] = f"{openvino}, and take runtime auto"
    raise InputError(
        "neither PyTorch is installed, nor what runs the network in its place",
        f"runtime {runtime}, precision {config.precision}",
        cures.get(runtime, f"pip install 'amodal_ros[{runtime}]'"),
    )
