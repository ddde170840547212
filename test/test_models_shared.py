"""Batches, checkpoints and the way from a network's output to instances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_scenes import frame, truth
from safetensors.torch import save_file
from torch import nn

from amodal_core.errors import InputError
from amodal_core.frame import Frame
from amodal_core.models.checkpoint import (
    FORMAT,
    CheckpointInfo,
    load_weights,
    read_info,
    save_checkpoint,
)
from amodal_core.models.detections import Detections, instances_of
from amodal_core.models.layers import attention as attention_layers
from amodal_core.models.layers.attention import Attention, Dropout, _DroppedAttention
from amodal_core.models.layers.batch import STRIDE, make_batch, targets_of
from amodal_core.models.layers.inputs import MEAN, STD, normalise


def test_images_of_different_sizes_are_padded_at_right_and_bottom():
    batch = make_batch([frame(48, 70), frame(40, 96, seed=1)])
    assert batch.images.shape == (2, 3, 64, 96)
    assert batch.images.shape[2] % STRIDE == batch.images.shape[3] % STRIDE == 0
    assert batch.images[0, :, 48:].abs().max() == 0
    assert batch.images[1, :, :, 96:].numel() == 0
    assert batch.sizes == [(48, 70), (40, 96)]


def test_images_have_the_statistics_that_public_weights_were_trained_with():
    pixel = np.array([124, 58, 200], np.uint8)
    one = Frame(1, image=np.tile(pixel, (40, 60, 1)))
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = make_batch([one]).images
    expected = (pixel / 255 - mean) / deviation
    np.testing.assert_allclose(images[0, :, 39, 59], expected, atol=1e-5)
    assert not images[0, :, 40:].any()


def test_an_image_of_the_inputs_size_is_normalised_to_the_last_bit():
    one = frame(40, 70)
    mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (MEAN, STD))
    expected = (torch.from_numpy(one.image).permute(2, 0, 1).float() - mean) / std
    images = make_batch([one]).images
    assert torch.equal(images[0, :, :40, :70], expected)
    assert not images[0, :, 40:].any()
    assert not images[0, :, :, 70:].any()


def test_no_return_is_lost_and_the_nearest_wins_when_depth_shrinks():
    one = frame(64, 64)
    one.depth = np.zeros((64, 64), np.float32)
    one.depth[10, 11], one.depth[11, 10] = 8.0, 20.0
    batch = make_batch([one], short_side=32)
    assert batch.depth is not None
    validity = batch.depth[0, 1, :32, :32]
    assert validity.sum() == 1
    assert batch.depth[0, 0, 5, 5] == pytest.approx(np.log(8.0) / np.log(80.0))


def test_a_batch_without_depth_feeds_unknown_to_a_model_with_lidar():
    batch = make_batch([frame(depth=False)])
    assert batch.depth is None
    assert batch.inputs(depth=True).shape[1] == 5
    assert batch.inputs(depth=True)[:, 3:].abs().max() == 0
    assert batch.inputs(depth=False).shape[1] == 3


@pytest.mark.parametrize(
    ("size", "settings", "expected"),
    [
        ((60, 180), {}, (60, 180)),
        # The same number of pixels whatever the shape, and nothing is enlarged.
        ((60, 180), {"most_pixels": 2700}, (30, 90)),
        ((180, 60), {"most_pixels": 2700}, (90, 30)),
        ((30, 40), {"most_pixels": 2700}, (30, 40)),
        ((60, 180), {"most_pixels": 2700, "short_side": 20}, (20, 60)),
        ((60, 180), {"most_pixels": 2700, "long_side": 60}, (20, 60)),
        ((6, 18), {"most_pixels": 2700, "short_side": 60}, (30, 90)),
    ],
)
def test_an_image_has_so_many_pixels_at_most(size, settings, expected):
    assert make_batch([frame(*size)], **settings).sizes == [expected]


def test_boxes_and_masks_are_scaled_together():
    size = (40, 60)
    targets = targets_of(truth(size, [(10, 8, 30, 24), (2, 2, 3, 3)]))
    batch = make_batch([frame(*size)], [targets], short_side=20)
    assert batch.targets is not None
    scaled = batch.targets[0]
    assert scaled.boxes[0].tolist() == [5, 4, 15, 12]
    rows, columns = torch.nonzero(scaled.amodal[0], as_tuple=True)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (5, 4, 15, 12)
    assert scaled.amodal.shape[1:] == batch.images.shape[2:]


def test_an_object_that_vanishes_at_the_batch_scale_is_ignored_not_lost():
    size = (64, 64)
    targets = targets_of(truth(size, [(10, 10, 40, 40), (1, 1, 2, 2)]))
    batch = make_batch([frame(*size)], [targets], short_side=16)
    assert batch.targets is not None
    assert batch.targets[0].ignore.tolist() == [False, not batch.targets[0].amodal[1].any()]


def test_depth_of_another_size_is_refused():
    one = frame()
    one.depth = one.depth[:-1]
    with pytest.raises(InputError, match="depth of 70x47"):
        make_batch([one])


def checkpoint(path, module=None, **changes):
    module = module or nn.Linear(3, 2)
    values = {"model": "m", "config": {"a": 1}, "classes": ("car",), "data": "d", "commit": "c"}
    save_checkpoint(path, module, CheckpointInfo(**(values | changes)))
    return module


def test_a_checkpoint_says_what_it_is_and_gives_its_weights_back(tmp_path):
    module = checkpoint(tmp_path / "m.safetensors", metrics={"AP": 0.5})
    other = nn.Linear(3, 2)
    info = load_weights(tmp_path / "m.safetensors", other, "m")
    assert torch.equal(other.weight, module.weight)
    assert info == read_info(tmp_path / "m.safetensors")
    assert (info.config, info.classes, info.metrics) == ({"a": 1}, ("car",), {"AP": 0.5})
    assert not list(tmp_path.glob(".*"))


def test_the_same_weights_are_the_same_file(tmp_path):
    info = CheckpointInfo("tiny", {"name": 'Fußgänger 100 µs \u2028 "x"'}, ("a",), data="Straße")
    weights = nn.Linear(3, 2)
    files = set()
    for n in range(6):
        save_checkpoint(tmp_path / f"{n}.safetensors", weights, info)
        files.add((tmp_path / f"{n}.safetensors").read_bytes())
    assert len(files) == 1
    assert load_weights(tmp_path / "0.safetensors", nn.Linear(3, 2), "tiny") == info


@pytest.mark.parametrize(
    ("module", "model", "says"),
    [
        (nn.Linear(3, 2), "other", "a checkpoint of 'm'"),
        (nn.Linear(4, 2), "m", r"weight: \(2, 3\) for \(2, 4\)"),
        (nn.Linear(3, 2, bias=False), "m", "1 tensors foreign"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_whole(tmp_path, module, model, says):
    checkpoint(tmp_path / "m.safetensors")
    before = module.weight.clone()
    with pytest.raises(InputError, match=says):
        load_weights(tmp_path / "m.safetensors", module, model)
    assert torch.equal(module.weight, before)


def test_missing_broken_and_foreign_checkpoint_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no such checkpoint"):
        read_info(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not a checkpoint at all")
    with pytest.raises(InputError, match="not a safetensors file"):
        read_info(tmp_path / "broken.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="does not say which model"):
        read_info(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize(
    "broken",
    [
        {"model": None},
        {"config": None},
        {"config": "3"},
        {"config": "{"},
        {"config": "[" * 100_000},
        {"classes": "5"},
        {"classes": "[1, 2]"},
        {"metrics": "[]"},
    ],
)
def test_broken_metadata_of_a_checkpoint_are_one_line(tmp_path, broken):
    metadata = {"format": FORMAT, "model": "flagship", "config": "{}", "classes": '["car"]'}
    metadata = {k: v for k, v in (metadata | broken).items() if v is not None}
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata)
    with pytest.raises(InputError, match=r"m\.safetensors: its metadata are broken"):
        read_info(tmp_path / "m.safetensors")


def found(boxes, depths, visible_left=1.0, side=8):
    """Objects that fill their boxes, of which the left share is visible."""
    n = len(boxes)
    amodal = torch.full((n, side, side), 5.0)
    visible = amodal.clone()
    visible[1:, :, round(side * visible_left) :] = -5.0
    return Detections(
        torch.tensor(boxes), torch.ones(n), torch.zeros(n, dtype=torch.long), amodal, visible,
        torch.tensor(depths),
    )  # fmt: skip


def test_the_nearer_object_that_covers_the_hidden_part_is_the_occluder():
    one = found([[20.0, 0, 40, 16], [8.0, 0, 32, 16], [60.0, 0, 70, 10]], [5.0, 9.0, 4.0], 0.5)
    result = instances_of(one, (48, 80), torch.tensor([1.0, 1.0]))
    assert result.occluders.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert result.occlusion_rates.tolist() == [0.0, 0.5, 0.5]
    assert result.visible_boxes[1].tolist() == [8, 0, 20, 16]


def test_an_object_of_unknown_depth_hides_nothing():
    one = found([[20.0, 0, 40, 16], [8.0, 0, 32, 16]], [0.0, 9.0], 0.5)
    assert not instances_of(one, (48, 80), torch.tensor([1.0, 1.0])).occluders.any()


def test_instances_come_back_at_the_frames_own_size():
    one = found([[4.0, 2, 12, 10]], [5.0])
    result = instances_of(one, (96, 160), torch.tensor([0.25, 0.5])).numpy()
    assert result.amodal_boxes[0].tolist() == [8, 8, 24, 40]
    assert result.amodal.boxes()[0].tolist() == [8, 8, 24, 40]


def test_an_object_of_which_nothing_shows_has_an_empty_mask():
    one = found([[8.0, 0, 32, 16], [40.0, 0, 60, 16]], [9.0, 5.0], 0.0)
    one.amodal[0] = one.visible[0] = -0.5
    result = instances_of(one, (48, 80), torch.tensor([1.0, 1.0])).numpy()
    assert result.amodal.areas().tolist() == [0, 320]
    assert result.visible.areas().tolist() == [0, 0]
    assert result.visible_boxes.tolist() == [[0, 0, 0, 0]] * 2
    assert result.occlusion_rates.tolist() == [0, 1]


def test_nothing_found_gives_empty_instances():
    none = Detections(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long),
        torch.zeros(0, 8, 8), torch.zeros(0, 8, 8), torch.zeros(0),
    )  # fmt: skip
    result = instances_of(none, (10, 10), torch.tensor([1.0, 1.0])).numpy()
    assert len(result) == 0
    assert result.occluders.shape == (0, 0)


def _dropping(width: int, share: float) -> tuple[Attention, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    queries, memory = torch.randn(3, 40, width), torch.randn(3, 50, width)
    return Attention(width, 2, share), queries, memory


def test_attention_drops_weights_and_keeps_their_mean():
    layer, queries, memory = _dropping(8, 0.25)
    inputs = layer.attention, queries, memory, memory
    expected, _ = layer.attention.eval()(*inputs[1:], need_weights=False)
    made = torch.stack([layer._dropped(*inputs[1:]) for _ in range(400)])
    error = made.std(0) / len(made) ** 0.5
    assert ((made.mean(0) - expected).abs() < 5.5 * error).all()
    # The share that is dropped: of weights on values that show each by itself.
    eye = torch.eye(50).expand(3, -1, -1)
    q, k = torch.randn(3, 40, 8), torch.randn(3, 50, 8)
    dropped = _DroppedAttention.apply(q, k, eye, 0.25)
    weights = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1)
    kept = dropped != 0
    assert kept.float().mean() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / kept.numel()) ** 0.5)
    assert torch.allclose(dropped, torch.where(kept, weights / 0.75, 0.0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("cached", [1, 5000, 2**20])
def test_gradients_of_dropped_attention_are_those_of_its_formula(monkeypatch, cached):
    monkeypatch.setattr(attention_layers, "_CACHED", cached)
    q, k, v = (torch.randn(5, n, 8).requires_grad_() for n in (12, 20, 20))

    def drop(values):
        torch.manual_seed(7)
        return _DroppedAttention.apply(q, k, values, 0.5)

    kept = drop(torch.eye(20).expand(5, -1, -1)).detach() != 0
    expected = ((q @ k.transpose(1, 2) / 8**0.5).softmax(-1) * kept / 0.5) @ v
    upstream = torch.randn_like(expected)
    for one, two in zip(
        torch.autograd.grad(drop(v), (q, k, v), upstream),
        torch.autograd.grad(expected, (q, k, v), upstream),
        strict=True,
    ):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)


def test_dropout_drops_its_share_and_keeps_the_mean():
    x = torch.ones(400, 250, requires_grad=True)
    for share in (0.1, 0.7):
        y = Dropout(share)(x)
        dropped = (y == 0).float().mean()
        assert dropped == pytest.approx(share, abs=4 * (share * (1 - share) / x.numel()) ** 0.5)
        assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - share)), rtol=1e-4)
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], y.detach())
        assert torch.equal(Dropout(share).eval()(x), x)


def test_an_image_is_normalised_into_the_corner_of_its_sheet_and_what_is_beside_it_is_zero():
    image = np.random.default_rng(4).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    sheet = np.full((3, 6, 9), 7.0, np.float32)
    normalise(image, sheet)
    wanted = np.zeros_like(sheet)
    wanted[:, :5, :7] = ((image / 255 - MEAN) / STD).transpose(2, 0, 1)
    np.testing.assert_allclose(sheet, wanted, atol=1e-5)
