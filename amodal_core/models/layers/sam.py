"""SAM from transformers: its sizes, and published weights in either layout.

Kirillov et al.: Segment Anything, ICCV 2023.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from amodal_core.errors import InputError
from amodal_core.models.layers import mobile_sam
from amodal_core.models.layers.tiny_vit import TinyViT
from amodal_core.models.layers.weights import fitted, read_weights


@dataclass(frozen=True)
class _Size:
    width: int  # of the encoder's tokens
    depth: int
    heads: int
    everywhere: tuple[int, ...]  # blocks whose attention sees the whole image
    image: int = 1024
    patch: int = 16
    window: int = 14
    channels: int = 256  # of the decoder
    decoder_heads: int = 8
    decoder_hidden: int = 2048


MOBILE = "mobile"
SIZES = {
    "vit_b": _Size(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": _Size(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": _Size(1280, 32, 16, (7, 15, 23, 31)),
    # Our own, for CPUs and tests; no weights of it are published.
    "tiny": _Size(128, 4, 4, (1, 3), 256, 8, 8, 64, 4, 256),
    # MobileSAM's, whose encoder is no ViT of this kind: `layers.tiny_vit`.
    MOBILE: _Size(32, 0, 1, ()),
}

# Meta's names on the left, transformers' on the right; applied one after the other.
_RENAMED = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^(vision_encoder)\.patch_embed\.proj\.", r"\1.patch_embed.projection."),
    (r"^(vision_encoder)\.patch_embed\.seq\.", r"\1.patch_embed."),
    (r"^(vision_encoder)\.blocks\.", r"\1.layers."),
    (r"^(vision_encoder)\.neck\.0\.", r"\1.neck.conv1."),
    (r"^(vision_encoder)\.neck\.1\.", r"\1.neck.layer_norm1."),
    (r"^(vision_encoder)\.neck\.2\.", r"\1.neck.conv2."),
    (r"^(vision_encoder)\.neck\.3\.", r"\1.neck.layer_norm2."),
    (r"^(prompt_encoder)\.point_embeddings\.", r"\1.point_embed."),
    (r"^(prompt_encoder)\.mask_downscaling\.0\.", r"\1.mask_embed.conv1."),
    (r"^(prompt_encoder)\.mask_downscaling\.1\.", r"\1.mask_embed.layer_norm1."),
    (r"^(prompt_encoder)\.mask_downscaling\.3\.", r"\1.mask_embed.conv2."),
    (r"^(prompt_encoder)\.mask_downscaling\.4\.", r"\1.mask_embed.layer_norm2."),
    (r"^(prompt_encoder)\.mask_downscaling\.6\.", r"\1.mask_embed.conv3."),
    (
        r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
        "shared_image_embedding.positional_embedding",
    ),
    (r"^(mask_decoder)\.output_upscaling\.0\.", r"\1.upscale_conv1."),
    (r"^(mask_decoder)\.output_upscaling\.1\.", r"\1.upscale_layer_norm."),
    (r"^(mask_decoder)\.output_upscaling\.3\.", r"\1.upscale_conv2."),
    (r"(hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
)
_SHARED = "shared_image_embedding.positional_embedding"
_PROMPTS = "prompt_encoder.shared_embedding.positional_embedding"  # the same tensor once more
_FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder in transformers' layout


def make_sam(size: str, image_size: int = 0, weights: str | Path = "") -> Any:
    """A `transformers.SamModel`.

    Args:
        size: one of `SIZES`.
        image_size: side of its square input in pixels; 0 for the size's own.
        weights: a file (.safetensors, .bin, .pth) or folder with weights in transformers', Meta's
            or MobileSAM's layout, or a folder with the graphs of `layers.mobile_sam`; "" for
            random ones.

    Raises:
        InputError: transformers is missing, a side that does not divide, or weights that do not
            fit.
    """
    try:
        from transformers import SamConfig, SamModel
    except ImportError as error:
        raise InputError(
            f"SAM needs transformers: {error}", "model s_amodal", "pip install 'amodal_ros[sam]'"
        ) from None
    shape = SIZES[size]
    side = image_size or shape.image
    if side % shape.patch:
        raise InputError(
            f"an input of {side} pixels", "image_size", f"give a multiple of {shape.patch}"
        )
    config = SamConfig(
        vision_config={
            "hidden_size": shape.width,
            "num_hidden_layers": shape.depth,
            "num_attention_heads": shape.heads,
            "global_attn_indexes": list(shape.everywhere),
            "image_size": side,
            "patch_size": shape.patch,
            "window_size": shape.window,
            "output_channels": shape.channels,
            "num_pos_feats": shape.channels // 2,
            # transformers' own value, 1e-10, leaves an encoder that cannot begin to learn.
            "initializer_range": 0.02,
        },
        prompt_encoder_config={
            "hidden_size": shape.channels,
            "image_size": side,
            "patch_size": shape.patch,
        },
        mask_decoder_config={
            "hidden_size": shape.channels,
            "num_attention_heads": shape.decoder_heads,
            "mlp_dim": shape.decoder_hidden,
            # As in SAM; transformers has 1e-6.
            "layer_norm_eps": 1e-5,
            "iou_head_hidden_dim": shape.channels,
        },
    )
    sam: Any = SamModel(config)
    if size == MOBILE:
        sam.vision_encoder = TinyViT(side)
    # Of unit deviation, as in SAM; transformers begins with one that grows with the encoder.
    nn.init.normal_(sam.shared_image_embedding.positional_embedding)
    # One tensor under two names: what is loaded or moved stays one.
    sam.prompt_encoder.shared_embedding = sam.shared_image_embedding
    if weights:
        _load(sam, Path(weights))
    return sam


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under transformers' names, whichever layout they come in."""
    state = {k: v for k, v in state.items() if k not in ("pixel_mean", "pixel_std")}
    if any(name.startswith("image_encoder.") for name in state):
        state = mobile_sam.folded(state)
        names = {}
        for name in state:
            new = name
            for pattern, replacement in _RENAMED:
                new = re.sub(pattern, replacement, new)
            names[new] = state[name]
        state = names
    shared = state.get(_SHARED, state.get(_PROMPTS))
    return state if shared is None else state | {_SHARED: shared, _PROMPTS: shared}


def _load(sam: nn.Module, path: Path) -> None:
    mobile = isinstance(sam.vision_encoder, TinyViT)
    file = path
    if path.is_dir():
        candidates = [path / name for name in _FILES if (path / name).is_file()]
        if not (candidates or mobile):
            raise InputError(f"neither {' nor '.join(_FILES)}", str(path), "check the path")
        file = candidates[0] if candidates else path
    cures = ("download SAM's", "give SAM's of this very size")
    cure, other = (mobile_sam.DOWNLOAD,) * 2 if mobile else cures
    read = mobile_sam.graph_weights(path) if file.is_dir() else read_weights(file, cure)
    state = resized_positions(renamed(read), sam.state_dict())
    sam.load_state_dict(fitted(state, sam.state_dict(), file, other))


def resized_positions(
    state: dict[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Weights with places for an input of another size, interpolated between those that they have.

    Absolute positions (1, h, w, D) bilinearly, relative ones (2 L - 1, D) linearly, as SAM does
    itself when it looks them up; other tensors stay as they are.

    Args:
        state: under transformers' names, with or without a prefix.
        expected: the model's tensors.
    """
    result = dict(state)
    for name, value in state.items():
        wanted = expected.get(name)
        if wanted is None or wanted.shape == value.shape or wanted.ndim != value.ndim:
            continue
        if name.endswith("vision_encoder.pos_embed") and wanted.shape[3] == value.shape[3]:
            grid = F.interpolate(
                value.permute(0, 3, 1, 2).float(), wanted.shape[1:3], mode="bilinear"
            )
            result[name] = grid.permute(0, 2, 3, 1).to(value.dtype)
        elif re.search(r"\.rel_pos_[hw]$", name) and wanted.shape[1] == value.shape[1]:
            line = F.interpolate(value.t()[None].float(), wanted.shape[0], mode="linear")
            result[name] = line[0].t().to(value.dtype)
    return result
