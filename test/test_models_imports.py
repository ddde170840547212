"""Weights that other projects published become checkpoints that give the originals' numbers."""

from __future__ import annotations

import gzip
import os
import pickle
from typing import ClassVar

import numpy as np
import pytest
import seeded_weights
import torch
from torchvision.models import resnet50
from torchvision.models.detection import (
    MaskRCNN_ResNet50_FPN_Weights,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.image_list import ImageList
from typer.testing import CliRunner

from amodal_core.errors import InputError
from amodal_core.frame import Frame
from amodal_core.models import registry
from amodal_core.models.checkpoint import (
    CheckpointInfo,
    load_shared,
    read_info,
    save_checkpoint,
)
from amodal_core.models.imports.backbone_names import BODIES, expected
from amodal_core.models.imports.files import read_file
from amodal_core.models.imports.importer import import_weights
from amodal_core.models.imports.two_stage_names import body_name
from amodal_core.models.layers.backbone import move_strides, resnet_fpn
from amodal_core.models.layers.batch import Batch, make_batch
from amodal_core.models.layers.efficientnet_lite import EfficientNetLite, package_shapes
from amodal_core.models.layers.weights import read_weights
from amodal_ros.cli import main as cli
from amodal_ros.cli.weights import named_classes
from training.setup import begin_with

NAMES = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]


def random_weights(network: torch.nn.Module) -> torch.nn.Module:
    """A network with seeded weights under which it finds something, statistics of norms, too."""
    draw = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=draw)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1, generator=draw)
        elif "cls_score.weight" in name:
            value.normal_(0, 4e-3, generator=draw)
        elif "bbox_pred.weight" in name or "logits" in name:
            value.normal_(0, 5e-4, generator=draw)
    return network.eval()


def batch_of(height: int = 128, width: int = 192) -> Batch:
    images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))
    return Batch(images, None, [(height, width)], [(height, width)], torch.ones(1, 2))


def of_coco(maker) -> torch.nn.Module:
    """One of torchvision's detectors with seeded weights."""
    torch.manual_seed(0)
    network = random_weights(maker(weights=None, weights_backbone=None))
    # What stands for no class is never found.
    nothing = [k for k, name in enumerate(NAMES) if name == "N/A"]
    network.roi_heads.box_predictor.cls_score.bias.data[nothing] = -50
    return network


@pytest.fixture(scope="module")
def coco():
    network = of_coco(maskrcnn_resnet50_fpn)
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eps = 0.0  # torchvision's `overwrite_eps` where it loads this file
    return network


def assert_finds_what_torchvision_finds(network, tmp_path) -> None:
    """A Mask R-CNN becomes a model that finds the same in a seeded image."""
    torch.save(network.state_dict(), tmp_path / "coco.pth")
    done = import_weights([tmp_path / "coco.pth"], "mask_rcnn", tmp_path / "x.safetensors")
    assert (len(done.classes), done.classes[2], done.rest) == (80, "car", ())
    assert done.taken == done.tensors
    few = {"min_score": 0.1, "proposals": 100, "max_instances": 30, "runtime": "torch"}
    model = registry.create("mask_rcnn", checkpoint=tmp_path / "x.safetensors", **few)
    batch = batch_of()
    network.roi_heads.score_thresh = 0.1
    network.rpn._post_nms_top_n["testing"] = 100
    network.roi_heads.detections_per_img = 30
    with torch.inference_mode():
        features = network.backbone(batch.images)
        proposals, _ = network.rpn(ImageList(batch.images, batch.sizes), features)
        (truth,), _ = network.roi_heads(features, proposals, batch.sizes)
        (ours,) = model.detect(batch)
    assert len(ours.labels) > 5
    assert [done.classes[k] for k in ours.labels] == [NAMES[k] for k in truth["labels"]]
    assert torch.allclose(ours.boxes, truth["boxes"], atol=1e-3)
    assert torch.allclose(ours.scores, truth["scores"], atol=1e-5)
    assert torch.allclose(ours.amodal.sigmoid(), truth["masks"][:, 0], atol=1e-5)


class TestTorchvision:
    def test_mask_rcnn_of_coco_finds_what_torchvision_finds(self, coco, tmp_path):
        assert_finds_what_torchvision_finds(coco, tmp_path)

    def test_its_second_version_has_its_norms_in_the_convolutions(self, tmp_path):
        network = of_coco(maskrcnn_resnet50_fpn_v2)
        assert_finds_what_torchvision_finds(network, tmp_path)
        config = read_info(tmp_path / "x.safetensors").config
        assert (config["proposal_convolutions"], config["box_convolutions"]) == (2, 4)

    def test_its_second_version_begins_a_training_of_others(self, tmp_path):
        with torch.device("meta"):
            names = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).state_dict()
        state = seeded_weights.state_of(seeded_weights.shapes_of(names))
        torch.save(state, tmp_path / "x.pth")
        out = tmp_path / "x.safetensors"
        done = import_weights([tmp_path / "x.pth"], "aisformer", out, partial=True)
        assert (done.taken, len(done.rest)) == (303, 51)
        lateral = read_weights(out)["backbone.fpn.inner_blocks.1.0.bias"]
        norm = {n.rpartition(".")[2]: t for n, t in state.items() if "inner_blocks.1.1." in n}
        shift = norm["running_mean"] / (norm["running_var"] + 1e-5).sqrt() * norm["weight"]
        assert torch.allclose(lateral, norm["bias"] - shift, atol=1e-6)

    def test_classes_are_chosen_by_name(self, coco, tmp_path):
        torch.save(coco.state_dict(), tmp_path / "coco.pth")
        import_weights(
            [tmp_path / "coco.pth"],
            "mask_rcnn",
            tmp_path / "x.safetensors",
            classes=["truck", "pedestrian"],
            settings={"min_score": 0.25},
        )
        info, state = (
            read_info(tmp_path / "x.safetensors"),
            read_weights(tmp_path / "x.safetensors"),
        )
        assert (info.classes, info.config["min_score"]) == (("truck", "pedestrian"), 0.25)
        old = coco.state_dict()["roi_heads.box_predictor.bbox_pred.weight"]
        rows = [*range(4), *range(32, 36), *range(4, 8)]  # background, 8 truck, 1 person
        assert torch.equal(state["heads.box_predictor.bbox_pred.weight"], old[rows])
        masks = coco.state_dict()["roi_heads.mask_predictor.mask_fcn_logits.bias"]
        assert torch.equal(state["visible_branch.logits.bias"], masks[[8, 1]])

    def test_a_beginning_for_training_has_what_the_file_has(self, tmp_path):
        torch.manual_seed(0)
        faster = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        torch.save(faster.state_dict(), tmp_path / "faster.pth")
        path, out = [tmp_path / "faster.pth"], tmp_path / "x.safetensors"
        with pytest.raises(InputError, match=r"51 tensors missing \(head\..*--partial"):
            import_weights(path, "aisformer", out)
        assert not out.exists()
        kitti = ["car", "tram", "pedestrian", "caravan"]
        with pytest.raises(InputError, match=r"no class caravan \(there are: person, .*toothbrush"):
            import_weights(path, "aisformer", out, classes=kitti)
        done = import_weights(path, "aisformer", out, classes=kitti, partial=True)
        assert done.taken == 291
        settings = {**read_info(out).config}
        model = registry.learned("aisformer").from_config(settings)
        assert load_shared(out, model) == (291, 346)
        stem = faster.state_dict()["backbone.body.conv1.weight"]
        assert torch.equal(model.backbone.body.conv1.weight, stem)
        with pytest.raises(InputError, match="a part of the weights of 'aisformer', to begin"):
            registry.create("aisformer", checkpoint=out)
        model = registry.learned("aisformer").from_config(settings)
        assert begin_with(model, str(out)) == (
            "291 of 346 tensors begin with those of aisformer, the rest anew"
        )
        assert torch.equal(model.backbone.body.conv1.weight, stem)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (
                ("conv1_w", "res2_0_branch2a_w", "cls_score_w"),
                r"Detectron's detectors, which 'mask_rcnn' cannot take \(its anchors .*detectron2",
            ),
            (
                ("backbone.conv1.weight", "bbox_head.fc_cls.weight"),
                r"mmdetection 1\.x, which 'mask_rcnn' cannot take \(its boxes .* version 2",
            ),
        ],
    )
    def test_what_no_network_here_is_like_is_refused_with_a_way_out(self, names, message, tmp_path):
        torch.save({name: torch.zeros(2, 2) for name in names}, tmp_path / "x.pth")
        with pytest.raises(InputError, match=message):
            import_weights([tmp_path / "x.pth"], "mask_rcnn", tmp_path / "x.safetensors")

    def test_what_does_not_fit_is_named(self, coco, tmp_path):
        out = tmp_path / "x.safetensors"
        state = coco.state_dict()
        del state["backbone.body.layer1.0.conv1.weight"]
        state["roi_heads.keypoint_head.0.weight"] = torch.zeros(2)
        state["rpn.head.cls_logits.bias"] = torch.zeros(5)
        torch.save(state, tmp_path / "coco.pth")
        with pytest.raises(InputError) as error:
            import_weights([tmp_path / "coco.pth"], "mask_rcnn", out)
        assert error.value.what == (
            "weights of torchvision's Faster or Mask R-CNN do not fit 'mask_rcnn': "
            "1 tensors missing (backbone.body.layer1.0.conv1.weight); "
            "1 tensors foreign (roi_heads.keypoint_head.0.weight); "
            "1 tensors of another shape (rpn.head.cls_logits.bias: (5,) for (3,))"
        )
        with pytest.raises(
            InputError, match=r"Mask R-CNN, which 'eoras' cannot take \(--model mask"
        ):
            import_weights([tmp_path / "coco.pth"], "eoras", out)
        torch.save({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "coco.pth")
        with pytest.raises(InputError, match=r"no kind that is known: 2 tensors, such as a, b"):
            import_weights([tmp_path / "coco.pth"], "mask_rcnn", out)
        assert not out.exists()


class Mine:
    """An object of a training script's own class."""

    def __init__(self) -> None:
        self.log = [1, 2]


class Harm:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class TestFiles:
    state: ClassVar = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}

    @pytest.mark.parametrize("outer", ["state_dict", "model", "model_state", "ema", ""])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_wrapped_tables_are_found(self, outer, prefix, tmp_path):
        state = {prefix + name: value for name, value in self.state.items()}
        torch.save({outer: state, "epoch": 3} if outer else state, tmp_path / "x.pth")
        file = read_file(tmp_path / "x.pth")
        assert list(file.tensors) == ["a", "b"]
        assert torch.equal(file.tensors["a"], self.state["a"])
        assert not outer or file.meta["epoch"] == 3

    @pytest.mark.parametrize("zipped", [True, False])
    def test_objects_beside_the_tensors_are_passed_over(self, zipped, tmp_path):
        value = {"state_dict": self.state, "log": Mine(), "meta": {"CLASSES": ("car", "van")}}
        torch.save(value, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        file = read_file(tmp_path / "x.pth")
        assert torch.equal(file.tensors["b"], self.state["b"])
        assert file.meta["meta"]["CLASSES"] == ("car", "van")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_nothing_that_a_file_asks_for_is_run(self, zipped, tmp_path):
        made = tmp_path / "made"
        value = {"state_dict": self.state, "log": Harm(str(made))}
        torch.save(value, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        read_file(tmp_path / "x.pth")
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": Harm(str(made))}))
        with pytest.raises(InputError, match="mkdir"):
            read_file(tmp_path / "x.pkl")
        assert not made.exists()

    def test_pickles_of_arrays_and_packed_files_are_read(self, tmp_path):
        arrays = {name: value.numpy() for name, value in self.state.items()}
        value = {"model": arrays, "__author__": "someone", "matching_heuristics": True}
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value))
        torch.save(self.state, tmp_path / "x.pth")
        (tmp_path / "x.pth.gz").write_bytes(gzip.compress((tmp_path / "x.pth").read_bytes()))
        np.save(tmp_path / "x.npy", np.array(arrays, object), allow_pickle=True)
        for name in ("x.pkl", "x.pth.gz", "x.npy"):
            assert torch.equal(read_file(tmp_path / name).tensors["a"], self.state["a"]), name

    def test_what_is_no_file_of_weights_is_said(self, tmp_path):
        with pytest.raises(InputError, match="no such weights"):
            read_file(tmp_path / "x.pth")
        for name in ("x.pth", "x.pkl", "x.npy", "x.safetensors", "x.gz"):
            (tmp_path / name).write_bytes(b"\x1f\x8bnothing")
            with pytest.raises(InputError, match="not a file of weights"):
                read_file(tmp_path / name)
        torch.save([1, 2], tmp_path / "x.pth")
        with pytest.raises(InputError, match="no table of tensors"):
            read_file(tmp_path / "x.pth")


def imported(name: str, model: str, tmp_path, beside=(), about=None, gains=None, **options):
    """A model with the seeded weights of a fixture's names, and what the original made of them.

    Args:
        name: of the fixture.
        model: in the registry.
        tmp_path: where files go.
        beside: files that go with it.
        about: what the file says of itself.
        gains: factor of single tensors by name.
        **options: of the import.
    """
    shapes, outputs = seeded_weights.read(name)
    state = seeded_weights.state_of(shapes)
    for tensor, gain in (gains or {}).items():
        state[tensor] *= gain
    path, out = tmp_path / f"{name}.pth", tmp_path / f"{name}.safetensors"
    torch.save({"state_dict": state, **(about or {})}, path)
    own = {"short_side": 0, "long_side": 0, "max_instances": 30}
    settings = own | options.pop("settings", {})
    done = import_weights([path, *beside], model, out, settings=settings, **options)
    assert done.taken == done.tensors
    return registry.create(model, checkpoint=out, runtime="torch"), outputs


def cells(masks: torch.Tensor) -> torch.Tensor:
    """The cells of (N, 28, 28) masks that fixtures keep."""
    return masks[:, 3::7, 3::7]


def assert_finds(model, outputs) -> None:
    """A model finds in the seeded image what the original found."""
    with torch.inference_mode():
        batch = model.batch_of([Frame(0, image=seeded_weights.image())])
        (detections,) = model.detect(batch)
        amodal, visible = detections.amodal, detections.visible
        if "visible_boxes" in outputs:  # drawn on other grids than the heads'
            features, labels = model.features(batch), detections.labels
            amodal, visible = (
                branch(model.roi_features(features, [boxes], batch), labels)
                for branch, boxes in (
                    (model.amodal_branch, detections.boxes),
                    (model.visible_branch, detections.visible_boxes),
                )
            )
        else:
            outputs = outputs | {"visible": np.minimum(outputs["visible"], outputs["amodal"])}
    values = {
        "boxes": detections.boxes,
        "visible_boxes": detections.visible_boxes,
        "scores": detections.scores,
        "labels": detections.labels,
        "amodal": cells(amodal),
        "visible": cells(visible),
    }
    if detections.embeddings is not None:
        values["embeddings"] = detections.embeddings[:, ::16]
    count = len(outputs["boxes"])
    assert count > 10
    for key, truth in outputs.items():
        difference = np.abs(values[key][:count].numpy() - truth).max()
        assert difference < (1e-4 if key in ("scores", "labels", "embeddings") else 1e-3), key


def assert_finds_in_bytes(model, outputs, monkeypatch) -> None:
    """A model finds in the bytes of the seeded image what the original found there.

    Single precision differs from the original's own double precision by no more than 1e-4 pixels
    and 1e-4 in logits; the original's single precision does so by half of that.
    """
    calls, detect = [], model.detect
    monkeypatch.setattr(model, "detect", lambda batch: calls.append(detect(batch)) or calls[-1])
    (found,) = model.infer([Frame(0, image=seeded_weights.image(*seeded_weights.SIZE))])
    ((inner,),) = calls
    count = len(outputs["boxes"])
    assert count > 10
    assert found.class_ids[:count].tolist() == outputs["labels"].tolist()
    values = {
        "boxes": found.amodal_boxes,
        "scores": found.scores,
        "amodal": cells(inner.amodal),
        "visible": cells(inner.visible),
    }
    for ending in ("", "_double"):
        theirs = {key: outputs[key + ending] for key in values}
        theirs["visible"] = np.minimum(theirs["visible"], theirs["amodal"])
        for key, value in values.items():
            difference = np.abs(value[:count].numpy() - theirs[key]).max()
            print(key, ending, difference)
            assert difference < (1e-5 if key == "scores" else 1e-4), key
    # Masks in the image, whose borders a rounding may move by a pixel; visible ones are kept within
    # the amodal ones, which the original does not ask for.
    drawn = seeded_weights.moments(found.amodal[:count].rle().dense())
    np.testing.assert_allclose(drawn[:, 0], outputs["amodal_pixels"][:, 0], atol=1)
    np.testing.assert_allclose(drawn[:, 1:], outputs["amodal_pixels"][:, 1:], atol=0.02)


SOME, FEW = {"proposals": 60}, {"proposals": 40}  # as the recorded originals


class TestDetectron2:
    def test_aisformer_finds_what_the_original_finds(self, tmp_path, monkeypatch):
        settings = {"short_side": seeded_weights.SHORT}
        model, outputs = imported("aisformer", "aisformer", tmp_path, settings=settings)
        assert model.classes[:3] == ("cyclist", "pedestrian", "car")
        assert (model.config.resize, model.config.paste) == ("pil", "probabilities")
        assert_finds_in_bytes(model, outputs, monkeypatch)

    def test_vrsp_net_finds_what_the_original_finds_with_its_codebook(self, tmp_path, monkeypatch):
        book = {k: seeded_weights.codebook(k, 392).numpy() for k in range(7)}
        np.save(tmp_path / "kins_codebook.npy", book, allow_pickle=True)
        beside = [tmp_path / "kins_codebook.npy"]
        settings = FEW | {"short_side": seeded_weights.SHORT}
        model, outputs = imported("vrsp", "vrsp", tmp_path, beside, settings=settings)
        assert model.codebook.counts.tolist() == [24] * 7
        assert (model.config.rescoring_alpha, model.config.prior_query) == (3, "logits")
        assert not model.config.reclassification_rescoring
        assert_finds_in_bytes(model, outputs, monkeypatch)

    def test_orcnn_finds_what_the_original_finds(self, tmp_path):
        model, outputs = imported("orcnn", "orcnn", tmp_path, settings=FEW)
        assert (model.config.stride_in_1x1, model.config.norm) == (True, "frozen")
        assert_finds(model, outputs)

    def test_the_zoos_mask_rcnn_finds_what_the_original_finds(self, tmp_path):
        """A ResNeXt with its own colours, and the norms and layers of the new baselines."""
        gains = {"backbone.bottom_up.stem.conv1.weight": 1 / seeded_weights.BYTES}
        model, outputs = imported("detectron2", "mask_rcnn", tmp_path, gains=gains, settings=SOME)
        config = model.config
        assert (config.backbone, config.stride_in_1x1) == ("resnext50_32x4d", False)
        assert (config.proposal_convolutions, config.box_convolutions) == (2, 4)
        assert_finds(model, outputs)

    def test_aistrons_later_head_finds_what_the_original_finds(self, tmp_path):
        model, outputs = imported("aistron", "aisformer", tmp_path, settings=SOME)
        assert (model.classes[2], model.config.long_side) == ("rider", 0)
        assert model.config.convolutions == 8
        assert_finds(model, outputs)

    def test_aistron_names_the_same_head_without_a_wrapper(self, tmp_path):
        shapes, _ = seeded_weights.read("aisformer")
        state = seeded_weights.state_of(shapes)
        bare = {name.replace("mask_head_model.", ""): value for name, value in state.items()}
        torch.save({"model": bare}, tmp_path / "aistron.pth")
        out = tmp_path / "x.safetensors"
        done = import_weights([tmp_path / "aistron.pth"], "aisformer", out)
        assert done.taken == done.tensors == 346
        queries = state["roi_heads.mask_head.mask_head_model.query_embed.weight"]
        assert torch.equal(read_weights(out)["head.queries"], queries)

    def test_twelve_mask_convolutions_in_a_pickle_of_the_zoo(self, tmp_path):
        """The model zoo's pickles hold arrays; COCOA-cls' Mask R-CNN has twelve convolutions."""
        shapes, _ = seeded_weights.read("orcnn")
        shapes = {n.replace("amodal_mask", "mask"): s for n, s in shapes.items() if "vis" not in n}
        for k in range(4, 12):
            for part in ("weight", "bias"):
                first = shapes[f"roi_heads.mask_head.mask_fcn1.{part}"]
                shapes[f"roi_heads.mask_head.mask_fcn{k + 1}.{part}"] = first
        state = seeded_weights.state_of(shapes)
        arrays = {name: value.numpy() for name, value in state.items()}
        value = {"model": arrays, "__author__": "Detectron2 Model Zoo"}
        (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(value))
        out = tmp_path / "x.safetensors"
        done = import_weights([tmp_path / "model_final.pkl"], "mask_rcnn", out)
        assert done.taken == done.tensors
        assert done.classes == ("cyclist", "pedestrian", "car", "tram", "truck", "van", "misc")
        ours = read_weights(out)
        for kind in ("amodal", "visible"):
            wanted = state["roi_heads.mask_head.mask_fcn12.weight"]
            assert torch.equal(ours[f"{kind}_branch.head.22.weight"], wanted)
        assert registry.create("mask_rcnn", checkpoint=out).config.stride_in_1x1


class TestMmdetection:
    def test_mask_rcnn_of_version_2_finds_what_the_original_finds(self, tmp_path):
        model, outputs = imported("mmdet_2", "mask_rcnn", tmp_path, settings=SOME)
        config = model.config
        assert (config.stride_in_1x1, config.roi_align, config.min_score) == (
            False, "aligned", 0.05,
        )  # fmt: skip
        assert (config.resize, config.paste) == ("opencv", "probabilities")
        assert_finds(model, outputs)

    def test_version_3_tells_its_classes_and_its_caffe_style(self, tmp_path):
        names = ["car", "van", "tram", "truck", "cyclist", "misc", "pedestrian"]
        about = {
            "dataset_meta": {"classes": tuple(names)}, "cfg": "backbone=dict(style='caffe')",
        }  # fmt: skip
        model, outputs = imported(
            "mmdet_3",
            "mask_rcnn",
            tmp_path,
            about={"meta": about, "message_hub": Mine()},
            gains={"backbone.conv1.weight": seeded_weights.BYTES},
            settings=SOME,
        )
        assert (list(model.classes), model.config.stride_in_1x1) == (names, True)
        assert_finds(model, outputs)

    def test_qdtrack_gives_the_originals_embeddings(self, tmp_path):
        """Its published detector has no masks; here it has mmdetection's mask head."""
        names = [f"class {k}" for k in range(8)]
        model, outputs = imported("qdtrack", "qdtrack", tmp_path, classes=names, settings=SOME)
        assert (model.config.min_score, model.config.proposal_side) == (0.05, 1e-3)
        assert_finds(model, outputs)
        out = tmp_path / "x.safetensors"
        import_weights([tmp_path / "qdtrack.pth"], "qdtrack", out, classes=names)
        config = read_info(out).config
        assert (config["short_side"], config["long_side"]) == (720, 1296)

    def test_vatrack_gives_the_originals_masks_and_embeddings(self, tmp_path):
        model, outputs = imported("vatrack", "vatrack", tmp_path, settings=SOME)
        assert (model.classes[1], model.config.min_score) == ("car", 0.01)
        assert model.config.proposal_side == 1
        assert_finds(model, outputs)

    def test_vatrack_with_two_box_heads_gives_both_boxes_and_their_masks(self, tmp_path):
        model, outputs = imported("vatrack_two_box", "vatrack_two_box", tmp_path, settings=SOME)
        assert_finds(model, outputs)


class TestSam:
    @pytest.mark.parametrize("mode", ["normal", "adapt", "samadpt"])
    def test_s_amodal_draws_what_the_original_draws(self, mode, tmp_path):
        shapes, outputs = seeded_weights.read(f"s_amodal_{mode}")
        # As its training leaves it, beside the optimiser and a scheduler's object.
        value = {"epoch": 3, "model": seeded_weights.state_of(shapes), "lr_sched": Mine()}
        torch.save(value, tmp_path / "checkpoint_epoch3.pth")
        settings = {"encoder": "normal"} if mode == "normal" else {}
        done = import_weights(
            [tmp_path / "checkpoint_epoch3.pth"],
            "s_amodal",
            tmp_path / "x.safetensors",
            settings={"detector": "", **settings},
        )
        assert done.taken == done.tensors
        model = registry.create("s_amodal", checkpoint=tmp_path / "x.safetensors")
        assert (model.config.encoder, model.config.size, model.side) == (mode, "tiny", 256)
        frame = Frame(0, image=seeded_weights.image(256, 256))
        with torch.inference_mode():
            batch = model.batch_of([frame])
            drawn = model.sam(
                image_embeddings=model.embed(batch.images, batch.sizes),
                input_points=torch.tensor([[[[100.0, 60.0]]]]),
                input_labels=torch.ones(1, 1, 1),
                multimask_output=False,
            )
        logits = drawn.pred_masks[0, 0, 0, ::8, ::8].numpy()
        np.testing.assert_allclose(logits, outputs["logits"], atol=2e-5)
        np.testing.assert_allclose(drawn.iou_scores[0, 0].numpy(), outputs["iou"], atol=2e-5)

    def test_metas_sam_takes_another_side(self, tmp_path):
        shapes, _ = seeded_weights.read("s_amodal_normal")
        state = {
            name: value
            for name, value in seeded_weights.state_of(shapes).items()
            if ".prompt_generator." not in name
        }
        torch.save(state, tmp_path / "sam.pth")
        settings = {"detector": "", "image_size": 128}
        out = tmp_path / "x.safetensors"
        import_weights([tmp_path / "sam.pth"], "s_amodal", out, settings=settings)
        model = registry.create("s_amodal", checkpoint=out)
        assert (model.config.encoder, model.side) == ("normal", 128)
        with pytest.raises(InputError, match=r"14 tensors missing \(generator"):
            import_weights([tmp_path / "sam.pth"], "s_amodal", out, settings={"encoder": "samadpt"})


class TestBackbones:
    @pytest.mark.parametrize("name", BODIES)
    def test_a_resnet_is_known_by_its_shapes(self, name):
        assert body_name(expected(name), "", "a file") == name

    def resnet(self, style: str):
        """A ResNet-50 whose strides lie where the style has them, with seeded weights."""
        body = resnet50(weights=None)
        own = seeded_weights.shapes_of(body.state_dict())
        body.load_state_dict(seeded_weights.state_of(own), strict=False)
        if style == "caffe":
            move_strides(body)
        return body.eval()

    def caffe2_name(self, name: str) -> str:
        layer, _, part = name.rpartition(".")
        parts = layer.split(".")
        kind = {"running_mean": "rm", "running_var": "riv", "weight": "s", "bias": "b"}
        end = f"bn_{kind[part]}" if "bn" in parts[-1] or parts[-2:] == ["downsample", "1"] else "w"
        if len(parts) == 1:
            return "conv1_w" if end == "w" else f"res_conv1_{end}"
        branch = "1" if parts[2] == "downsample" else f"2{'abc'[int(parts[2][-1]) - 1]}"
        return f"res{int(parts[0][-1]) + 1}_{parts[1]}_branch{branch}_{end}"

    def test_msra_of_caffe2_sees_the_same_image(self, tmp_path):
        """The original takes blue, green, red bytes less the mean, and norms without statistics."""
        body = self.resnet("caffe")
        state = body.state_dict()
        for name in state:
            if name.endswith("running_mean"):
                state[name].zero_()
            elif name.endswith("running_var"):
                state[name].fill_(1 - 1e-5)
        arrays = {
            self.caffe2_name(n): t.numpy()
            for n, t in state.items()
            if not n.startswith("fc.") and "running" not in n and "tracked" not in n
        } | {"fc1000_w": np.zeros((1000, 2048)), "conv1_b": np.zeros(64)}
        (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": arrays}, protocol=2))
        out = tmp_path / "msra.safetensors"
        done = import_weights([tmp_path / "R-50.pkl"], "resnet50", out)
        assert done.taken == done.tensors == 265
        ours = resnet_fpn("resnet50", lidar=False, weights=out, stride_in_1x1=True).body.eval()
        image = seeded_weights.image(64, 64)
        given = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1).float()
        given = (given - torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1))[None]
        batch = make_batch([Frame(0, image=image)])
        with torch.inference_mode():
            theirs = body.conv1(given)
            for layer in (body.bn1, body.relu, body.maxpool, body.layer1, body.layer2):
                theirs = layer(theirs)
            levels = ours(batch.images)
        assert torch.allclose(levels["1"], theirs, atol=1e-3, rtol=1e-4)

    def test_torchvisions_file_of_another_depth_is_named(self, tmp_path):
        torch.save(self.resnet("pytorch").state_dict(), tmp_path / "r.pth")
        out = tmp_path / "x.safetensors"
        with pytest.raises(InputError, match=r"weights of resnet50 \(--model resnet50\)"):
            import_weights([tmp_path / "r.pth"], "resnet101", out)
        import_weights([tmp_path / "r.pth"], "resnet50", out)
        stem = self.resnet("pytorch").conv1.weight
        assert torch.allclose(read_weights(out)["conv1.weight"], stem)

    def test_timms_efficientnet_lite_is_the_packages(self, tmp_path):
        shapes = package_shapes()
        package = seeded_weights.state_of(shapes)
        timm = {"conv_head.weight": torch.zeros(1), "classifier.bias": torch.zeros(1)}
        counts, number = (1, 2, 2, 3, 3, 4, 1), 0
        names = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
        for stage, count in enumerate(counts):
            for block in range(count):
                own = (
                    {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
                     "_bn2": "bn2"}
                    if stage == 0 else
                    {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
                     "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
                )  # fmt: skip
                names |= {f"_blocks.{number}.{k}": f"blocks.{stage}.{block}.{v}"
                          for k, v in own.items()}  # fmt: skip
                number += 1
        for name, value in package.items():
            layer, part = name.rsplit(".", 1)
            timm[f"{names[layer]}.{part}"] = value
        torch.save(timm, tmp_path / "tf_efficientnet_lite0.pth")
        out = tmp_path / "x.safetensors"
        done = import_weights([tmp_path / "tf_efficientnet_lite0.pth"], "efficientnet_lite0", out)
        assert done.taken == done.tensors
        assert all(torch.equal(v, package[k]) for k, v in read_weights(out).items())
        EfficientNetLite((0, 0, 0), (1, 1, 1), str(out))


class TestPointPillars:
    """That they find what the originals find: test_models_pointpillars_public.py."""

    def state(self, name: str) -> dict[str, torch.Tensor]:
        """Seeded tensors under the names of a recorded original."""
        return seeded_weights.state_of(seeded_weights.read(f"pointpillars_{name}")[0])

    def imported(self, state, tmp_path, meta=None, **options):
        """What was done, the checkpoint's settings and its tensors."""
        value = {"state_dict": state} | ({"meta": meta} if meta else {})
        torch.save(value, tmp_path / "x.pth")
        out = tmp_path / "x.safetensors"
        done = import_weights([tmp_path / "x.pth"], "pointpillars", out, **options)
        assert (done.rest, done.taken) == ((), done.tensors)
        return done, read_info(out).config, read_weights(out)

    @pytest.mark.parametrize("name", ["pure", "pcdet", "mmdet3d", "mmdet3d_0"])
    def test_every_tensor_has_its_place(self, name, tmp_path):
        state = self.state(name)
        _, _, ours = self.imported(state, tmp_path)
        sums = sorted(float(t.double().sum()) for n, t in state.items() if n != "global_step")
        assert sorted(float(t.double().sum()) for t in ours.values()) == sums

    def test_settings_are_those_of_each_project(self, tmp_path):
        _, pure, _ = self.imported(self.state("pure"), tmp_path)
        _, pcdet, _ = self.imported(self.state("pcdet"), tmp_path)
        _, mmdet3d, _ = self.imported(self.state("mmdet3d"), tmp_path)
        _, old, _ = self.imported(self.state("mmdet3d_0"), tmp_path)
        kind = registry.learned("pointpillars")
        assert kind.from_config(pure).config == kind.from_config({}).config
        # As their configuration files have them.
        assert (pcdet["candidates"], pcdet["max_instances"]) == (4096, 500)
        assert not pcdet["multi_classes_nms"]
        assert not pcdet["align_center"]
        assert (pcdet["dir_offset"], mmdet3d["dir_offset"]) == (0.78539, -np.pi / 2)
        assert (mmdet3d["candidates"], mmdet3d["max_instances"]) == (100, 50)
        assert mmdet3d["features"] == {**pcdet["features"], "xyz": "legacy"}
        assert old["anchor_range"] == [0, -39.68, 70.4, 39.68]

    def test_classes_are_chosen_with_their_anchors(self, tmp_path):
        state = self.state("pcdet")
        _, config, ours = self.imported(state, tmp_path, classes=["cyclist", "car"])
        assert config["classes"] == ["cyclist", "car"]
        scores = state["dense_head.conv_cls.bias"].reshape(3, 2, 3)  # car, pedestrian, cyclist
        assert torch.equal(ours["head.conv_cls.bias"], scores[[2, 0]][:, :, [2, 0]].flatten())
        boxes = state["dense_head.conv_box.weight"].reshape(3, 14, 384)
        assert torch.equal(ours["head.conv_reg.weight"].flatten(), boxes[[2, 0]].flatten())
        turns = state["dense_head.conv_dir_cls.bias"].reshape(3, 4)
        # Another order of all classes is a choice, too, not other names of them.
        own = ["pedestrian", "cyclist", "car"]
        _, config, ours = self.imported(state, tmp_path, classes=own)
        assert config["classes"] == own
        assert torch.equal(ours["head.conv_dir_cls.bias"], turns[[1, 2, 0]].flatten())

    def test_a_network_of_cars_is_known_as_one(self, tmp_path):
        state = self.state("mmdet3d")
        for name, rows in {"cls": 2, "reg": 14, "dir_cls": 4}.items():
            for kind in ("weight", "bias"):
                key = f"bbox_head.conv_{name}.{kind}"
                state[key] = state[key][:rows]
        assert self.imported(state, tmp_path)[0].classes == ("car",)
        meta = {"dataset_meta": {"classes": ["Pedestrian"]}}
        assert self.imported(state, tmp_path, meta)[0].classes == ("pedestrian",)
        meta = {"CLASSES": ("Cyclist",)}
        assert self.imported(state, tmp_path, meta)[0].classes == ("cyclist",)

    @pytest.mark.parametrize(
        ("name", "width", "expected"),
        [
            ("pcdet", 7, {"xyz": "none", "voxel_center": "xyz", "with_distance": False}),
            ("pcdet", 11, {"xyz": "absolute", "voxel_center": "xyz", "with_distance": True}),
            ("mmdet3d", 11, {"xyz": "legacy", "voxel_center": "xyz", "with_distance": True}),
        ],
    )
    def test_what_a_point_is_follows_from_its_width(self, name, width, expected, tmp_path):
        state = self.state(name)
        (key,) = [k for k in state if "linear.weight" in k]
        state[key] = torch.zeros(64, width)
        settings = {"features": {"with_distance": True}}
        if expected["with_distance"]:  # Waymo's networks have as many numbers
            with pytest.raises(InputError, match=r"points of 11 numbers.*Waymo"):
                self.imported(state, tmp_path)
        else:
            settings = {}
        assert self.imported(state, tmp_path, settings=settings)[1]["features"] == expected

    @pytest.mark.parametrize(
        ("names", "said"),
        [
            (["vfe.pfn_layers.0.linear.weight", "dense_head.rpn_heads.0.conv_cls.weight"],
             r"several heads \(nuScenes\)"),
            (["vfe.pfn_layers.0.linear.weight", "dense_head.heads_list.0.hm.0.0.weight"],
             "CenterPoint on pillars"),
            (["vfe.pfn_layers.0.linear.weight", "rpn_head.conv_cls.weight"], "PCDet 0.1's"),
            (["pts_voxel_encoder.pfn_layers.0.linear.weight", "pts_bbox_head.conv_cls.weight"],
             "nuScenes, Lyft and Waymo"),
            (["voxel_feature_extractor.pfn_layers.0.linear.weight", "rpn.conv_cls.weight"],
             "second.pytorch's"),
        ],
    )  # fmt: skip
    def test_other_networks_on_pillars_are_refused_by_name(self, names, said, tmp_path):
        with pytest.raises(InputError, match=rf"{said}.*which 'pointpillars' cannot take"):
            self.imported({name: torch.zeros(64, 10) for name in names}, tmp_path)

    def test_a_version_that_contradicts_the_tensors_is_refused(self, tmp_path):
        for name, version in (("mmdet3d_0", "1.4.0"), ("mmdet3d", "0.17.3")):
            with pytest.raises(InputError, match=f"mmdetection3d {version} with a point of other"):
                self.imported(self.state(name), tmp_path, {"mmdet3d_version": version})

    def test_settings_that_weights_were_trained_with_cannot_be_changed(self, tmp_path):
        self.imported(self.state("pcdet"), tmp_path)
        out = tmp_path / "x.safetensors"
        registry.create("pointpillars", checkpoint=out, multi_classes_nms=True)
        for name, value in (("heading", "rotation_y"), ("align_center", True), ("dir_offset", 0)):
            with pytest.raises(InputError, match=f"weights for {name} "):
                registry.create("pointpillars", checkpoint=out, **{name: value})

    def test_a_checkpoint_from_before_is_as_it_was(self, tmp_path):
        model = registry.learned("pointpillars").from_config({})
        config = model.config_json()
        newer = ("features", "heading", "align_center", "anchor_range", "dir_offset")
        old = {name: value for name, value in config.items() if name not in newer}
        info = CheckpointInfo("pointpillars", old, model.classes)
        save_checkpoint(tmp_path / "x.safetensors", model, info)
        again = registry.create("pointpillars", checkpoint=tmp_path / "x.safetensors")
        assert again.config == model.config
        with pytest.raises(InputError, match="weights for heading rotation_y, not yaw"):
            registry.create("pointpillars", checkpoint=tmp_path / "x.safetensors", heading="yaw")


class TestCommand:
    def test_a_file_becomes_a_checkpoint_or_the_reason_is_one_line(self, tmp_path):
        shapes, _ = seeded_weights.read("s_amodal_normal")
        torch.save(seeded_weights.state_of(shapes), tmp_path / "net_best.pth")
        out = tmp_path / "x.safetensors"
        command = ["weights", "import", str(tmp_path / "net_best.pth"), "--out", str(out)]
        done = CliRunner().invoke(
            cli.app,
            [*command, "--model", "s_amodal", "--set", "encoder=normal", "--set", "detector="],
        )
        assert (done.exit_code, done.stdout) == (0, f"{out}\n")
        assert read_info(out).config["encoder"] == "normal"
        done = CliRunner().invoke(cli.app, [*command, "--model", "vrsp"])
        assert isinstance(done.exception, InputError)
        assert "weights of S-AModal, which 'vrsp' cannot take" in done.exception.what
        done = CliRunner().invoke(cli.app, [*command, "--model", "s_amodal", "--style", "tf"])
        assert "'tf' is no style" in str(done.exception)

    def test_classes_are_named_or_read_from_annotations(self, tmp_path):
        path = tmp_path / "a.json"
        path.write_text('{"categories": [{"id": 7, "name": "van"}, {"id": 2, "name": "car"}]}')
        assert named_classes(str(path)) == ["car", "van"]
        assert named_classes("car, van") == ["car", "van"]
        assert named_classes("") == []
        path.write_text('{"images": []}')
        with pytest.raises(InputError, match="not COCO annotations"):
            named_classes(str(path))
