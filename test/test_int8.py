"""int8: on frames that a user gives, with what it costs in the graph, and never by itself."""

from __future__ import annotations

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


@pytest.fixture(scope="module")
def sample(project_root):
    return open_dataset(project_root / "data" / "sample_drive")


@pytest.fixture
def weights(tmp_path):
    """A copy of the weights that ship, in a folder of its own."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(WEIGHTS.read_bytes())
    return path


def test_auto_never_takes_int8_and_a_gpu_has_none(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: True)
    monkeypatch.setattr(engines, "_runs", lambda *_: True)
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    for precision in ("auto", "float32", "bfloat16"):
        choices = engines.candidates(cpu, precision, written=True)
        assert choices
        assert "int8" not in [arithmetic for _, arithmetic in choices]
    expected = [("openvino", "int8"), ("onnxruntime", "int8")]
    assert engines.candidates(cpu, "int8", written=True) == expected
    assert engines.candidates(gpu, "int8", written=True) == []


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
    x = 5.1 * ramp
    (y,) = session.run(None, {"x": x})
    rounded = np.round(x / 0.02) * 0.02
    np.testing.assert_allclose(y, np.concatenate([rounded, 2 * rounded], 1), atol=0.03)
    assert np.abs(y[:, :1] - x).max() > 1e-3
    (far,) = session.run(None, {"x": x + 100})
    np.testing.assert_allclose(far[0, 0], 5.1, atol=0.03)


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
    assert done.apart < 0.3
    exact, int8 = done.precision["amodal"]
    assert 0 < abs(exact - int8) < 0.1  # other numbers, of much the same objects
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
