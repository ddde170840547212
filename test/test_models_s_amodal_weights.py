"""S-AModal's weights: published layouts and sizes, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from s_amodal_scenes import TINY
from safetensors.torch import save_file
from training_scenes import CLASSES

from amodal_core.errors import InputError
from amodal_core.models.layers.sam import SIZES, make_sam
from amodal_core.models.s_amodal import SAModal


def as_published(weights):
    """transformers' names as in Meta's sam_vit_b_01ec64.pth."""
    old = {}
    for name, value in weights.items():
        if name.startswith("shared_image_embedding"):
            continue
        name = name.replace("vision_encoder.", "image_encoder.")
        name = name.replace("patch_embed.projection", "patch_embed.proj")
        name = name.replace("image_encoder.layers.", "image_encoder.blocks.")
        for k, part in enumerate(("conv1", "layer_norm1", "conv2", "layer_norm2")):
            name = name.replace(f"neck.{part}", f"neck.{k}")
        name = name.replace("prompt_encoder.point_embed.", "prompt_encoder.point_embeddings.")
        for k, part in ((0, "conv1"), (1, "layer_norm1"), (3, "conv2"), (4, "layer_norm2"),
                        (6, "conv3")):  # fmt: skip
            name = name.replace(f"mask_embed.{part}", f"mask_downscaling.{k}")
        for k, part in ((0, "conv1"), (1, "layer_norm"), (3, "conv2")):
            name = name.replace(f"upscale_{part}", f"output_upscaling.{k}")
        name = name.replace(
            "shared_embedding.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"
        )
        if "mlps." in name or "iou_prediction_head." in name:
            name = name.replace(".layers.0.", ".layers.1.").replace(".proj_in.", ".layers.0.")
            name = name.replace(".proj_out.", ".layers.2.")
        old[name.replace("layer_norm", "norm")] = value
    return old


def test_weights_in_metas_and_in_transformers_layout_give_the_same_model(tmp_path):
    first = make_sam("tiny", 128)
    weights = first.state_dict()
    old = as_published(weights)
    assert {"image_encoder.blocks.0.norm1.weight", "image_encoder.neck.3.bias",
            "mask_decoder.transformer.norm_final_attn.weight",
            "mask_decoder.output_hypernetworks_mlps.0.layers.1.bias",
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
            "mask_decoder.iou_prediction_head.layers.2.weight"} <= set(old)  # fmt: skip
    torch.save(old, tmp_path / "sam.pth")
    torch.save(weights, tmp_path / "sam.bin")
    own = {k: v.clone() for k, v in weights.items()}
    (tmp_path / "folder").mkdir()
    save_file(own, tmp_path / "folder" / "model.safetensors")
    asked = {"pixel_values": torch.randn(1, 3, 128, 128), "input_points": torch.rand(1, 2, 1, 2)}
    wanted = first(**asked, multimask_output=False)
    for name in ("sam.pth", "sam.bin", "folder", "folder/model.safetensors"):
        torch.manual_seed(hash(name) % 1000)
        other = make_sam("tiny", 128, tmp_path / name)
        found = other(**asked, multimask_output=False)
        assert torch.equal(found.pred_masks, wanted.pred_masks)
        assert torch.equal(found.iou_scores, wanted.iou_scores)


def test_published_sizes_have_the_published_names_and_shapes():
    """Names and shapes of Meta's files: SAM ViT-B has 93.7 M parameters."""
    with torch.device("meta"):
        from transformers import SamConfig, SamModel

        shape = SIZES["vit_b"]
        sam = SamModel(SamConfig(vision_config={"global_attn_indexes": list(shape.everywhere)}))
    assert sum(p.numel() for p in sam.parameters()) == pytest.approx(93.7e6, rel=1e-3)
    old = as_published(sam.state_dict())
    assert len(old) == 314
    assert old["image_encoder.pos_embed"].shape == (1, 64, 64, 768)
    assert old["image_encoder.blocks.2.attn.rel_pos_h"].shape == (127, 64)
    assert old["image_encoder.blocks.0.attn.rel_pos_h"].shape == (27, 64)
    assert old["prompt_encoder.mask_downscaling.6.weight"].shape == (256, 16, 1, 1)


def test_places_are_interpolated_for_inputs_of_another_size(tmp_path):
    """Ramps stay ramps, between the centres of the outer cells."""
    weights = make_sam("tiny", 128).state_dict()
    ramp = (torch.arange(16) + 0.5) / 16
    weights["vision_encoder.pos_embed"][:] = ramp[None, None, :, None]
    for name in ("rel_pos_h", "rel_pos_w"):
        line = torch.linspace(-1, 1, 31)[:, None].expand(-1, 32)
        weights[f"vision_encoder.layers.1.attn.{name}"][:] = line
    torch.save(weights, tmp_path / "sam.pth")
    for side in (64, 256):
        own = make_sam("tiny", side, tmp_path / "sam.pth").state_dict()
        cells = side // 8
        place = ((torch.arange(cells) + 0.5) / cells).clamp(0.5 / 16, 15.5 / 16)
        columns = own["vision_encoder.pos_embed"][0, 3, :, 5]
        torch.testing.assert_close(columns, place, atol=1e-6, rtol=0)
        line = own["vision_encoder.layers.1.attn.rel_pos_h"][:, 0]
        assert len(line) == 2 * cells - 1
        torch.testing.assert_close(line, -line.flip(0), atol=1e-6, rtol=0)
        assert (line.diff() >= 0).all()
        windowed = "vision_encoder.layers.0.attn.rel_pos_h"
        assert torch.equal(own[windowed], weights[windowed])


def test_weights_that_do_not_fit_are_named(tmp_path):
    wide = as_published(make_sam("tiny", 128).state_dict())
    wide["image_encoder.neck.1.weight"] = torch.zeros(5)
    torch.save(wide, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"fit: 1 tensors of another shape \(.*layer_norm1"):
        make_sam("tiny", 128, tmp_path / "other.pth")
    torch.save({"image_encoder.x": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(InputError, match="1 tensors foreign"):
        make_sam("tiny", 128, tmp_path / "foreign.pth")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, said in (("broken.pth", "not a file of weights"), ("list.pth", "not a table"),
                       ("broken.safetensors", "not a file of weights"), (".", "neither model"),
                       ("none.pth", "no such weights")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            make_sam("tiny", 128, tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": "vit_x"}, "size: input should be 'vit_b'"),
        ({"encoder": "lora"}, "encoder: input should be 'normal'"),
        ({"prompt": "box"}, "prompt: input should be 'none'"),
        ({"num_points": 0}, "num_points: input should be greater than or equal to 1"),
        ({"erode": -1}, "erode: input should be greater than or equal to 0"),
        ({"image_size": 100}, "an input of 100 pixels"),
    ],
)
def test_settings_that_do_not_exist_are_named(settings, said):
    with pytest.raises(InputError, match=said):
        SAModal.from_config({"classes": CLASSES} | TINY | settings)
