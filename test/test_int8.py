"""int8: on frames that a user gives, with what it costs in the graph, and where it is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_scenes import Oracle
from typer.testing import CliRunner

from amodal_core import quantising
from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.frame import Report
from amodal_core.inference import tracks_of
from amodal_core.models import registry
from amodal_core.models.flagship_graph import FlagshipGraph
from amodal_core.pipeline import Pipeline
from amodal_core.runtime import engines, graphs
from amodal_core.runtime.int8 import quantise
from amodal_ros.cli.main import app

WEIGHTS = registry.shipped("flagship")
_TOLD = ("layerType", "originalLayersNames", "runtimePrecision")


@pytest.fixture(scope="module")
def sample(project_root):
    return open_dataset(project_root / "data" / "sample_drive")


@pytest.fixture
def weights(tmp_path):
    """A copy of the weights that ship, in a folder of its own."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(WEIGHTS.read_bytes())
    return path


@pytest.mark.parametrize(
    ("flags", "quick"), [("avx512_vnni", True), ("avx2 avx_vnni", True), ("avx512_bf16", False)]
)
def test_auto_takes_int8_where_the_processor_has_it_and_the_graph_is_there(
    monkeypatch, flags, quick
):
    monkeypatch.setattr(engines, "find_spec", lambda name: True)
    monkeypatch.setattr(engines, "_runs", lambda *_: True)
    monkeypatch.setattr(engines, "_instructions", lambda: frozenset(flags.split()))
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    first = engines.candidates(cpu, "auto", written=True, int8=True)[0]
    assert (first == ("openvino", "int8")) == quick
    for precision in ("auto", "float32", "bfloat16"):
        for int8 in (False, precision != "auto"):
            choices = engines.candidates(cpu, precision, written=True, int8=int8)
            assert choices
            assert "int8" not in [arithmetic for _, arithmetic in choices]
    assert engines.candidates(cpu, "int8", written=True, int8=True) == [("openvino", "int8")]
    assert engines.candidates(cpu, "int8", written=True) == []
    assert engines.candidates(gpu, "auto", written=True, int8=True)[0] == ("tensorrt", "float32")
    assert engines.candidates(gpu, "int8", written=True, int8=True) == []


@pytest.mark.parametrize("kind", [FlagshipGraph, registry.class_of("flagship")])
def test_auto_runs_the_graph_in_int8_that_lies_beside_the_weights(monkeypatch, sample, kind):
    pytest.importorskip("openvino")
    frame = Pipeline.project(sample.frame(5), Report())
    results = {}
    for flags, expected in (("avx512_vnni", "int8"), ("avx2", "float32")):
        monkeypatch.setattr(engines, "_instructions", lambda flags=flags: frozenset([flags]))
        report = Report()
        results[expected] = tracks_of(kind.from_checkpoint(str(WEIGHTS)), [frame], report)[0]
        (note,) = report.warnings
        assert f"({expected}, " in note.text
    assert len(results["int8"]) > 5
    apart = results["int8"].scores[:5] - results["float32"].scores[:5]
    assert 1e-4 < np.abs(apart).max() < 0.1


def test_without_a_graph_in_int8_the_command_that_makes_one_is_named(weights):
    for kind in (FlagshipGraph, registry.class_of("flagship")):
        with pytest.raises(InputError, match=r"no int8 graph .*\n?.*") as error:
            kind.from_checkpoint(str(weights), precision="int8")
        assert f"amodal export {weights} --int8 --calibration" in error.value.cure


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--int8"], "int8 needs frames"),
        (["--int8", "--beside"], "one of them is needed"),
        (["--beside", "--measure", "x"], "they are for int8"),
    ],
)
def test_what_int8_needs_is_told(weights, more, what):
    result = CliRunner().invoke(app, ["export", str(weights), *more])
    assert result.exit_code != 0
    assert what in result.output + str(result.exception)


@pytest.fixture
def convolution(tmp_path):
    """A graph of one 1x1 convolution by 1 and 2, with properties in its metadata."""
    onnx = pytest.importorskip("onnx")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = helper.make_tensor("w", number, (2, 1, 1, 1), [1.0, 2.0])
    x = helper.make_tensor_value_info("x", number, [1, 1, 4, 4])
    y = helper.make_tensor_value_info("y", number, [1, 2, 4, 4])
    graph = helper.make_graph([node], "graph", [x], [y], [weight])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="nobody"
    )
    helper.set_model_props(model, {"int8": "für 60 frames; AP 9.1", "long": "a" * 300, "none": ""})
    path = tmp_path / "convolution.onnx"
    onnx.save(model, path)
    return path


def test_properties_are_read_without_a_package(convolution):
    text = {"int8": "für 60 frames; AP 9.1", "long": "a" * 300, "none": ""}
    assert graphs.properties(convolution) == text


def test_numbers_have_256_steps_over_the_mean_range_of_the_frames(convolution, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    frames = [{"x": ramp * most} for most in (4.1, 6.1)]
    quantise(convolution, frames, tmp_path / "int8.onnx")
    session = runtime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    x = 5.07 * ramp
    (y,) = session.run(None, {"x": x})
    rounded = np.round(x / 0.02) * 0.02
    # What goes in is rounded, what comes out is not.
    np.testing.assert_allclose(y, np.concatenate([rounded, 2 * rounded], 1), atol=1e-5)
    assert np.abs(y[:, :1] - x).max() > 1e-3
    (far,) = session.run(None, {"x": x + 100})
    np.testing.assert_allclose(far[0, 0], 5.1, atol=1e-5)


def test_what_else_reads_a_convolutions_input_reads_it_exact(convolution, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = onnx.load(convolution)
    model.graph.node.append(onnx.helper.make_node("Neg", ["x"], ["z"]))
    z = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 1, 4, 4])
    model.graph.output.append(z)
    onnx.save(model, convolution)
    x = 5.07 * np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    quantise(convolution, [{"x": x}], tmp_path / "int8.onnx")
    session = runtime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    y, z = session.run(None, {"x": x + 0.01})
    np.testing.assert_array_equal(z, -x - 0.01)
    assert np.abs(y[:, :1] + z).max() > 1e-3


def test_layers_that_are_named_stay_exact(convolution, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    x = 5.07 * np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    results = []
    for exact in (["w"], ["v"]):
        quantise(convolution, [{"x": x}], tmp_path / "int8.onnx", exact)
        session = runtime.InferenceSession(
            tmp_path / "int8.onnx", providers=["CPUExecutionProvider"]
        )
        results.append(session.run(None, {"x": x + 0.01})[0][:, :1])
    np.testing.assert_array_equal(results[0], x + 0.01)
    assert np.abs(results[1] - x - 0.01).max() > 1e-3


class Shown(Oracle):
    """Notes which frames are asked for."""

    def __init__(self, data):
        self.data, self.asked = data, []
        self.name, self.path, self.classes = data.name, data.path, data.classes

    def __len__(self):
        return 12

    def frame(self, index):
        self.asked.append(index)
        return self.data.frame(index)

    def truth(self, index):
        return self.data.truth(index)


def arithmetic_of(graph):
    """What OpenVINO computes each convolution in, by the name of its weights."""
    onnx = pytest.importorskip("onnx")
    openvino = pytest.importorskip("openvino")
    weights = {}
    for node in onnx.load(graph).graph.node:
        if node.op_type == "Conv":
            weights[node.name] = node.input[1]
    core = openvino.Core()
    model = core.read_model(graph)
    sizes = {"images": 3, "depth": 2, "heights": 1}
    model.reshape({"limits": [1, 2]} | {k: [1, n, 64, 128] for k, n in sizes.items()})
    half = "bf16" if engines.computes_bfloat16() else "f32"
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": half})
    result = {}
    for operation in compiled.get_runtime_model().get_ops():
        info = {k: v.astype(str) for k, v in operation.get_rt_info().items() if k in _TOLD}
        if info["layerType"] == "Convolution":
            names = info["originalLayersNames"].split(",")
            (name,) = {n.partition("/")[0] for n in names} & set(weights)
            result.setdefault(weights[name], set()).add(info["runtimePrecision"])
    return result, half


@pytest.mark.slow
def test_a_graph_in_int8_says_what_it_costs_and_the_runtime_repeats_it(weights, sample):
    for module in ("onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    data = Shown(sample)
    done = quantising.export_int8(weights, data, 4)
    # Those that gave ranges are not those that are measured.
    assert data.asked[:4] == [0, 3, 7, 11]
    assert len(data.asked) == len(set(data.asked)) == 8
    assert graphs.properties(done.path)["int8"] == done.cost
    assert done.path.parent == weights.parent
    assert done.apart < 0.1
    # The sensitive layers compute as they do without int8, all others in it.
    found, half = arithmetic_of(done.path)
    layers = registry.class_of("flagship").exact
    kept = {name for name in found if name.startswith(tuple(f"model.{x}." for x in layers))}
    assert all(any(name.startswith(f"model.{x}.") for name in kept) for x in layers)
    assert all(found[name] == {half} for name in kept)
    assert all(found[name] == {"u8"} for name in set(found) - kept)
    assert len(set(found) - kept) > len(kept)
    exact, int8 = done.precision["amodal"]
    assert 0 < abs(exact - int8) < 0.1  # other numbers, of much the same objects
    assert f"in 4 measured frames ({Path(data.path).name})" in done.cost
    assert f"amodal AP {100 * int8:.1f} instead of {100 * exact:.1f}" in done.cost
    frame = Pipeline.project(sample.frame(5), Report())
    results = []
    for kind in (FlagshipGraph, registry.class_of("flagship")):
        report = Report()
        model = kind.from_checkpoint(str(weights), precision="int8")
        results.append(tracks_of(model, [frame], report)[0])
        (note,) = report.warnings
        assert "(int8, " in note.text
        assert note.text.endswith(done.cost)
    assert len(results[0]) == len(results[1]) > 5
    np.testing.assert_allclose(results[0].scores, results[1].scores, atol=1e-3)
    with pytest.raises(InputError, match="no frames are left"):
        quantising.export_int8(weights, data, 12)
