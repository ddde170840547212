"""torchvision: Faster and Mask R-CNN of COCO, and its ResNets of ImageNet."""

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
from amodal_core.models.imports.two_stage_names import (
    MASKS,
    OTHERS,
    classes_of_count,
    count_of,
    mask_rules,
    trunk_settings,
)

_TRUNK = (
    renamed(r"backbone\.body\.", "backbone.body."),
    renamed(
        r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(?:0\.)?", r"backbone.fpn.\1_blocks.\2.0."
    ),
    renamed(r"rpn\.head\.conv\.(?:0\.0\.)?", "rpn.head.conv.0.0."),
    renamed(r"rpn\.head\.", "rpn.head."),
    renamed(r"roi_heads\.box_head\.", "heads.box_head."),
    renamed(
        r"roi_heads\.box_predictor\.cls_score\.",
        "heads.box_predictor.cls_score.",
        change=of_classes(0),
    ),
    renamed(
        r"roi_heads\.box_predictor\.bbox_pred\.",
        "heads.box_predictor.bbox_pred.",
        change=of_box_deltas(0),
    ),
)
_MASKS = r"roi_heads\.mask_(head|predictor)\."


def _rules(model: str, source: Source) -> Sequence[Rule]:
    if model not in MASKS:
        return (*_TRUNK, renamed(_MASKS))
    new = any(name.startswith("roi_heads.mask_head.0.0.") for name in source.file.tensors)
    convolutions = [
        rf"roi_heads\.mask_head\.{k}\.0\." if new else rf"roi_heads\.mask_head\.mask_fcn{k + 1}\."
        for k in range(4)
    ]
    predictor = r"roi_heads\.mask_predictor\."
    deconvolution, logits = rf"{predictor}conv5_mask\.", rf"{predictor}mask_fcn_logits\."
    return (*_TRUNK, *mask_rules(model, convolutions, deconvolution, logits, 0))


def _settings(tensors: Tensors, source: Source) -> dict[str, Any]:
    return trunk_settings(tensors, source) | {"roi_align": "torchvision"}


def _classes(file: WeightFile) -> Sequence[str] | int:
    return classes_of_count(count_of(file, "box_predictor.cls_score.bias") - 1)


DETECTORS = Layout(
    "torchvision's Faster or Mask R-CNN",
    (r"roi_heads\.box_predictor\.cls_score\.weight", r"backbone\.body\.conv1\.weight"),
    tuple(KeyMap(m, partial(_rules, m), _settings) for m in (*MASKS, *OTHERS)),
    _classes,
)
LAYOUTS = (DETECTORS,)
