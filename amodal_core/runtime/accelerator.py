"""A network in another runtime than torch, once that has given what torch gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from amodal_core.errors import InputError
from amodal_core.frame import RUNTIME, RUNTIME_FAULT
from amodal_core.progress import tell
from amodal_core.runtime import graphs
from amodal_core.runtime.engines import Engine, Runtime, candidates, open_engine
from amodal_core.runtime.parity import Arithmetic, Measures, Precision, disagreement

# What pip installs for a runtime beside PyTorch, the writers of graphs with it.
_PACKAGES = {
    "onnxruntime": "'amodal_ros[export]'",
    "openvino": "openvino 'amodal_ros[export]'",
    "tensorrt": "'amodal_ros[tensorrt]'",
}
_SIZES = 8  # of inputs that have an engine; others run in torch


class Accelerator:
    """Calls a network of tensors in, tensors out: in torch, or in what is faster.

    `auto` takes the fastest runtime that is installed and that gives, for the first frame of a
    size, what torch gives; torch where there is none. Graphs take one image or a few RoIs at a
    time. A copy, in another process or by `deepcopy`, is None: it runs in torch.

    Args:
        network: gives a tuple of tensors, the same sizes for the same sizes of inputs.
        names: of its inputs.
        runtime: which one to take.
        precision: of the arithmetic outside of torch; "auto" is the processor's fastest.
        key: of its graph, see `graphs.key_of`.
        write: writes the graph, for inputs of any size, to a path.
        measures: how outputs are compared.
        beside: where a graph lies already, if it does.
        int8: where one in int8 lies, if it does.
        what: runs, for notes.
        rows: of the inputs that the graph takes at a time, which the last ones are filled up to; 0
            for images, one at a time.

    Raises:
        InputError: a runtime is asked for that is not installed.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        runtime: Runtime,
        precision: Precision,
        key: str,
        write: Callable[[Path], object],
        measures: Measures,
        beside: Path | None = None,
        int8: Path | None = None,
        what: str = "the network",
        rows: int = 0,
    ) -> None:
        self.runtime, self.precision = runtime, precision
        self._network, self._names, self._measures = network, tuple(names), measures
        self._key, self._write = key, write
        self._what, self._rows = what, rows
        self._beside, self._int8 = (
            path if path is not None and path.is_file() else None for path in (beside, int8)
        )
        self._engines: dict[tuple[tuple[int, ...], ...], Engine | None] = {}
        self._compiled: Callable[..., tuple[torch.Tensor, ...]] | None = None
        self._notes: dict[tuple[str, str], bool] = {}  # whether they have been told
        if runtime not in ("auto", "torch", "compile"):
            device = next(network.parameters()).device
            if not self._candidates(device):
                raise InputError(
                    f"{runtime} cannot run on {device.type} in {precision} here",
                    "runtime",
                    f"pip install {_PACKAGES[runtime]}, or take auto",
                )

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def notes(self) -> list[tuple[str, str]]:
        """Kind and text of what has been decided since this was last asked."""
        new = [note for note, told in self._notes.items() if not told]
        self._notes.update(dict.fromkeys(new, True))
        return new

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The network's outputs, on the inputs' device.

        Args:
            *inputs: (B, ...) each.
        """
        if self.runtime == "torch" or not len(inputs[0]):
            return tuple(self._network(*inputs))
        if self.runtime == "compile":
            return self._in_compiled(inputs)
        count, rows = len(inputs[0]), self._rows or 1
        if inputs[0].device.type != "cpu" and count > rows:
            return tuple(self._network(*inputs))
        sizes = tuple((rows, *x.shape[1:]) for x in inputs)
        if self._rows and sizes in self._engines and self._engines[sizes] is None:
            return tuple(self._network(*inputs))
        if count == rows:
            return self._at_once(inputs, sizes)
        # A batch brings a CPU nothing, and so a frame's results are those of it alone.
        if short := -count % rows:
            inputs = tuple(torch.cat([x, x.new_zeros((short, *x.shape[1:]))]) for x in inputs)
        parts = zip(*(x.split(rows) for x in inputs), strict=True)
        each = [self._at_once(part, sizes) for part in parts]
        return tuple(torch.cat(values)[:count] for values in zip(*each, strict=True))

    def _at_once(
        self, inputs: Sequence[torch.Tensor], sizes: tuple[tuple[int, ...], ...]
    ) -> tuple[torch.Tensor, ...]:
        if sizes not in self._engines:
            return self._first(inputs, sizes)
        engine = self._engines[sizes]
        if engine is None:
            return tuple(self._network(*inputs))
        device = inputs[0].device
        return tuple(torch.from_numpy(v).to(device) for v in engine(self._arrays(inputs)))

    def _arrays(self, inputs: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
        return {n: x.cpu().numpy() for n, x in zip(self._names, inputs, strict=True)}

    def _first(
        self, inputs: Sequence[torch.Tensor], sizes: tuple[tuple[int, ...], ...]
    ) -> tuple[torch.Tensor, ...]:
        """The outputs for inputs of new sizes, and from now on, in what agrees with torch."""
        exact = tuple(self._network(*inputs))
        if len(self._engines) >= _SIZES:
            self._note(RUNTIME, f"more than {_SIZES} sizes of images: the others run in torch")
            return exact
        expected = [v.float().cpu().numpy() for v in exact]
        device = inputs[0].device
        choices = self._candidates(device)
        if self.runtime == "auto" and next(self._network.parameters()).dtype != torch.float32:
            choices = []
        self._engines[sizes] = None
        for kind, precision in choices:
            try:
                engine = self._engine(kind, precision, sizes, device)
                result = engine(self._arrays(inputs))
            except Exception as error:
                # Whatever an exporter or a runtime stumbles over, torch runs.
                line = (str(error).strip() or type(error).__name__).splitlines()[0]
                self._refused(kind, line)
                continue
            measure, most = self._measures[precision]
            apart = measure(expected, result)
            said = (
                f"{apart:.0%} of the first frame's objects are not torch's"
                if measure is disagreement
                else f"{apart:.0e} apart from torch"
            )
            if apart <= most:
                self._engines[sizes] = engine
                self._note(
                    RUNTIME,
                    f"{self._what} runs in {kind} {_version(kind)} ({precision}, "
                    f"{torch.get_num_threads()} thread(s)), {said}{self._stated(precision)}",
                )
                # As all frames after it, whichever frame a stream begins with.
                return tuple(torch.from_numpy(v).to(device) for v in result)
            self._refused(kind, f"its results ({precision}) differ from torch's by {apart:.1e}")
        if self.runtime == "auto" and not choices:
            self._note(
                RUNTIME,
                f"{self._what} runs in torch: no faster runtime is installed, or what writes its "
                "graph is not (pip install 'amodal_ros[export]')",
            )
        return exact

    def _candidates(self, device: torch.device) -> list[tuple[Runtime, Arithmetic]]:
        """What may run the network on a device, the fastest first."""
        int8 = self._int8 is not None
        every = candidates(device, self.precision, written=self._written(), int8=int8)
        return [c for c in every if self.runtime in ("auto", c[0])]

    def _written(self) -> bool:
        return self._beside is not None or graphs.path_of(self._key).is_file()

    def _engine(
        self,
        kind: Runtime,
        precision: Arithmetic,
        sizes: tuple[tuple[int, ...], ...],
        device: torch.device,
    ) -> Engine:
        path = self._int8 if precision == "int8" else self._beside
        if path is None:
            if not self._written():
                tell(f"writing the graph of {self._what} for {kind}, once: about 15 s")
            path = graphs.graph(self._key, self._write)
        shapes = dict(zip(self._names, sizes, strict=True))
        return open_engine(kind, path, shapes, device, precision)

    def _stated(self, precision: Arithmetic) -> str:
        """What a graph in int8 says of its cost."""
        if precision != "int8" or self._int8 is None:
            return ""
        return f"; {graphs.properties(self._int8).get('int8', '')}"

    def _in_compiled(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        if self._compiled is None:
            self._compiled = torch.compile(self._network, dynamic=False)
            self._note(RUNTIME, f"{self._what} is compiled by torch")
        return tuple(self._compiled(*inputs))

    def _refused(self, kind: Runtime, why: str) -> None:
        self._note(
            RUNTIME if self.runtime == "auto" else RUNTIME_FAULT,
            f"{self._what} does not run in {kind}: {why}",
        )

    def _note(self, kind: str, text: str) -> None:
        self._notes.setdefault((kind, text), False)


def _version(kind: Runtime) -> str:
    """Of the package that brings a runtime, "" where it is not told."""
    name = {"tensorrt": "tensorrt"}.get(kind, kind)
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
