"""mmdetection 2.x and 3.x and what is built on it: Mask R-CNN, QDTrack, VATrack."""

from __future__ import annotations

import re
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
from amodal_core.models.imports.resnet_names import CAFFE, PYTORCH, first_convolution, is_caffe
from amodal_core.models.imports.two_stage_names import (
    MASKS,
    OTHERS,
    classes_of_count,
    count_of,
    trunk_settings,
)

_P = r"(?:detector\.)?"  # trackers hold a detector, in some versions
_PROTOTYPE = r"mu\d"  # made by VATrack's detectors, never used
_TRACKERS = ("qdtrack", "amodal_track", "vatrack", "vatrack_two_box")
_TRUNK = (
    Rule(rf"{_P}data_preprocessor\..*|{_PROTOTYPE}"),
    Rule(rf"{_P}backbone\.conv1\.weight", ("backbone.body.conv1.weight",), first_convolution),
    renamed(rf"{_P}backbone\.", "backbone.body."),
    renamed(rf"{_P}neck\.lateral_convs\.(\d)\.conv\.", r"backbone.fpn.inner_blocks.\1.0."),
    renamed(rf"{_P}neck\.fpn_convs\.(\d)\.conv\.", r"backbone.fpn.layer_blocks.\1.0."),
    renamed(rf"{_P}rpn_head\.rpn_conv\.", "rpn.head.conv.0.0."),
    renamed(rf"{_P}rpn_head\.rpn_cls\.", "rpn.head.cls_logits."),
    renamed(rf"{_P}rpn_head\.rpn_reg\.", "rpn.head.bbox_pred."),
)
# What VATrack and QDTrack are tested with.
_SAILVOS = {"long_side": 1280, "min_score": 0.01, "proposal_side": 1.0}
_BDD = {"short_side": 720, "long_side": 1296}
_TRACK = rf"{_P}(?:roi_head\.)?(?:track_head\.){{1,2}}(?:embed_head\.)?"
_EMBEDDING = (
    *(
        rule
        for k in range(4)
        for rule in (
            renamed(rf"{_TRACK}convs\.{k}\.conv\.", f"embedding_head.convolutions.{3 * k}."),
            renamed(rf"{_TRACK}convs\.{k}\.gn\.", f"embedding_head.convolutions.{3 * k + 1}."),
        )
    ),
    renamed(rf"{_TRACK}fcs\.0\.", "embedding_head.hidden."),
    renamed(rf"{_TRACK}fc_embed\.", "embedding_head.embedding."),
)


def _boxes(there: str, here: str) -> list[Rule]:
    """Rules of a box head."""
    head, own = rf"{_P}roi_head\.{there}\.", f"{here}.box_predictor."
    return [
        renamed(rf"{head}shared_fcs\.0\.", f"{here}.box_head.fc6."),
        renamed(rf"{head}shared_fcs\.1\.", f"{here}.box_head.fc7."),
        renamed(rf"{head}fc_cls\.", f"{own}cls_score.", change=of_classes(-1)),
        renamed(rf"{head}fc_reg\.", f"{own}bbox_pred.", change=of_box_deltas(None)),
    ]


def _masks(there: str, *heads: str) -> list[Rule]:
    """Rules of a mask head, which becomes one or several of ours."""
    head = rf"{_P}roi_head\.{there}\."
    change = of_classes(None, kept=False)
    return [
        *(
            renamed(rf"{head}convs\.{k}\.conv\.", *(f"{own}head.{2 * k}." for own in heads))
            for k in range(4)
        ),
        renamed(rf"{head}upsample\.", *(f"{own}head.8." for own in heads)),
        renamed(rf"{head}conv_logits\.", *(f"{own}logits." for own in heads), change=change),
    ]


def _rules(model: str, source: Source) -> Sequence[Rule]:
    rules = [*_TRUNK, *(_EMBEDDING if model in _TRACKERS else ())]
    two_boxes = any("roi_head.amodal_bbox_head." in name for name in source.file.tensors)
    if two_boxes:
        rules += [*_boxes("amodal_bbox_head", "heads"), *_boxes("bbox_head", "visible_heads")]
    else:
        rules += _boxes("bbox_head", "heads")
    if any("roi_head.amodal_mask_head." in name for name in source.file.tensors):
        rules += _masks("amodal_mask_head", "amodal_branch.")
        rules += _masks("mask_head", "visible_branch.")
    elif model in MASKS:
        rules += _masks("mask_head", *MASKS[model])
    else:
        rules += [renamed(rf"{_P}roi_head\.mask_head\.")]
    return rules


def _settings(model: str, tensors: Tensors, source: Source) -> dict[str, Any]:
    videos: dict[str, Any] = {}
    if any(re.fullmatch(rf"{_TRACK}fc_embed\.weight", name) for name in source.file.tensors):
        ours = any(re.fullmatch(_PROTOTYPE, name) for name in source.file.tensors)
        videos = _SAILVOS if ours else _BDD
    elif model in _TRACKERS:
        videos = _SAILVOS
    exact = {"rounded_anchors": False, "roi_align": "aligned", "stride_in_1x1": is_caffe(source)}
    return trunk_settings(tensors, source) | exact | videos


def _classes(file: WeightFile) -> Sequence[str] | int:
    """Names from the file's own description, else by their number."""
    meta = file.meta.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    inner = meta.get("dataset_meta")
    told = [
        place.get(name)
        for place in (meta, inner if isinstance(inner, dict) else {})
        for name in ("CLASSES", "classes")
    ]
    count = count_of(file, "bbox_head.fc_cls.bias") - 1
    for names in told:
        if isinstance(names, list | tuple) and len(names) == count:
            return [str(name) for name in names]
    return classes_of_count(count)


def _style(file: WeightFile) -> str:
    """As the configuration in the file says, else as most of this family."""
    meta = file.meta.get("meta")
    text = str(meta.get("config", meta.get("cfg", ""))) if isinstance(meta, dict) else ""
    return CAFFE if "style='caffe'" in text or 'style="caffe"' in text else PYTORCH


def _layout(title: str, marks: tuple[str, ...], *models: str) -> Layout:
    maps = tuple(KeyMap(m, partial(_rules, m), partial(_settings, m)) for m in models)
    return Layout(
        title, (rf"{_P}roi_head\.bbox_head\.fc_cls\.weight", *marks), maps, _classes, _style
    )


_AMODAL = rf"{_P}roi_head\.amodal_mask_head\.conv_logits\.weight"
LAYOUTS = (
    _layout(
        "VATrack with two box heads",
        (_AMODAL, rf"{_P}roi_head\.amodal_bbox_head\.fc_cls\.weight"),
        "vatrack_two_box",
    ),
    _layout("VATrack", (_AMODAL,), "vatrack", "vatrack_two_box"),
    _layout("QDTrack", (rf"{_TRACK}fc_embed\.weight",), "qdtrack", "amodal_track", "vatrack"),
    _layout("mmdetection's Faster or Mask R-CNN", (), *MASKS, *OTHERS),
)
