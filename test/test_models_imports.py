"""Weights that other projects published become checkpoints that give the originals' numbers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import seeded_weights
import torch
from seeded_weights import Mine

from amodal_core.errors import InputError
from amodal_core.frame import Frame
from amodal_core.models import registry
from amodal_core.models.checkpoint import read_info
from amodal_core.models.imports.importer import import_weights
from amodal_core.models.layers.weights import read_weights


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
