"""NanoDet-g under the flagship is the public network, and the heads begin with what it sees."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.flagship import Flagship, FlagshipConfig
from amodal_core.models.layers.nanodet import NanoDet, TrunkOutput, prior, published_weights
from training.setup import begin_with

FIXTURE = Path(__file__).parent / "fixtures/nanodet.npz"
PUBLIC = "AMODAL_NANODET"
KEPT = "75cc7f45ac4192df7f35dd9da6e654bd6e8c99ba2c1c93a145631346d91ee5af"  # of the public weights
PLACES = (2704, 676, 169)  # of the three strides
TRAFFIC = [0, 1, 2, 3, 5, 6, 7]  # COCO's numbers of persons, cycles and vehicles
CLASSES = ("car", "van", "tram", "pedestrian", "cyclist", "misc")


def graph(folder, kernels, dtype="float16"):
    """A TF.js graph of nothing but convolutions, as the package stores it: graph and numbers."""
    nodes, entries, data = [{"name": "input", "op": "Placeholder"}], [], b""
    for k, (kernel, bias) in enumerate(kernels):
        suffix = f"_{k}" if k else ""
        for name, value in ((f"kernel{k}", kernel.permute(2, 3, 1, 0)), (f"bias{k}", bias)):
            entries.append({"name": name, "shape": list(value.shape), "dtype": "float32"})
            if dtype == "float16":
                entries[-1]["quantization"] = {"dtype": dtype, "original_dtype": "float32"}
            data += value.contiguous().numpy().astype(dtype).tobytes()
            nodes.append({"name": name, "op": "Const"})
        conv = f"Call/convolution{suffix}"
        nodes.append({"name": conv, "op": "Conv2D", "input": ["input", f"kernel{k}"]})
        nodes.append({"name": f"Call/Add{suffix}", "op": "Add", "input": [conv, f"bias{k}"]})
    # The order of the nodes is not the order of the convolutions.
    nodes = nodes[::-1]
    manifest = [{"paths": ["nanodet.bin"], "weights": entries}]
    (folder / "nanodet.bin").write_bytes(data)
    (folder / "nanodet.json").write_text(
        json.dumps({"modelTopology": {"node": nodes}, "weightsManifest": manifest})
    )
    return folder / "nanodet.json"


def weights():
    """A kernel and a bias for every convolution of the network, exact in half precision."""
    torch.manual_seed(0)
    return [
        (
            (torch.randn(c.weight.shape) * 0.05).half().float(),
            torch.randn(len(c.weight)).half().float(),
        )
        for c in NanoDet().convolutions()
    ]


class TestWeights:
    """The package's file, a graph of TensorFlow.js with numbers in half precision."""

    def test_every_tensor_arrives_and_colours_change_places(self, tmp_path):
        kernels = weights()
        model = NanoDet(str(graph(tmp_path, kernels)))
        for number, (conv, (kernel, bias)) in enumerate(
            zip(model.convolutions(), kernels, strict=True)
        ):
            # The public network takes BGR.
            torch.testing.assert_close(conv.weight, kernel if number else kernel.flip(1))
            torch.testing.assert_close(conv.bias, bias)

    def test_numbers_in_single_precision_are_read_as_well(self, tmp_path):
        kernels = weights()[:2]
        for ours, theirs in zip(
            published_weights(graph(tmp_path, kernels, "float32")), kernels, strict=True
        ):
            torch.testing.assert_close(ours, theirs)

    @pytest.mark.parametrize("fault", ["no file", "no numbers", "cut short", "not json", "another"])
    def test_a_file_that_does_not_fit_is_one_error(self, tmp_path, fault):
        path = graph(tmp_path, weights()[:-1] if fault == "another" else weights())
        data = tmp_path / "nanodet.bin"
        if fault == "no file":
            path.unlink()
        elif fault == "no numbers":
            data.unlink()
        elif fault == "cut short":
            data.write_bytes(data.read_bytes()[:-2])
        elif fault == "not json":
            path.write_text("[")
        with pytest.raises(InputError, match=r"nanodet\.json.*human-models"):
            NanoDet(str(path))


def image():
    """(1, 3, 416, 416) BGR blocks of 32 pixels, the recorded run's input."""
    blocks = np.random.default_rng(0).uniform(-2, 2, (1, 3, 13, 13)).astype(np.float32)
    return torch.from_numpy(blocks.repeat(32, 2).repeat(32, 3))


def selected(folder, count):
    """Of the recorded run, at some places: scores of persons and vehicles, reach of boxes."""
    every = max(count // 40, 1)
    scores = np.fromfile(f"{folder}/1_{count}_80.bin", np.float32).reshape(count, 80)
    share = np.fromfile(f"{folder}/1_{count}_44.bin", np.float32).reshape(count, 4, 11)
    share = np.exp(share) / np.exp(share).sum(-1, keepdims=True)
    reach = (share * np.arange(11)).sum(-1).astype(np.float32)
    return scores[::every, TRAFFIC], reach[::every]


def record(folder):
    """Write the fixture from the outputs of `record_nanodet.js`."""
    values = {}
    for count in PLACES:
        values[f"scores_{count}"], values[f"reach_{count}"] = selected(folder, count)
    np.savez_compressed(FIXTURE, **values)


def compared(trunk):
    """Per stride: our scores and reach of boxes beside the recorded run's."""
    recorded = np.load(FIXTURE)
    with torch.no_grad():
        _, _, outputs = trunk(image().flip(1))
    for output, count in zip(outputs, PLACES, strict=True):
        every = max(count // 40, 1)
        scores = output.logits[0].flatten(1).T.sigmoid().numpy()[::every, TRAFFIC]
        reach = output.reach[0].flatten(1).T.numpy()[::every]
        yield (scores, recorded[f"scores_{count}"]), (reach, recorded[f"reach_{count}"])


@pytest.mark.skipif(PUBLIC not in os.environ, reason=f"{PUBLIC}: path of the public nanodet.json")
def test_the_public_weights_see_what_the_public_network_sees():
    for scores, reach in compared(NanoDet(os.environ[PUBLIC]).eval()):
        np.testing.assert_allclose(*scores, atol=1e-6)
        np.testing.assert_allclose(*reach, atol=2e-5)


def kept(state):
    """Hash of the layers that training leaves as they are, rounded as a checkpoint stores them."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if name.startswith(("stem.", "stages.0.", "outputs.")):
            digest.update(value.half().numpy().tobytes())
    return digest.hexdigest()


def test_first_and_last_layers_of_the_trunk_that_ships_are_the_public_networks():
    state = load_file(registry.shipped("flagship"))
    trunk = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    assert kept(trunk) == KEPT
    if PUBLIC in os.environ:
        assert kept(NanoDet(os.environ[PUBLIC]).state_dict()) == KEPT


@pytest.mark.parametrize("names", [("car", "tram"), ("van", "pedestrian"), ("dog",), CLASSES])
def test_a_trunk_of_pruned_classes_gives_the_same_prior(names):
    trunk = NanoDet().eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = prior(trunk(images)[2], names)
        trunk.prune_classes(names)
        trunk.prune_classes(names)  # as where a copy is fused once more
        outputs = trunk(images)[2]
        begin = prior(outputs, names, trunk.coco_classes)
    assert outputs[0].logits.shape[1] == len(trunk.coco_classes) < 10
    for ours, theirs in zip(begin, expected, strict=True):
        torch.testing.assert_close(ours.logits, theirs.logits)
        torch.testing.assert_close(ours.log_reach, theirs.log_reach)


class TestPrior:
    """What the heads begin with."""

    def test_a_class_begins_as_the_likeliest_of_what_coco_calls_it(self):
        logits = torch.randn(2, 80, 3, 4)
        (begin,) = prior([TrunkOutput(logits, torch.ones(2, 4, 3, 4))], CLASSES)
        torch.testing.assert_close(begin.logits[:, 0], logits[:, 2])
        torch.testing.assert_close(begin.logits[:, 1], logits[:, [2, 7]].amax(1))
        torch.testing.assert_close(begin.logits[:, 2], logits[:, 6])
        # COCO has no such class: rare, as in a head without a trunk that detects.
        assert (begin.logits[:, 5].sigmoid() < 0.011).all()

    @pytest.mark.parametrize(
        ("score", "right", "below", "rides"),
        [
            (0.05, 0, 1, 0.0),
            (0.225, 0, 1, 0.5),
            (0.9, 1, 2, 1.0),
            (0.9, -1, 0, 1.0),
            (0.9, 2, 1, 0.0),
            (0.9, 0, -1, 0.0),
            (0.9, 0, 3, 0.0),
        ],
    )
    def test_a_person_rides_a_cycle_that_is_below(self, score, right, below, rides):
        scores = torch.full((1, 80, 8, 8), 1e-4)
        scores[0, 0, 3, 3] = 0.8
        scores[0, 3, 3 + below, 3 + right] = score
        (begin,) = prior([TrunkOutput(torch.logit(scores), torch.ones(1, 4, 8, 8))], CLASSES)
        walker, rider = torch.sigmoid(begin.logits[0, 3:5, 3, 3]).tolist()
        # The cycle may be parked: three tenths of the walker stay.
        assert walker == pytest.approx(0.8 * (1 - 0.7 * rides), abs=1e-5)
        assert rider == pytest.approx(max(0.8 * rides, 1e-4), abs=1e-5)

    def test_boxes_and_scores_of_an_untrained_head_are_the_trunks(self):
        torch.manual_seed(1)
        model = Flagship(FlagshipConfig.nanodet(CLASSES, lidar=False)).eval()
        for layer in (model.head.classes, model.head.boxes):
            torch.nn.init.zeros_(layer.weight)
        x = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            dense, _ = model._see(x, None)
            _, _, outputs = model.backbone(x)
        begin = prior(outputs, CLASSES)
        torch.testing.assert_close(
            dense.logits, torch.cat([b.logits.flatten(2) for b in begin], 2).transpose(1, 2)
        )
        # The first location of stride 8 has its centre at 4, 4.
        left, top, right, bottom = (8 * outputs[0].reach[0, :, 0, 0].clamp(min=0.25)).tolist()
        box = torch.tensor([4 - left, 4 - top, 4 + right, 4 + bottom])
        torch.testing.assert_close(dense.boxes[0, 0], box)
        torch.testing.assert_close(dense.visible_boxes[0, 0], box)


class TestDetail:
    """Mask features of stride 2 from the stem, which the trunk's own stages never see."""

    def test_it_begins_with_the_coarse_features_and_learns(self):
        torch.manual_seed(2)
        fine = Flagship(FlagshipConfig.nanodet(CLASSES, lidar=False)).eval()
        coarse = Flagship(FlagshipConfig.nanodet(CLASSES, lidar=False, detail=False)).eval()
        left, unknown = coarse.load_state_dict(fine.state_dict(), strict=False)
        assert (left, {name.partition(".")[0] for name in unknown}) == ([], {"detail"})
        x = torch.randn(1, 3, 64, 96)
        features, before = fine._see(x, None)[1], coarse._see(x, None)[1]
        assert before.shape[-2:] == (16, 24)
        expected = torch.nn.functional.interpolate(before, scale_factor=2.0, mode="bilinear")
        torch.testing.assert_close(features, expected)
        # Features at twice the scale are drawn at the same places; only they are smoother there.
        with torch.no_grad():
            drawn = torch.stack([model(x).amodal.flatten(2) for model in (fine, coarse)])
        drawn -= drawn.mean(-1, keepdim=True)
        assert torch.corrcoef(drawn.flatten(1))[0, 1] > 0.97
        features.square().sum().backward()
        assert fine.detail[1].weight.grad.abs().max() > 0

    def test_it_sees_what_pooling_hides(self):
        torch.manual_seed(2)
        model = Flagship(FlagshipConfig.nanodet(CLASSES, lidar=False)).eval()
        torch.nn.init.normal_(model.detail[1].weight)
        # Of a stem that passes every second pixel on, the pooling makes the same of one line and
        # of two with a gap in its place.
        kernel = torch.zeros_like(model.backbone.stem.weight)
        kernel[:, :, 1, 1] = 1.0
        model.backbone.stem.weight.data.copy_(kernel)
        model.backbone.stem.bias.data.zero_()
        lines = torch.zeros(2, 3, 64, 96)
        lines[0, :, :, 42] = lines[1, :, :, [40, 44]] = 1.0
        with torch.no_grad():
            stem, levels, _ = model.backbone(lines)
            features = model._see(lines, None)[1]
        torch.testing.assert_close(levels[0][0], levels[0][1])
        assert not torch.equal(stem[0], stem[1])
        assert (features[0] - features[1]).abs().max() > 0.1

    def test_only_a_trunk_with_a_stem_of_its_own_gives_it(self):
        with pytest.raises(InputError, match=r"detail: variant lite has no features of stride 2"):
            Flagship(FlagshipConfig.lite(CLASSES, detail=True))

    def test_a_run_with_it_begins_with_weights_without(self, tmp_path):
        coarse = Flagship(FlagshipConfig.nanodet(CLASSES, lidar=False, detail=False))
        path = str(tmp_path / "coarse.safetensors")
        save_checkpoint(path, coarse, CheckpointInfo("flagship", coarse.config_json(), CLASSES))
        fine = Flagship(FlagshipConfig.nanodet(CLASSES, lidar=False))
        said = begin_with(fine, path)
        count = len(coarse.state_dict())
        assert said.startswith(f"{count} of {len(fine.state_dict())} tensors")
        again = Flagship(FlagshipConfig.nanodet(CLASSES, lidar=False, detail=False))
        assert begin_with(again, path).startswith("beginning")
