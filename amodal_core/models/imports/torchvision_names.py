"""torchvision: both versions of Faster and Mask R-CNN of COCO."""

from __future__ import annotations

from amodal_core.models.imports.class_names import COCO_91
from amodal_core.models.imports.key_map import Layout, Source, Tensors, renamed
from amodal_core.models.imports.two_stage_names import EPSILON, Family, beginnings, classes_of

_FPN = r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\."
_FAMILY = Family(
    trunk=(
        renamed(r"backbone\.body\.", "backbone.body."),
        renamed(rf"{_FPN}1\.", r"backbone.fpn.\1_blocks.\2.0.norm."),
        renamed(rf"{_FPN}(?:0\.)?", r"backbone.fpn.\1_blocks.\2.0."),
        renamed(r"rpn\.head\.conv\.(\d)\.0\.", r"rpn.head.conv.\1.0."),
        renamed(r"rpn\.head\.conv\.", "rpn.head.conv.0.0."),
        renamed(r"rpn\.head\.", "rpn.head."),
    ),
    box_head=(
        r"roi_heads\.box_head\.{k}\.",
        r"roi_heads\.box_head\.(?:5|fc6)\.",
        r"roi_heads\.box_head\.fc7\.",
    ),
    box_outputs=(
        r"roi_heads\.box_predictor\.cls_score\.",
        r"roi_heads\.box_predictor\.bbox_pred\.",
    ),
    mask_head=(
        r"roi_heads\.mask_head\.(?:{k}|mask_fcn{n})\.",
        r"roi_heads\.mask_predictor\.conv5_mask\.",
        r"roi_heads\.mask_predictor\.mask_fcn_logits\.",
    ),
    any_mask=r"roi_heads\.mask_",
    background=0,
    kernel=r"(?:0\.)?",
    norm=r"1\.",
)


def _finish(tensors: Tensors, source: Source) -> Tensors:
    """The norms of COCO's first version have nothing added to their variances."""
    names = source.file.tensors
    classes = len(names["roi_heads.box_predictor.cls_score.bias"]) - 1
    if "rpn.head.conv.1.0.weight" in names or classes != len(COCO_91):
        return tensors
    return {
        name: value - EPSILON if name.endswith("running_var") else value
        for name, value in tensors.items()
    }


LAYOUTS = (
    Layout(
        "torchvision's Faster or Mask R-CNN",
        (r"roi_heads\.box_predictor\.cls_score\.weight", r"backbone\.body\.conv1\.weight"),
        beginnings(_FAMILY.detector, lambda *_: {"roi_align": "torchvision"}, _finish),
        lambda file: classes_of(file, "box_predictor.cls_score.bias"),
    ),
)
