"""EoRaS' published checkpoints (checkpoint-0050.pth.gz): their names of tensors, and ours."""

from __future__ import annotations

from typing import Any

from amodal_core.models.imports.key_map import KeyMap, Layout, Rule, Source, Tensors, renamed

_ATTENTION = {"self_attn": "self_attention", "multihead_attn": "cross_attention"}
_NORMS = {"1": "self_attention", "2": "cross_attention", "3": "feed_forward"}
_DECODERS = {
    "slot_update_bev": "from_above",
    "slot_update_feature": "from_front",
    "feature_update": "to_front",
}

# What the network does not use: levels 6 and 7 of the pyramid, ImageNet's statistics, and positions
# that follow from a formula.
_UNUSED = (
    renamed(r"feature_extractor\.(?:conv6|conv7)\."),
    Rule(r"feature_extractor\.(?:mean|std)"),
    Rule(r"(?:slot|fea|bev)_pos"),
)
_RULES = (
    *_UNUSED,
    *(
        renamed(rf"feature_extractor\.latlayer{k}\.", f"encoder.lateral.{3 - k}.")
        for k in (1, 2, 3)
    ),
    renamed(r"feature_extractor\.toplayer1\.", "encoder.middle."),
    renamed(r"feature_extractor\.toplayer2\.", "encoder.out."),
    renamed(r"feature_extractor\.", "encoder.body."),
    *(
        rule
        for stage in (0, 1)
        for rule in (
            renamed(
                rf"bev_generator\.conv\.layers\.{2 * stage}\.layer\.", f"above.layers.{stage}."
            ),
            *(
                renamed(
                    rf"bev_generator\.conv\.layers\.{2 * stage + 1}\.Down\.{k}\.",
                    f"above.layers.{stage}.{k + 6}.",
                )
                for k in (0, 1)
            ),
        )
    ),
    *(
        renamed(rf"{theirs}\.layers\.(\d+)\.{part}\.", rf"slots.{ours}.layers.\1.{name}.")
        for theirs, ours in _DECODERS.items()
        for part, name in (
            *((k, f"{v}.attention") for k, v in _ATTENTION.items()),
            *((f"norm{k}", f"{v}.norm") for k, v in _NORMS.items()),
            ("linear1", "feed_forward.layers.0"),
            ("linear2", "feed_forward.layers.3"),
        )
    ),
    renamed(r"fea_fc\.", "front_tokens."),
    renamed(r"bev_fc\.", "above_tokens."),
    Rule(r"slot\.weight", ("slots.slots",)),
    Rule(r"slot_pos\.weight", ("slots.slot_position",)),
    Rule(r"fea_pos\.weight", ("slots.front_position",)),
    Rule(r"bev_pos\.weight", ("slots.above_position",)),
    *(
        renamed(rf"dec_{theirs}\.deconv{k + 1}\.", f"decoders.{ours}.layers.{2 * k}.")
        for theirs, ours in (("fm", "amodal"), ("vm", "visible"), ("occ", "hidden"))
        for k in range(3)
    ),
)


def _settings(tensors: Tensors, source: Source) -> dict[str, Any]:
    """What the tensors tell; on which data set they were trained they do not: MOVi by default."""
    learned = "slots.slot_position" in tensors
    drawn = {"fm": "amodal", "vm": "visible", "occ": "hidden"}
    decoder = [k for k, name in drawn.items() if f"decoders.{name}.layers.0.weight" in tensors]
    return {
        "published": "movi",
        "positions": "random" if learned else "sincos",
        "decoder": "+".join(decoder),
        "slots": len(tensors["slots.slots"]),
    }


LAYOUTS = (
    Layout(
        "EoRaS",
        (r"bev_generator\.conv\.layers\..*", r"slot\.weight"),
        (KeyMap("eoras", lambda source: _RULES, _settings),),
        lambda file: ("object",),
    ),
)
