"""EoRaS' published checkpoints (checkpoint-0050.pth.gz): their names of tensors, and ours."""

from __future__ import annotations

_ATTENTION = {"self_attn": "self_attention", "multihead_attn": "cross_attention"}
_NORMS = {"1": "self_attention", "2": "cross_attention", "3": "feed_forward"}
_DECODERS = {
    "slot_update_bev": "from_above",
    "slot_update_feature": "from_front",
    "feature_update": "to_front",
}

# Pattern of a name's beginning, what it becomes; "" for tensors that the network does not use:
# levels 6 and 7 of the pyramid, ImageNet's statistics, and positions that follow from a formula.
KEY_MAP: tuple[tuple[str, str], ...] = (
    (r"feature_extractor\.(?:conv6|conv7)\.", ""),
    (r"feature_extractor\.(?:mean|std)$", ""),
    (r"(?:slot|fea|bev)_pos$", ""),
    (r"feature_extractor\.latlayer1\.", "encoder.lateral.2."),
    (r"feature_extractor\.latlayer2\.", "encoder.lateral.1."),
    (r"feature_extractor\.latlayer3\.", "encoder.lateral.0."),
    (r"feature_extractor\.toplayer1\.", "encoder.middle."),
    (r"feature_extractor\.toplayer2\.", "encoder.out."),
    (r"feature_extractor\.", "encoder.body."),
    *(
        (rf"bev_generator\.conv\.layers\.{2 * stage}\.layer\.", f"above.layers.{stage}.")
        for stage in (0, 1)
    ),
    *(
        (
            rf"bev_generator\.conv\.layers\.{2 * stage + 1}\.Down\.{k}\.",
            f"above.layers.{stage}.{k + 6}.",
        )
        for stage in (0, 1)
        for k in (0, 1)
    ),
    *(
        (rf"{theirs}\.layers\.(\d+)\.{part}\.", rf"slots.{ours}.layers.\1.{name}.")
        for theirs, ours in _DECODERS.items()
        for part, name in (
            *((k, f"{v}.attention") for k, v in _ATTENTION.items()),
            *((f"norm{k}", f"{v}.norm") for k, v in _NORMS.items()),
            ("linear1", "feed_forward.layers.0"),
            ("linear2", "feed_forward.layers.3"),
        )
    ),
    (r"fea_fc\.", "front_tokens."),
    (r"bev_fc\.", "above_tokens."),
    (r"slot\.weight$", "slots.slots"),
    (r"slot_pos\.weight$", "slots.slot_position"),
    (r"fea_pos\.weight$", "slots.front_position"),
    (r"bev_pos\.weight$", "slots.above_position"),
    *(
        (rf"dec_{theirs}\.deconv{k + 1}\.", f"decoders.{ours}.layers.{2 * k}.")
        for theirs, ours in (("fm", "amodal"), ("vm", "visible"), ("occ", "hidden"))
        for k in range(3)
    ),
)
