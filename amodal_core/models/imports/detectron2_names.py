"""detectron2 and what is built on it: its model zoo, AISFormer, aistron, VRSP-Net, ORCNN."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from amodal_core.models.imports.files import WeightFile
from amodal_core.models.imports.key_map import (
    KeyMap,
    Layout,
    Rule,
    Source,
    Tensors,
    of_box_deltas,
    of_classes,
    renamed,
)
from amodal_core.models.imports.resnet_names import (
    detectron2_body,
    is_caffe,
    with_statistics,
)
from amodal_core.models.imports.two_stage_names import (
    MASKS,
    OTHERS,
    classes_of_count,
    count_of,
    mask_rules,
    trunk_settings,
)

_PREDICTOR, _OURS = r"roi_heads\.box_predictor\.", "heads.box_predictor."
_TRUNK = (
    Rule(r"pixel_(mean|std)|.*cell_anchors.*"),
    *detectron2_body(r"backbone\.bottom_up\.", "backbone.body."),
    *(
        renamed(rf"backbone\.fpn_{there}{k + 2}\.", f"backbone.fpn.{here}_blocks.{k}.0.")
        for k in range(4)
        for there, here in (("lateral", "inner"), ("output", "layer"))
    ),
    renamed(r"proposal_generator\.rpn_head\.conv\.", "rpn.head.conv.0.0."),
    renamed(r"proposal_generator\.rpn_head\.objectness_logits\.", "rpn.head.cls_logits."),
    renamed(r"proposal_generator\.rpn_head\.anchor_deltas\.", "rpn.head.bbox_pred."),
    renamed(r"roi_heads\.box_head\.fc1\.", "heads.box_head.fc6."),
    renamed(r"roi_heads\.box_head\.fc2\.", "heads.box_head.fc7."),
    renamed(rf"{_PREDICTOR}cls_score\.", f"{_OURS}cls_score.", change=of_classes(-1)),
    renamed(rf"{_PREDICTOR}bbox_pred\.", f"{_OURS}bbox_pred.", change=of_box_deltas(None)),
)
_ANY_MASKS = renamed(r"roi_heads\.(\w*mask_head|recls_head|recon_net)\.")

_HEAD = r"roi_heads\.mask_head\.(?:mask_head_model\.)?"
_AISFORMER = (
    Rule(rf"{_HEAD}predictor_TR\..*"),  # made, never used
    renamed(rf"{_HEAD}mask_feat_learner_TR\.", "head.upsample.0."),
    renamed(rf"{_HEAD}deconv_for_TR\.0\.", "head.upsample.2."),
    Rule(rf"{_HEAD}positional_encoding\.row_embed\.weight", ("head.position.rows",)),
    Rule(rf"{_HEAD}positional_encoding\.col_embed\.weight", ("head.position.columns",)),
    Rule(rf"{_HEAD}query_embed\.weight", ("head.queries",)),
    renamed(rf"{_HEAD}norm_rois\.", "head.pixel_norm."),
    renamed(rf"{_HEAD}pixel_embed\.", "head.pixel_embedding."),
    *(
        renamed(rf"{_HEAD}{there}\.layers\.{k}\.", f"head.{here}.{2 * k}.")
        for there, here in (
            ("mask_embed", "mask_embedding"),
            ("subtract_model", "invisible_embedding"),
        )
        for k in range(3)
    ),
    *(
        renamed(rf"{_HEAD}transformer_{part}\.layers\.(\d)\.{there}\.", rf"head.{part}.\1.{here}.")
        for part in ("encoder", "decoder")
        for there, here in (
            ("self_attn", "self_attention.attention"),
            ("multihead_attn", "cross_attention.attention"),
            ("linear1", "feed_forward.layers.0"),
            ("linear2", "feed_forward.layers.3"),
            ("norm1", "self_attention.norm"),
            ("norm2", "feed_forward.norm" if part == "encoder" else "cross_attention.norm"),
            ("norm3", "feed_forward.norm"),
        )
    ),
)


def _settings(tensors: Tensors, source: Source) -> dict[str, Any]:
    return trunk_settings(tensors, source) | {
        "stride_in_1x1": is_caffe(source),
        "rounded_anchors": False,
        "roi_align": "aligned",
    }


def _aisformer_settings(tensors: Tensors, source: Source) -> dict[str, Any]:
    # KINS is tested in 800 x 3000 at most, the others as COCO.
    kins = {"long_side": 3000} if len(source.classes) == 7 else {}
    hidden = tensors["head.encoder.0.feed_forward.layers.0.weight"].shape[0]
    layers = sum(n.startswith("head.encoder.") and n.endswith(".layers.0.bias") for n in tensors)
    return _settings(tensors, source) | {"hidden": hidden, "layers": layers} | kins


def _coco_rules(model: str, source: Source) -> Sequence[Rule]:
    if model not in MASKS:
        return (*_TRUNK, _ANY_MASKS)
    head = r"roi_heads\.mask_head\."
    count = sum("mask_head.mask_fcn" in n and n.endswith("bias") for n in source.file.tensors)
    convolutions = [rf"{head}mask_fcn{k + 1}\." for k in range(count)]
    masks = mask_rules(model, convolutions, rf"{head}deconv\.", rf"{head}predictor\.", None)
    return (*_TRUNK, *masks)


def _classes(file: WeightFile) -> Sequence[str] | int:
    return classes_of_count(count_of(file, "box_predictor.cls_score.bias") - 1)


_DETECTOR = r"backbone\.bottom_up\.stem\.conv1\.weight"
_BEGINNINGS = tuple(
    KeyMap(m, partial(_coco_rules, m), _settings, with_statistics) for m in (*MASKS, *OTHERS)
)
AISFORMER = Layout(
    "AISFormer",
    (_DETECTOR, rf"{_HEAD}mask_feat_learner_TR\.weight"),
    (
        KeyMap("aisformer", lambda source: (*_TRUNK, *_AISFORMER), _aisformer_settings),
        *(m for m in _BEGINNINGS if m.model not in ("aisformer", *MASKS)),
    ),
    _classes,
)
ZOO = Layout(
    "detectron2's Faster or Mask R-CNN",
    (_DETECTOR, r"roi_heads\.box_predictor\.cls_score\.weight"),
    _BEGINNINGS,
    _classes,
)
LAYOUTS = (AISFORMER, ZOO)
