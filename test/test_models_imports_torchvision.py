"""torchvision's published detectors become models that find the same, and beginnings for others."""

from __future__ import annotations

import pytest
import seeded_weights
import torch
from torchvision.models.detection import (
    MaskRCNN_ResNet50_FPN_Weights,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.image_list import ImageList

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.checkpoint import load_shared, read_info
from amodal_core.models.imports.importer import import_weights
from amodal_core.models.layers.batch import Batch
from amodal_core.models.layers.weights import read_weights
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
