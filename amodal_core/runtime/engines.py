"""What runs an ONNX file: onnxruntime, OpenVINO or TensorRT, behind one call."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from amodal_core.extras import extra
from amodal_core.runtime.parity import Arithmetic, Precision

Runtime = Literal["auto", "torch", "compile", "onnxruntime", "openvino", "tensorrt"]
# Inputs by name to outputs in the graph's order; all are on the host.
Engine = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]
Shapes = Mapping[str, Sequence[int]]

# The fastest first, as measured (docs/benchmarks.md); `compile` takes minutes to begin.
_ON_CPU: tuple[Runtime, ...] = ("openvino", "onnxruntime")
_ON_GPU: tuple[Runtime, ...] = ("tensorrt", "onnxruntime")
_MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "onnxruntime"}
_WRITERS = ("onnx", "onnxscript")  # of graphs


class Device(Protocol):
    """Where a network runs; torch's devices are such."""

    @property
    def type(self) -> str:
        """Such as cpu or cuda."""
        ...

    @property
    def index(self) -> int | None:
        """Of several."""
        ...


@dataclass(frozen=True)
class _Cpu:
    type: str = "cpu"
    index: int | None = None


CPU: Device = _Cpu()


def candidates(
    device: Device, precision: Precision, *, written: bool, int8: bool = False
) -> list[tuple[Runtime, Arithmetic]]:
    """The runtimes that are installed for a device and the arithmetic of each, the fastest first.

    Args:
        device: where the network is.
        precision: of its arithmetic; bfloat16 and int8 are OpenVINO's alone. "auto" takes them
            where the processor has them.
        written: whether the graph is there; writing it needs packages of its own.
        int8: whether the one in int8 is there.
    """
    rounded = int8 and (precision == "int8" or (precision == "auto" and computes_int8()))
    half = precision == "bfloat16" or (precision == "auto" and computes_bfloat16())
    written = written or all(find_spec(name) for name in _WRITERS)
    result: list[tuple[Runtime, Arithmetic]] = []
    for kind in _ON_CPU if device.type == "cpu" else _ON_GPU:
        if not find_spec(_MODULES[kind]) or not _runs(kind, device):
            continue
        if kind == "openvino" and rounded:
            result.append((kind, "int8"))
        if kind == "openvino" and half and written:
            result.append((kind, "bfloat16"))
        if precision in ("auto", "float32") and written:
            result.append((kind, "float32"))
    return result


def computes_int8() -> bool:
    """Whether the processor multiplies 8-bit numbers four at a time; others are no quicker."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(_instructions())


def computes_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; others would only convert it."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_instructions())


@cache
def _instructions() -> frozenset[str]:
    """What Linux says that the processor has, among other words."""
    try:
        return frozenset(
            Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
        )
    except OSError:
        return frozenset()


def _runs(kind: Runtime, device: Device) -> bool:
    """Whether this build of onnxruntime knows the device."""
    if kind == "openvino" or device.type == "cpu":
        return True
    import onnxruntime

    return _provider(kind, device) in onnxruntime.get_available_providers()


def _provider(kind: Runtime, device: Device) -> str:
    if kind == "tensorrt":
        return "TensorrtExecutionProvider"
    return "CPUExecutionProvider" if device.type == "cpu" else "CUDAExecutionProvider"


def open_engine(
    kind: Runtime, graph: Path, shapes: Shapes, device: Device, precision: Arithmetic
) -> Engine:
    """Load a graph for inputs of fixed sizes, on as many threads as `threads` tells.

    Args:
        kind: onnxruntime, openvino or tensorrt.
        graph: the ONNX file.
        shapes: of the inputs, by name.
        device: where to run; OpenVINO runs on the CPU.
        precision: of the arithmetic.

    Raises:
        InputError: the runtime is not installed.
    """
    if kind == "openvino":
        return _openvino(graph, shapes, threads(), precision)
    return _onnxruntime(kind, graph, threads(), device)


def threads() -> int:
    """Of a network: torch's number where it is loaded, else OMP_NUM_THREADS, else the cores."""
    if (torch := sys.modules.get("torch")) is not None:
        return int(torch.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0))


def _onnxruntime(kind: Runtime, graph: Path, threads: int, device: Device) -> Engine:
    with extra(kind, f"runtime {kind}"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for the next frame must not burn the cores that others need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    choice: dict[str, Any] = {}
    if device.type != "cpu":
        choice["device_id"] = device.index or 0
    if kind == "tensorrt":
        # Building takes minutes: what was built lies beside the graph.
        choice |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(graph.parent)}
    session = onnxruntime.InferenceSession(
        str(graph), options, providers=[(_provider(kind, device), choice)]
    )
    return lambda inputs: list(session.run(None, dict(inputs)))


@cache
def _openvino_core() -> Any:
    """OpenVINO's core, which lives as long as the process.

    Its CPU plugin gives the thread that loads it a stack for signals, and takes the stack's memory
    away with the core, without a word to that thread if another one lets the core go: the next
    signal that Python handles (Ctrl-C) then ends the process with a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _openvino(graph: Path, shapes: Shapes, threads: int, precision: Arithmetic) -> Engine:
    with extra("openvino", "runtime openvino"):
        core = _openvino_core()
    # What a graph in int8 leaves in floating point is what "auto" takes.
    half = precision == "bfloat16" or (precision == "int8" and computes_bfloat16())
    model = core.read_model(graph)
    model.reshape({name: list(shape) for name, shape in shapes.items()})
    count = len(model.outputs)
    if half:
        # What leads to an output stays in float32. In bfloat16 the places that features are taken
        # from would be off by up to two pixels.
        model.add_outputs(
            [op.input_value(1) for op in model.get_ops() if op.get_type_name() == "GridSample"]
        )
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # other processes have work for these cores, too
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        },
    )
    request = compiled.create_infer_request()

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        # The request writes its next results to the same memory.
        return [np.array(request.get_output_tensor(k).data) for k in range(count)]

    return run
