"""The default model where PyTorch is not installed: the same objects, from the same weights."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from without_extras import HIDE

from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.frame import Frame, Instances, Report
from amodal_core.models import registry
from amodal_core.models.checkpoint_info import read_info
from amodal_core.models.detections import Detections, instances_of
from amodal_core.models.flagship_config import FlagshipConfig, graph_settings
from amodal_core.models.flagship_graph import FlagshipGraph
from amodal_core.models.layers.batch import make_batch
from amodal_core.models.layers.inputs import network_inputs
from amodal_core.pipeline import Pipeline
from amodal_core.runtime import graphs

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = registry.shipped("flagship")


@pytest.fixture(scope="module")
def frame() -> Frame:
    return Pipeline.project(open_dataset(ROOT / "data/sample_drive")[10].frame, Report())


def test_the_weights_that_ship_have_their_graphs():
    info = read_info(WEIGHTS)
    settings = graph_settings(FlagshipConfig(**info.config))
    graph, int8 = graphs.beside(WEIGHTS, settings), graphs.beside(WEIGHTS, settings, "int8")
    assert graph.is_file(), f"new weights: amodal export {WEIGHTS} --beside"
    assert int8.is_file(), f"new weights: amodal export {WEIGHTS} --int8 --calibration DRIVES"
    assert {p.name for p in WEIGHTS.parent.glob("*.onnx")} == {graph.name, int8.name}
    for path in (graph, int8):
        assert b"/amodal_core/" not in path.read_bytes(), "where the code lay that wrote it"
    assert graph.stat().st_size < 300_000  # its weights are the checkpoint's
    assert sum(p.stat().st_size for p in WEIGHTS.parent.iterdir()) < 20_000_000
    assert "amodal AP" in graphs.properties(int8)["int8"]  # it says what it costs


def test_the_graph_in_int8_finds_what_torch_finds(frame):
    exact = registry.create("flagship", runtime="torch", min_score=0.3)
    ours = registry.create("flagship", precision="int8", min_score=0.3)
    (a,), (b,) = exact.infer([frame]), ours.infer([frame])
    a, b = a.numpy(), b.numpy()
    best = a.amodal.rle().iou(b.amodal.rle()).max(axis=1)
    assert len(a) > 3
    assert np.mean(best > 0.7) > 0.8


@pytest.mark.parametrize("settings", [{}, {"most_pixels": 40_000}], ids=["as it is", "shrunk"])
def test_the_graph_finds_what_torch_finds(frame, settings):
    exact = registry.create("flagship", runtime="torch", min_score=0.2, **settings)
    ours = FlagshipGraph.from_checkpoint(
        str(WEIGHTS), min_score=0.2, precision="float32", **settings
    )
    (expected,), (actual,) = (m.infer([frame]) for m in (exact, ours))
    expected, actual = expected.numpy(), actual.numpy()
    assert len(expected) == len(actual) > 5
    assert ours.classes == exact.classes
    order = np.array(
        [np.abs(actual.amodal_boxes - box).sum(axis=1).argmin() for box in expected.amodal_boxes]
    )
    assert sorted(order) == list(range(len(order)))
    actual = actual[order]
    np.testing.assert_array_equal(actual.class_ids, expected.class_ids)
    np.testing.assert_array_equal(actual.occluders, expected.occluders)
    np.testing.assert_allclose(actual.amodal_boxes, expected.amodal_boxes, atol=0.05)
    np.testing.assert_allclose(actual.scores, expected.scores, atol=2e-3)
    np.testing.assert_allclose(actual.depths, expected.depths, rtol=1e-3)
    np.testing.assert_allclose(actual.embeddings, expected.embeddings, atol=2e-3)
    for masks in ("amodal", "visible"):
        overlap = getattr(actual, masks).iou(getattr(expected, masks))
        assert np.diag(overlap).min() > 0.98


@pytest.mark.parametrize(
    "limits",
    [(0, 0, "torch", 0), (0, 0, "torch", 30_000), (300, 0, "torch", 0), (100, 0, "pil", 0)],
    ids=["as it is", "smaller", "larger", "bytes"],
)
def test_inputs_are_those_of_a_batch(frame, limits):
    short, long, resize, pixels = limits
    ours = network_inputs(frame, *limits)
    batch = make_batch(
        [frame],
        short_side=short or None,
        long_side=long or None,
        resize=resize,
        most_pixels=pixels or None,
    )
    assert ours.size == batch.sizes[0]
    assert ours.original_size == batch.original_sizes[0]
    np.testing.assert_allclose(ours.scale, batch.scales[0].numpy(), rtol=1e-6)
    np.testing.assert_allclose(ours.image, batch.images.numpy(), atol=2e-4)
    np.testing.assert_allclose(ours.depth, batch.depth.numpy(), atol=1e-6)
    assert ours.depth[0, 1].any()


def test_arrays_become_the_instances_that_tensors_become(frame):
    draw = np.random.default_rng(3)
    corner = draw.uniform(0, 100, (9, 2))
    parts = {
        "boxes": np.concatenate([corner, corner + draw.uniform(10, 90, (9, 2))], 1),
        "scores": draw.uniform(0.1, 1, 9),
        "amodal": draw.normal(size=(9, 14, 14)),
        "visible": draw.normal(size=(9, 14, 14)),
        "embeddings": draw.normal(size=(9, 4)),
    }
    arrays = {name: value.astype(np.float32) for name, value in parts.items()}
    arrays["labels"] = draw.integers(0, 3, 9)
    depth = network_inputs(frame, 0, 0, "torch", 0).depth[0]
    scale = np.array([0.9, 1.1], np.float32)
    results: list[Instances] = []
    for make in (lambda x: x, torch.from_numpy):
        values = {name: make(value) for name, value in arrays.items()}
        one = Detections.measured(make(depth), **values).borne_out(make(depth))
        results.append(instances_of(one, (163, 540), make(scale)).numpy())
    ours, theirs = results
    assert ours.occluders.any()
    assert (ours.depths > 0).any()
    assert ours.amodal.counts == theirs.amodal.counts
    assert ours.visible.counts == theirs.visible.counts
    for f in fields(Instances):
        value = getattr(ours, f.name)
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(value, getattr(theirs, f.name), rtol=1e-5, err_msg=f.name)


def test_nothing_found_is_no_error(frame):
    model = FlagshipGraph.from_checkpoint(str(WEIGHTS), min_score=1.0)
    report = Report()
    (none,) = model.infer([replace(frame, depth=None)], report)
    assert len(none.numpy()) == 0
    assert "without PyTorch" in report.warnings[0].text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"nms": 0.3}, r"no graph of these weights and settings.*amodal_ros\[torch\]"),
        ({"device": "cuda:0"}, r"PyTorch is not installed.*amodal_ros\[torch\]"),
        ({"runtime": "compile"}, r"neither PyTorch.*amodal_ros\[torch\]"),
        ({"runtime": "tensorrt"}, r"neither PyTorch.*amodal_ros\[tensorrt\]"),
        ({"runtime": "onnxruntime", "precision": "bfloat16"}, r"bfloat16.*runtime auto"),
        ({"nms": 7}, "nms"),
    ],
)
def test_what_only_torch_can_do_names_the_extra(settings, told):
    with pytest.raises(InputError, match=told):
        FlagshipGraph.from_checkpoint(str(WEIGHTS), **settings)


def test_weights_are_read_in_the_checkpoint(tmp_path):
    """Of every number type, at their places, in both runtimes."""
    onnx = pytest.importorskip("onnx")
    from amodal_core.models.checkpoint_tensors import refer
    from amodal_core.runtime.engines import CPU, open_engine

    half, single = np.float16([[1.5, -2, 0.25]]), np.float32([[1e-3, 5, 7]])
    save_file({"a": half, "other": np.arange(5), "b": single}, tmp_path / "w.safetensors")
    sizes = onnx.TensorProto.FLOAT, [1, 3]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Mul", ["x", "m.a"], ["y"]),
            onnx.helper.make_node("Add", ["y", "m.b"], ["z"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", *sizes)],
        [onnx.helper.make_tensor_value_info("z", *sizes)],
        [
            onnx.numpy_helper.from_array(np.zeros((1, 3), np.float32), f"m.{name}")
            for name in ("a", "b")
        ],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    refer(model, tmp_path / "w.safetensors", "m.")
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    x = np.float32([[2, 3, 4]])
    for kind in ("openvino", "onnxruntime"):
        engine = open_engine(kind, tmp_path / "g.onnx", {"x": (1, 3)}, CPU, "float32")
        np.testing.assert_array_equal(engine({"x": x})[0], x * half + single)


def test_a_replay_runs_where_neither_torch_nor_trackeval_is_installed(tmp_path):
    """As after `pip install amodal_ros`; what lacks for want of TrackEval is said."""
    code = HIDE.replace('"torch",', '"torch", "trackeval",') + (
        "import sys\n"
        "from amodal_ros.cli.main import main\n"
        "sys.argv = ['amodal', 'replay', *sys.argv[1:], '--max-frames', '3', '--no-video']\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, str(ROOT / "data/sample_drive"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["frames"] == 3
    assert "without PyTorch" in json.dumps(metrics)
    assert "TrackEval" in json.dumps(metrics["warnings"])
    assert metrics["accuracy"]["amodal_AP"] >= 0
    assert "HOTA" not in metrics["accuracy"]


@pytest.mark.slow
def test_the_graph_of_a_checkpoint_is_written_beside_it(tmp_path):
    from amodal_core.models.export import export_beside

    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(WEIGHTS.read_bytes())
    stale = tmp_path / "mine.0123456789ab.onnx"
    stale.touch()
    done = export_beside(copy)
    assert done.error < 1e-3
    assert sorted(tmp_path.iterdir()) == sorted([copy, done.path])
    FlagshipGraph.from_checkpoint(str(copy))
