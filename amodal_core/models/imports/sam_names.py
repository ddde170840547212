"""Meta's SAM, MobileSAM, and the SAM with adapters that S-AModal's training leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from amodal_core.errors import InputError
from amodal_core.models.imports.files import WeightFile
from amodal_core.models.imports.key_map import KeyMap, Layout, Rule, Source, Tensors, group, renamed
from amodal_core.models.layers.sam import MOBILE, SIZES, resized_positions
from amodal_core.models.layers.sam import renamed as in_transformers_names

_P = r"(?:sam\.|sam_model\.)?"
_ENCODER = rf"{_P}image_encoder\."
_POSITIONS = "sam.vision_encoder.pos_embed"


def _encoder(source: Source) -> str:
    """What was added to SAM's encoder, if the user does not say it.

    S-AModal makes a prompt generator whatever the mode; only adapters are made for theirs alone.
    """
    names = source.file.tensors
    if any(".Space_Adapter." in name for name in names):
        return "adapt"
    return "samadpt" if any(".prompt_generator." in name for name in names) else "normal"


def _rules(source: Source) -> Sequence[Rule]:
    encoder = source.settings.get("encoder") or _encoder(source)
    generator, block = rf"{_ENCODER}prompt_generator\.", rf"{_ENCODER}blocks\.(\d+)\."
    rules = [Rule(rf"{_P}pixel_(mean|std)"), renamed(rf"{block}Depth_Adapter\.")]
    if encoder == "samadpt":
        rules += [
            renamed(rf"{generator}prompt_generator\.proj\.", "generator.edges."),
            renamed(rf"{generator}embedding_generator\.", "generator.tokens."),
            renamed(rf"{generator}lightweight_mlp_(\d+)\.0\.", r"generator.own.\1.0."),
            renamed(rf"{generator}shared_mlp\.", "generator.shared."),
        ]
    elif encoder == "adapt":
        rules += [
            renamed(rf"{block}{there}_Adapter\.D_fc{k + 1}\.", rf"adapters.\1.{here}.{2 * k}.")
            for there, here in (("Space", "space"), ("MLP", "mlp"))
            for k in (0, 1)
        ]
    return [
        *rules,
        renamed(rf"{generator}"),
        # The blocks with adapters call their relative places otherwise.
        Rule(rf"{block}attn\.rel_([hw])", (r"sam.image_encoder.blocks.\1.attn.rel_pos_\2",)),
        renamed(rf"{_P}(image_encoder|prompt_encoder|mask_decoder)\.", r"sam.\1."),
    ]


def _finish(tensors: Tensors, source: Source) -> Tensors:
    own = {name: value for name, value in tensors.items() if not name.startswith("sam.")}
    meta = in_transformers_names(group(tensors, r"sam\."))
    if (side := source.settings.get("image_size")) and "vision_encoder.pos_embed" in meta:
        meta = _for_side(meta, int(side))
    return own | {f"sam.{name}": value for name, value in meta.items()}


def _for_side(meta: Tensors, side: int) -> Tensors:
    """Weights for a square input of another side in pixels."""
    _, old, _, width = meta["vision_encoder.pos_embed"].shape
    new = side // _patch(width)
    wanted = {
        name: torch.empty(2 * new - 1, value.shape[1], device="meta")
        for name, value in meta.items()
        if ".rel_pos_" in name and len(value) == 2 * old - 1  # of blocks that see all
    }
    wanted["vision_encoder.pos_embed"] = torch.empty(1, new, new, width, device="meta")
    return resized_positions(meta, wanted)


def _patch(width: int) -> int:
    return next((s.patch for s in SIZES.values() if s.width == width), 16)


def _settings(tensors: Tensors, source: Source) -> dict[str, Any]:
    if "sam.vision_encoder.layers.1.blocks.0.attn.attention_biases" in tensors:
        side = source.settings.get("image_size") or SIZES[MOBILE].image
        return {"size": MOBILE, "image_size": side, "resize": "pil"}
    positions = tensors.get(_POSITIONS)
    width = 0 if positions is None else positions.shape[-1]
    size = next((n for n, s in SIZES.items() if s.width == width), "")
    if positions is None or not size:
        raise InputError(
            f"tokens of {width} numbers", str(source.file.path), f"there are: {', '.join(SIZES)}"
        )
    inner = tensors.get("adapters.0.space.0.bias")
    mid_dim = 0 if inner is None or 4 * len(inner) == width else 4 * len(inner)
    return {
        "size": size,
        "image_size": SIZES[size].patch * positions.shape[1],
        "encoder": source.settings.get("encoder") or _encoder(source),
        "token_order": "published",
        "resize": "pil",
        "mid_dim": mid_dim,
    }


def _classes(file: WeightFile) -> Sequence[str]:
    """No weight depends on classes, which are the detector's."""
    return ("object",)


_MARK = rf"{_ENCODER}pos_embed"
_MAP = KeyMap("s_amodal", _rules, _settings, _finish)
LAYOUTS = (
    Layout("S-AModal", (_MARK, rf"{_ENCODER}prompt_generator\..*"), (_MAP,), _classes),
    Layout("Segment Anything", (_MARK,), (_MAP,), _classes),
    Layout("MobileSAM", (rf"{_ENCODER}patch_embed\.seq\.0\.(c\.)?weight",), (_MAP,), _classes),
)
