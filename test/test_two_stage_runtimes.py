"""Two-stage models outside of torch: what lies between their graphs, and the same detections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_scenes import frame
from torchvision.ops import roi_align
from training_scenes import SETTINGS, VIDEO_SETTINGS

from amodal_core.errors import InputError
from amodal_core.frame import RUNTIME, Report
from amodal_core.models import registry, two_stage_parts
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.export import export_parts
from amodal_core.models.layers.roi_features import RoiFeatures
from amodal_core.runtime import accelerator, graphs

CLASSES = ("car", "pedestrian")
SMALL = {"channels": 32, "max_instances": 11, "proposals": 150, "norm": "scaled", "min_score": 0.0}
EVERY = {name: SETTINGS[name] for name in ("mask_rcnn", "orcnn", "aisformer", "vrsp")}
EVERY |= VIDEO_SETTINGS
EVERY["mask_rcnn on lite0"] = EVERY["mask_rcnn"] | {"backbone": "efficientnet_lite0"}
VALUES = ("scores", "amodal_boxes", "visible_boxes", "depths", "embeddings")


def checkpoint(which, folder, **settings):
    """Weights of a seed, with scores that are not all alike."""
    torch.manual_seed(0)
    values = EVERY[which] | SMALL | {"classes": CLASSES} | settings
    name = which.partition(" ")[0]
    model = registry.learned(name).from_config(values)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith(("cls_score.weight", "cls_logits.weight")):
                weight *= 20
            elif key.endswith(("logits.weight", "pixel_embedding.weight")):
                weight -= weight.mean(1, keepdim=True)
                weight *= 1000
    if name == "vrsp":
        model.codebook.fill({k: torch.randn(9, model.auto_encoder.width) for k in (0, 1)})
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, model, CheckpointInfo(name, model.config_json(), CLASSES))
    return path


def assert_same(ours, theirs, tolerance):
    assert len(ours) == len(theirs) > 8
    assert (ours.class_ids == theirs.class_ids).all()
    for name in VALUES:
        a, b = (getattr(x, name) for x in (ours, theirs))
        if a is not None:
            scale = max(float(np.abs(b).max()), 1e-6)
            assert np.abs(np.asarray(a) - np.asarray(b)).max() <= tolerance * scale, name
    for kind in ("amodal", "visible"):
        a, b = (getattr(x, kind).rle() for x in (ours, theirs))
        shown = b.areas() > 0
        assert shown.any() or kind == "visible"
        assert np.diag(a.iou(b))[shown].min(initial=1) > 0.99


@pytest.fixture
def in_torch(monkeypatch, tmp_path):
    """A runtime that is torch itself, in graphs of fixed sizes; the rows of every call by part."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    parts, calls = {}, []

    def write(model, part, path):
        parts[part.name] = part
        path.write_text(part.name)

    def open_engine(kind, graph, shapes, device, precision):
        part = parts[graph.read_text()]
        network = part.network()

        def run(inputs):
            assert {n: v.shape for n, v in inputs.items()} == shapes
            if part.rows:
                assert shapes == {n: tuple(v.shape) for n, v in part.inputs.items()}
            calls.append(part.name)
            with torch.inference_mode():
                return [v.numpy() for v in network(*map(torch.from_numpy, inputs.values()))]

        return run

    monkeypatch.setattr(two_stage_parts, "write_part", write)
    monkeypatch.setattr(accelerator, "open_engine", open_engine)
    monkeypatch.setattr(accelerator, "candidates", lambda *a, **k: [("onnxruntime", "float32")])
    return calls


@pytest.mark.parametrize("which", EVERY)
def test_detections_are_the_same_with_every_part_in_a_graph(in_torch, tmp_path, which):
    path, name = str(checkpoint(which, tmp_path)), which.partition(" ")[0]
    exact = registry.create(name, checkpoint=path, runtime="torch")
    model = registry.create(name, checkpoint=path)
    one = frame(96, 128, seed=1)
    report = Report()
    ours, theirs = (m.infer([one], r)[0].numpy() for m, r in ((model, report), (exact, None)))
    assert_same(ours, theirs, 1e-4)
    names = [part.name for part in model.parts()]
    assert set(in_torch) == set(names)
    assert len(report.warnings) == len(names)
    assert all(w.kind == RUNTIME and "runs in onnxruntime" in w.text for w in report.warnings)
    # 150 proposals are two times a hundred at most, 11 detections two times eight.
    if which == "mask_rcnn":
        assert [in_torch.count(n) for n in names] == [1, 2, 2]
        del in_torch[:]
        # A frame's results are those of it alone.
        pair = model.infer([one, frame(96, 128, seed=2)])
        assert in_torch.count("trunk") == 2
        assert_same(pair[0].numpy(), ours, 1e-6)


def test_a_frame_without_detections_decides_nothing(in_torch, tmp_path):
    path = str(checkpoint("mask_rcnn", tmp_path))
    model = registry.create("mask_rcnn", checkpoint=path, min_score=1.0)
    (nothing,) = model.infer([frame(96, 128)])
    assert len(nothing) == 0
    assert "masks" not in in_torch


@pytest.mark.parametrize(
    ("which", "kind"),
    [
        pytest.param("mask_rcnn", "onnxruntime", marks=pytest.mark.slow),
        pytest.param("mask_rcnn on lite0", "openvino", marks=pytest.mark.slow),
        pytest.param("vatrack", "openvino", marks=pytest.mark.slow),
        pytest.param("aisformer", "openvino", marks=pytest.mark.slow),
        pytest.param("vrsp", "onnxruntime", marks=pytest.mark.slow),
    ],
)
def test_written_graphs_give_what_torch_gives(monkeypatch, tmp_path, which, kind):
    for module in (kind, "onnxscript"):
        pytest.importorskip(module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path, name = str(checkpoint(which, tmp_path)), which.partition(" ")[0]
    exact = registry.create(name, checkpoint=path, runtime="torch")
    model = registry.create(name, checkpoint=path, runtime=kind)
    report = Report()
    one, wide = frame(96, 128, seed=1), frame(96, 160, seed=2)
    for some in (one, wide):
        ours, theirs = (m.infer([some], report)[0].numpy() for m in (model, exact))
        assert_same(ours, theirs, 1e-4)
    parts = [part.name for part in model.parts()]
    texts = [w.text.split(" runs in ") for w in report.warnings]
    assert {who for who, _ in texts} == {f"the network's {part}" for part in parts}
    assert all(what.startswith(kind) for _, what in texts)
    written = [p.name.split(".")[1] for p in graphs.folder().iterdir()]
    assert sorted(written) == sorted(parts)


def test_a_part_is_a_file_that_onnxruntime_runs_alike(tmp_path):
    for module in ("onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    path = str(checkpoint("mask_rcnn", tmp_path))
    model = registry.create("mask_rcnn", checkpoint=path, runtime="torch")
    masks = [part for part in model.parts() if part.name == "masks"]
    model.parts = lambda: masks
    (done,) = export_parts(model, tmp_path / "x.onnx", (96, 64))
    assert done.error < 1e-4
    properties = graphs.properties(done.path)
    assert (properties["model"], properties["part"]) == ("mask_rcnn", "masks")


@pytest.mark.slow
def test_parts_are_exported_as_files_that_onnxruntime_runs_alike(tmp_path):
    for module in ("onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    path = str(checkpoint("mask_rcnn", tmp_path))
    model = registry.create("mask_rcnn", checkpoint=path, runtime="torch")
    results = export_parts(model, tmp_path / "x.onnx", (96, 64))
    assert [done.path.name for done in results] == ["x.trunk.onnx", "x.boxes.onnx", "x.masks.onnx"]
    assert results[0].inputs == {"images": (1, 3, 64, 96), "depth": (1, 2, 64, 96)}
    assert results[2].inputs == {"pooled": (8, 32, 14, 14), "labels": (8,)}
    assert max(done.error for done in results) < 1e-4


def test_a_gpu_is_torchs(tmp_path):
    path = checkpoint("mask_rcnn", tmp_path)
    model = registry.create("mask_rcnn", checkpoint=str(path), runtime="torch").to("meta")
    model.config = replace(model.config, runtime="auto")
    assert two_stage_parts.accelerated(model, model.parts(), path) == []
    model.config = replace(model.config, runtime="openvino")
    with pytest.raises(InputError, match="runs in torch or compile on meta"):
        two_stage_parts.accelerated(model, model.parts(), path)


# RoIAlign


@pytest.mark.parametrize("kind", ["aligned", "torchvision"])
@pytest.mark.parametrize("side", [7, 14])
def test_features_in_boxes_are_torchvisions(kind, side):
    draw = torch.Generator().manual_seed(0)
    levels = {str(k): torch.randn(2, 5, 96 // 2**k, 128 // 2**k, generator=draw) for k in range(4)}
    corners = torch.rand(40, 2, generator=draw) * 500 - 60
    extents = torch.rand(40, 2, generator=draw) ** 3 * 480
    boxes = torch.cat([corners, corners + extents], 1)
    boxes[0, 2:] = boxes[0, :2]  # empty
    given = [boxes[:30], boxes[30:]]
    pool = RoiFeatures(side, kind)
    exact = pool(levels, given, [(384, 512)] * 2)
    pool.by_kernel = True
    with torch.inference_mode():
        ours = pool(levels, given, [(384, 512)] * 2)
        assert pool(levels, [boxes[:0]] * 2, [(384, 512)] * 2).shape == (0, 5, side, side)
    torch.testing.assert_close(ours, exact, rtol=1e-4, atol=2e-4)
    assert exact.abs().max() > 1


def test_gradients_are_torchvisions_own():
    pool = RoiFeatures(7, "aligned")
    pool.by_kernel = True
    level = torch.randn(1, 2, 16, 16, requires_grad=True)
    levels = {"0": level, **{str(k): level[:, :, :: 2**k, :: 2**k] for k in (1, 2, 3)}}
    box = torch.tensor([[4.0, 4, 40, 40]])
    pool(levels, [box], [(64, 64)]).sum().backward()
    rois = torch.tensor([[0.0, 4, 4, 40, 40]])
    other = level.detach().requires_grad_()
    roi_align(other, rois, 7, 0.25, aligned=True).sum().backward()
    torch.testing.assert_close(level.grad, other.grad)
