"""Networks outside of torch: the same results, the fastest there is, and torch otherwise."""

from __future__ import annotations

import copy
import importlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_scenes import CLASSES, Tiny, TinyConfig

from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.frame import NOTES, RUNTIME, RUNTIME_FAULT, Report
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, read_info, save_checkpoint, save_tensors
from amodal_core.pipeline import Pipeline
from amodal_core.runtime import accelerator, engines, graphs
from amodal_core.runtime.accelerator import Accelerator
from amodal_core.runtime.devices import check_device
from amodal_core.runtime.parity import difference, disagreement

MEASURES = {"float32": (lambda a, b: float(np.abs(a[0] - b[0]).max()), 0.1)}


class Doubled(nn.Module):
    """Gives twice its input; counts its calls."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return (x * self.weight,)


@pytest.fixture
def runtimes(monkeypatch, tmp_path):
    """Runtimes that are installed here, by name with what they multiply by; calls in a list."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    factors: dict[str, float] = {}
    opened: list[tuple[str, tuple[int, ...]]] = []

    def open_engine(kind, graph, shapes, device, precision):
        assert graph.read_text() == "graph"
        opened.append((kind, tuple(shapes["x"])))
        return lambda inputs: [inputs["x"] * np.float32(factors[kind])]

    monkeypatch.setattr(accelerator, "open_engine", open_engine)
    monkeypatch.setattr(
        accelerator, "candidates", lambda *a, **k: [(f, "float32") for f in factors]
    )
    return factors, opened


def made(runtime="auto", write=lambda path: path.write_text("graph")):
    network = Doubled()
    return network, Accelerator(network, ["x"], runtime, "float32", "key", write, MEASURES)


def test_auto_takes_the_first_runtime_that_gives_what_torch_gives(runtimes):
    factors, opened = runtimes
    factors |= {"openvino": 2.5, "onnxruntime": 2.01}
    network, fast = made()
    ones = torch.ones(1, 3)
    # From the first frame on: a stream's results are the same wherever it begins.
    torch.testing.assert_close(fast(ones)[0], 2.01 * ones)
    torch.testing.assert_close(fast(ones)[0], 2.01 * ones)
    assert network.calls == 1
    assert [kind for kind, _ in opened] == ["openvino", "onnxruntime"]
    notes = fast.notes()
    assert [kind for kind, _ in notes] == [RUNTIME] * 2
    assert (
        "does not run in openvino: its results (float32) differ from torch's by 5.0e-01"
        in notes[0][1]
    )
    assert "runs in onnxruntime" in notes[1][1]
    assert fast.notes() == []
    assert RUNTIME in NOTES


def test_torch_goes_on_where_no_runtime_agrees_or_the_graph_cannot_be_written(runtimes):
    factors, _ = runtimes
    factors["onnxruntime"] = 3.0

    def refuses(path):
        raise RuntimeError("no such operator\nand more")

    for write, why in (
        (lambda path: path.write_text("graph"), "differ"),
        (refuses, "no such operator"),
    ):
        network, fast = made(write=write)
        graphs.path_of("key").unlink(missing_ok=True)
        for _ in range(3):
            torch.testing.assert_close(fast(torch.ones(1, 3))[0], torch.full((1, 3), 2.0))
        assert network.calls == 3
        ((_, text),) = fast.notes()
        assert text.endswith(why) or why in text
        assert "\n" not in text


def test_a_runtime_that_was_asked_for_and_differs_is_a_fault(runtimes):
    factors, _ = runtimes
    factors["onnxruntime"] = 3.0
    _, fast = made("onnxruntime")
    fast(torch.ones(1, 3))
    ((kind, _),) = fast.notes()
    assert kind == RUNTIME_FAULT
    assert kind not in NOTES
    with pytest.raises(InputError, match=r"pip install openvino .amodal_ros\[export\]"):
        made("openvino")


def test_each_size_has_an_engine_and_there_are_eight_at_most(runtimes):
    factors, opened = runtimes
    factors["onnxruntime"] = 2.01
    network, fast = made()
    for _ in range(2):
        for width in range(1, 11):
            fast(torch.ones(1, width))
    assert [shape for _, shape in opened] == [(1, width) for width in range(1, 9)]
    assert network.calls == 8 + 2 * 2
    assert any("more than 8 sizes" in text for _, text in fast.notes())


def test_images_of_a_batch_go_one_by_one_on_a_cpu(runtimes):
    factors, opened = runtimes
    factors["onnxruntime"] = 2.01
    _, fast = made()
    fast(torch.ones(1, 2))
    pair = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    torch.testing.assert_close(fast(pair)[0], 2.01 * pair)
    assert opened == [("onnxruntime", (1, 2))]


def test_torch_by_name_and_a_copy_ask_no_runtime(runtimes):
    factors, opened = runtimes
    factors["onnxruntime"] = 2.01
    network, plain = made("torch")
    plain(torch.ones(1, 2)), plain(torch.ones(1, 2))
    assert network.calls == 2
    assert opened == []
    assert copy.deepcopy(plain) is None


def test_graphs_are_written_once_whole_and_the_oldest_go(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def write(path):
        calls.append(path)
        path.write_text("graph")

    for k in range(26):
        path = graphs.graph(f"key{k}", write)
        os.utime(path, (time.time() + k, time.time() + k))
    assert graphs.graph("key25", write) == path
    assert len(calls) == 26
    assert all(part.name != path.name for part in calls)
    left = sorted(int(p.stem.removeprefix("key")) for p in path.parent.iterdir())
    assert left == list(range(2, 26))
    with pytest.raises(ZeroDivisionError):
        graphs.graph("broken", lambda part: part.write_text("half") and 1 / 0)
    assert not graphs.path_of("broken").exists()


def test_a_graph_is_known_by_weights_settings_and_code(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"weights"), second.write_bytes(b"others")
    network = Doubled()
    key = graphs.key_of(first, network, "settings")
    assert key == graphs.key_of(first, Doubled(), "settings")
    assert key != graphs.key_of(second, network, "settings")
    assert key != graphs.key_of(first, network, "other settings")
    assert key != graphs.key_of(first, nn.Linear(1, 1), "settings")


def test_a_graph_is_known_by_the_functions_that_its_layers_call(tmp_path, monkeypatch):
    folder = tmp_path / "package" / "layers"
    folder.mkdir(parents=True)
    (folder / "own_layer.py").write_text("import torch\n\n\nclass Own(torch.nn.Module): ...\n")
    (folder / "called.py").write_text("TWO = 2\n")
    monkeypatch.syspath_prepend(str(folder))
    network = importlib.import_module("own_layer").Own()
    weights = tmp_path / "a"
    weights.write_bytes(b"weights")

    def key():
        return graphs.key_of(weights, network)

    outside = key()  # a network of one's own: what lies beside it may be anything
    monkeypatch.setattr(graphs, "_PACKAGE", tmp_path / "package")
    inside = key()
    (folder / "called.py").write_text("TWO = 3\n")
    assert key() != inside
    monkeypatch.setattr(graphs, "_PACKAGE", tmp_path / "elsewhere")
    assert key() == outside


def test_bfloat16_is_openvinos_and_without_writers_only_written_graphs_run(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(engines, "find_spec", lambda name: name not in ("onnx", "onnxscript"))
    exact = [("openvino", "float32"), ("onnxruntime", "float32")]
    assert engines.candidates(cpu, "float32", written=True) == exact
    assert engines.candidates(cpu, "bfloat16", written=True) == [("openvino", "bfloat16")]
    assert engines.candidates(cpu, "float32", written=False) == []
    monkeypatch.setattr(engines, "find_spec", lambda name: name != "openvino")
    assert engines.candidates(cpu, "float32", written=False) == exact[1:]


@pytest.mark.parametrize(
    ("flags", "half"), [("avx512f avx512_bf16", True), ("amx_bf16", True), ("avx512f avx2", False)]
)
def test_auto_takes_bfloat16_first_where_the_processor_has_it(monkeypatch, flags, half):
    monkeypatch.setattr(engines, "find_spec", lambda name: True)
    monkeypatch.setattr(engines.Path, "read_text", lambda *a, **k: f"flags : fpu {flags}\n")
    engines._instructions.cache_clear()
    try:
        choices = engines.candidates(torch.device("cpu"), "auto", written=True)
    finally:
        engines._instructions.cache_clear()
    rounded = [("openvino", "bfloat16")] if half else []
    assert choices == [*rounded, ("openvino", "float32"), ("onnxruntime", "float32")]


def test_what_runs_a_checkpoint_is_this_machines_to_say(tmp_path):
    # The file names what its own machine had.
    path = tmp_path / "weights.safetensors"
    info = read_info(registry.shipped("flagship"))
    info = replace(info, config=info.config | {"precision": "float32"})
    save_tensors(path, load_file(registry.shipped("flagship")), info)
    assert registry.create("flagship", checkpoint=str(path)).config.precision == "auto"


# The network that ships


@pytest.fixture(scope="module")
def drive(project_root):
    return open_dataset(project_root / "data" / "sample_drive")


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_boxes_scores_and_masks_are_torchs(drive, kind):
    for module in (kind, "onnxscript"):
        pytest.importorskip(module)
    whole = Pipeline.project(drive[10].frame, Report())
    # Another ratio is another size of input.
    image, depth = (np.ascontiguousarray(v[:, :400]) for v in (whole.image, whole.depth))
    narrow = replace(whole, image=image, depth=depth, calibration=None)
    exact = registry.create("flagship", runtime="torch")
    model = registry.create("flagship", runtime=kind, precision="float32")
    report = Report()
    for frame in (whole, narrow):
        model.infer([frame], report)
        # Said once where both sizes are as near to torch.
        assert report.warnings
        assert all(f"runs in {kind}" in note.text for note in report.warnings)
        ours, theirs = (m.infer([frame])[0].numpy() for m in (model, exact))
        sure = int((theirs.scores > 0.2).sum())
        assert sure >= 5
        for name in ("scores", "amodal_boxes", "visible_boxes", "depths", "embeddings"):
            a, b = (np.asarray(getattr(x, name))[:sure] for x in (ours, theirs))
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-3, err_msg=name)
        assert (ours.class_ids[:sure] == theirs.class_ids[:sure]).all()
        for part in ("amodal", "visible"):
            a, b = (getattr(x, part).rle() for x in (ours, theirs))
            overlap = np.diag(a.iou(b))[:sure]
            assert (overlap > 0.999).all()


SIGNALLED = """
import faulthandler, gc, os, signal, sys, threading
import numpy as np
import openvino
import openvino.opset13 as op
import torch
from pathlib import Path
from amodal_core.runtime.engines import open_engine

faulthandler.enable()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
place = Path(sys.argv[1])
x = op.parameter([1, 3], np.float32, name="x")
openvino.save_model(openvino.Model([op.add(x, x)], [x]), place)
engines = [open_engine("openvino", place, {"x": (1, 3)}, torch.device("cpu"), "float32")]
print(engines[0]({"x": np.ones((1, 3), np.float32)})[0].sum())

def let_go():
    engines.clear()
    gc.collect()

thread = threading.Thread(target=let_go)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")
def test_signals_are_handled_after_another_thread_let_the_network_go(tmp_path):
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path / "double.xml")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.split()) == (0, ["6.0", "handled"]), run.stderr


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")
def test_bfloat16_finds_the_same_objects(drive):
    pytest.importorskip("onnxscript")
    model = registry.create("flagship", runtime="openvino", precision="bfloat16")
    frame = Pipeline.project(drive[10].frame, Report())
    report = Report()
    model.infer([frame], report)
    assert "runs in openvino" in report.warnings[0].text
    exact = registry.create("flagship", runtime="torch").infer([frame])[0]
    rounded = model.infer([frame])[0]
    assert abs(float(exact.scores.sum() - rounded.scores.sum())) < 0.05 * float(exact.scores.sum())


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")
def test_features_are_taken_from_their_places_in_bfloat16_too(tmp_path):
    """Of stripes one pixel wide, in an image wider than bfloat16 tells pixels apart."""
    import openvino
    import openvino.opset13 as op

    wide = 1024
    columns = np.arange(wide - 100, wide)
    x = op.parameter([1, 1, 1, wide], np.float32, name="x")
    place = op.parameter([1, 1, len(columns)], np.float32, name="place")
    one = op.constant(np.ones((1, 1, 1, 1), np.float32))
    stripes = op.convolution(x, one, [1, 1], [0, 0], [0, 0], [1, 1])
    across = op.subtract(op.multiply(place, np.float32(2 / wide)), np.float32(1))
    across = op.reshape(across, op.constant([1, 1, len(columns), 1]), False)
    grid = op.concat([across, op.multiply(across, np.float32(0))], 3)
    taken = op.grid_sample(stripes, grid, {"mode": "bilinear", "padding_mode": "zeros"})
    row = op.reshape(taken, op.constant([1, len(columns)]), False)
    result = op.matmul(row, op.constant(np.eye(len(columns), dtype=np.float32)), False, False)
    graph = tmp_path / "stripes.xml"
    openvino.save_model(openvino.Model([result], [x, place]), graph)
    inputs = {
        "x": np.arange(wide, dtype=np.float32).reshape(1, 1, 1, wide) % 2,
        "place": (columns + 0.5).astype(np.float32)[None, None],
    }
    shapes = {name: value.shape for name, value in inputs.items()}
    engine = engines.open_engine("openvino", graph, shapes, engines.CPU, "bfloat16")
    (found,) = engine(inputs)
    np.testing.assert_array_equal(found[0].round(2), columns % 2)


def test_a_model_without_a_graph_runs_in_torch_and_says_so_when_asked_otherwise(tmp_path):
    path = tmp_path / "tiny.safetensors"
    model = Tiny(TinyConfig(CLASSES))
    save_checkpoint(path, model, CheckpointInfo("tiny", model.config_json(), CLASSES))
    Tiny.from_checkpoint(str(path))
    with pytest.raises(InputError, match="tiny runs in torch alone"):
        Tiny.from_checkpoint(str(path), runtime="onnxruntime")


# Comparing outputs


def test_another_order_is_no_difference_and_another_value_is():
    boxes = np.array([[[0, 0, 9, 9], [5, 5, 20, 20.0]]])
    scores, labels = np.array([[0.9, 0.5]]), np.array([[1, 0]])
    ours = [boxes, boxes, scores, labels]
    turned = [v[:, ::-1] for v in ours]
    assert difference(ours, turned) == 0
    assert disagreement(ours, turned) == 0
    assert difference(ours, [*turned[:3], labels]) > 0.5
    assert disagreement(ours, [*turned[:3], labels]) == 1


def test_half_of_the_objects_lacking_on_one_side_is_told():
    boxes = np.array([[[0, 0, 9, 9], [5, 5, 20, 20.0]]])
    ours = [boxes, boxes, np.array([[0.9, 0.5]]), np.array([[1, 0]])]
    theirs = [boxes, boxes, np.array([[0.85, 0.1]]), np.array([[1, 0]])]
    assert disagreement(ours, theirs) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("gpu", "device gpu: there is no device of that name (take cpu, or cuda:0"),
        ("", "device: there is no device of that name"),
        ("cuda:x", "device cuda:x: there is no device of that name"),
        ("cuda:0", "device cuda:0: there is no GPU that torch can use (take cpu;"),
        ("meta", "device meta: torch cannot compute on it here"),
        ("privateuseone", "device privateuseone: torch cannot compute on it here"),
    ],
)
def test_a_device_that_is_none_or_not_there_is_one_line_of_every_model(device, says, monkeypatch):
    """Also of one without a network, and before weights are looked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("geometric", "fused", "flagship", "pointpillars", "eoras"):
        with pytest.raises(InputError) as refused:
            registry.create(name, device)
        assert str(refused.value).startswith(says)


def test_gpus_are_counted_and_what_has_no_network_runs_on_the_cpu_beside_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for there in ("cpu", "cuda", "cuda:0", "cuda:1"):
        check_device(there)
        assert registry.create("geometric", there).device == "cpu"
    with pytest.raises(InputError, match="device cuda:2: the last GPU here is cuda:1"):
        check_device("cuda:2")
