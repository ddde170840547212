"""mmdetection 2.x and 3.x and what is built on it: Mask R-CNN, QDTrack, VATrack."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from amodal_core.models.imports.files import WeightFile
from amodal_core.models.imports.key_map import Layout, Rule, Source, Tensors, renamed
from amodal_core.models.imports.resnet_names import CAFFE, PYTORCH, first_convolution, is_caffe
from amodal_core.models.imports.two_stage_names import MASKS, OTHERS, Family, beginnings, classes_of

_P = r"(?:detector\.)?"  # trackers hold a detector, in some versions
_PROTOTYPE = r"mu\d"  # made by VATrack's detectors, never used
_AMODAL = rf"{_P}roi_head\.amodal_mask_head\.conv_logits\.weight"
_AMODAL_BOXES = rf"{_P}roi_head\.amodal_bbox_head\.fc_cls\.weight"
_TRACKERS = ("qdtrack", "amodal_track", "vatrack", "vatrack_two_box")
_FAMILY = Family(
    trunk=(
        Rule(rf"{_P}data_preprocessor\..*|{_PROTOTYPE}"),
        Rule(rf"{_P}backbone\.conv1\.weight", ("backbone.body.conv1.weight",), first_convolution),
        renamed(rf"{_P}backbone\.", "backbone.body."),
        renamed(rf"{_P}neck\.lateral_convs\.(\d)\.conv\.", r"backbone.fpn.inner_blocks.\1.0."),
        renamed(rf"{_P}neck\.fpn_convs\.(\d)\.conv\.", r"backbone.fpn.layer_blocks.\1.0."),
        renamed(rf"{_P}rpn_head\.rpn_conv\.", "rpn.head.conv.0.0."),
        renamed(rf"{_P}rpn_head\.rpn_cls\.", "rpn.head.cls_logits."),
        renamed(rf"{_P}rpn_head\.rpn_reg\.", "rpn.head.bbox_pred."),
    ),
    box_head=(
        rf"{_P}roi_head\.{{head}}bbox_head\.shared_convs\.{{k}}\.",
        rf"{_P}roi_head\.{{head}}bbox_head\.shared_fcs\.0\.",
        rf"{_P}roi_head\.{{head}}bbox_head\.shared_fcs\.1\.",
    ),
    box_outputs=(
        rf"{_P}roi_head\.{{head}}bbox_head\.fc_cls\.",
        rf"{_P}roi_head\.{{head}}bbox_head\.fc_reg\.",
    ),
    mask_head=(
        rf"{_P}roi_head\.{{head}}mask_head\.convs\.{{k}}\.",
        rf"{_P}roi_head\.{{head}}mask_head\.upsample\.",
        rf"{_P}roi_head\.{{head}}mask_head\.conv_logits\.",
    ),
    any_mask=rf"{_P}roi_head\.mask_head\.",
    background=-1,
    kernel=r"conv\.",
    norm=r"bn\.",
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


def _rules(model: str, source: Source) -> Sequence[Rule]:
    if not _has(source.file, _AMODAL):
        return [*_FAMILY.detector(model, source), *_EMBEDDING]
    return [
        *_FAMILY.trunk,
        *(
            [*_FAMILY.boxes(source, "amodal_"), *_FAMILY.boxes(source, own="visible_heads.")]
            if _has(source.file, _AMODAL_BOXES)
            else _FAMILY.boxes(source)
        ),
        *_FAMILY.masks(source, "amodal_branch.", head="amodal_"),
        *_FAMILY.masks(source, "visible_branch."),
        *_EMBEDDING,
    ]


def _has(file: WeightFile, pattern: str) -> bool:
    compiled = re.compile(pattern)
    return any(compiled.fullmatch(name) for name in file.tensors)


def _settings(model: str, tensors: Tensors, source: Source) -> dict[str, Any]:
    exact = {"rounded_anchors": False, "roi_align": "aligned", "stride_in_1x1": is_caffe(source)}
    exact |= {"resize": "opencv", "paste": "probabilities"}
    if _has(source.file, rf"{_TRACK}fc_embed\.weight"):
        return exact | (_SAILVOS if _has(source.file, _PROTOTYPE) else _BDD)
    return exact | (_SAILVOS if model in _TRACKERS else {})


def _classes(file: WeightFile) -> Sequence[str] | int:
    """Names from the file's own description, else by their number."""
    meta = file.meta.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    inner = meta.get("dataset_meta")
    stated = [
        place.get(name)
        for place in (meta, inner if isinstance(inner, dict) else {})
        for name in ("CLASSES", "classes")
    ]
    own: Sequence[str] | int = classes_of(file, "bbox_head.fc_cls.bias")
    count = own if isinstance(own, int) else len(own)
    for names in stated:
        if isinstance(names, list | tuple) and len(names) == count:
            return [str(name) for name in names]
    return own


def _style(file: WeightFile) -> str:
    """As the configuration in the file says, else as most of this family."""
    meta = file.meta.get("meta")
    text = str(meta.get("config", meta.get("cfg", ""))) if isinstance(meta, dict) else ""
    return CAFFE if "style='caffe'" in text or 'style="caffe"' in text else PYTORCH


def _layout(title: str, marks: tuple[str, ...], *models: str) -> Layout:
    marks = (rf"{_P}roi_head\.bbox_head\.fc_cls\.weight", *marks)
    return Layout(title, marks, beginnings(_rules, _settings, models=models), _classes, _style)


LAYOUTS = (
    _layout("VATrack with two box heads", (_AMODAL, _AMODAL_BOXES), "vatrack_two_box"),
    _layout("VATrack", (_AMODAL,), "vatrack", "vatrack_two_box"),
    _layout("QDTrack", (rf"{_TRACK}fc_embed\.weight",), "qdtrack", "amodal_track", "vatrack"),
    _layout("mmdetection's Faster or Mask R-CNN", (), *MASKS, *OTHERS),
    Layout(
        "mmdetection 1.x",
        (r"backbone\.conv1\.weight", r"bbox_head\.fc_cls\.weight"),
        (),
        cure="its boxes end a pixel earlier than here: give the model of version 2",
    ),
)
