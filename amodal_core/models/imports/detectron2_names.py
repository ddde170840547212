"""detectron2 and what is built on it: its model zoo, AISFormer, aistron, VRSP-Net, ORCNN."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from amodal_core.errors import InputError
from amodal_core.models.imports.class_names import KINS, KINS_2020
from amodal_core.models.imports.files import WeightFile
from amodal_core.models.imports.key_map import (
    KeyMap,
    Layout,
    Rule,
    Source,
    Tensors,
    renamed,
    renamed_by,
)
from amodal_core.models.imports.resnet_names import detectron2_body, is_caffe, with_statistics
from amodal_core.models.imports.two_stage_names import (
    MASKS,
    OTHERS,
    Family,
    beginnings,
    classes_of,
    of_classes,
)
from amodal_core.models.shape_prior import Codebook, MaskAutoEncoder

_PREDICTOR = r"roi_heads\.box_predictor\."
_RPN = r"proposal_generator\.rpn_head\."
_FAMILY = Family(
    trunk=(
        Rule(r"pixel_(mean|std)|.*cell_anchors.*"),
        *detectron2_body(r"backbone\.bottom_up\.", "backbone.body."),
        *(
            renamed(rf"backbone\.fpn_{there}{k + 2}\.", f"backbone.fpn.{here}_blocks.{k}.0.")
            for k in range(4)
            for there, here in (("lateral", "inner"), ("output", "layer"))
        ),
        renamed(rf"{_RPN}conv\.conv(\d)\.", r"rpn.head.conv.\1.0."),
        renamed(rf"{_RPN}conv\.", "rpn.head.conv.0.0."),
        renamed(rf"{_RPN}objectness_logits\.", "rpn.head.cls_logits."),
        renamed(rf"{_RPN}anchor_deltas\.", "rpn.head.bbox_pred."),
    ),
    box_head=tuple(rf"roi_heads\.box_head\.{part}\." for part in ("conv{n}", "fc1", "fc2")),
    box_outputs=(rf"{_PREDICTOR}cls_score\.", rf"{_PREDICTOR}bbox_pred\."),
    mask_head=tuple(
        rf"roi_heads\.{{head}}mask_head\.{part}\."
        for part in ("{head}mask_fcn{n}", "deconv", "predictor")
    ),
    any_mask=r"roi_heads\.(?:\w*mask_head|recls|recon_net)\.",
    background=-1,
    norm=r"norm\.",
)
_CENTRES = 1024  # of the published codebooks, a class at most

_HEAD = r"roi_heads\.mask_head\.(?:mask_head_model\.)?"
_AISFORMER = (
    Rule(rf"{_HEAD}predictor_TR\..*"),  # made, never used
    # aistron's later head: eight convolutions twice, each time with a last one of 1x1.
    *(
        renamed(rf"{_HEAD}{there}\.{k}\.", f"head.{here}.{2 * k}.")
        for there, here in (
            ("mask_feat_learner_TR", "upsample"),
            ("pixel_embed", "pixel_embedding"),
        )
        for k in range(9)
    ),
    renamed(rf"{_HEAD}mask_feat_learner_TR\.10\.", "head.upsample.18."),
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


def _settings(model: str, tensors: Tensors, source: Source) -> dict[str, Any]:
    """KINS is tested in 800 x 3000 at most, the others as COCO."""
    kins = {"long_side": 3000} if len(source.classes) in (len(KINS), len(KINS_2020)) else {}
    return kins | {
        "stride_in_1x1": is_caffe(source),
        "rounded_anchors": False,
        "roi_align": "aligned",
        "resize": "pil",
        "paste": "probabilities",
    }


def _aisformer_settings(model: str, tensors: Tensors, source: Source) -> dict[str, Any]:
    layers = [n for n in tensors if re.fullmatch(r"head\.encoder\.\d\.feed_forward\.norm\.bias", n)]
    hidden = len(tensors["head.encoder.0.feed_forward.layers.0.bias"])
    deep = [n for n in tensors if re.fullmatch(r"head\.pixel_embedding\.\d+\.bias", n)]
    own = {"hidden": hidden, "layers": len(layers), "convolutions": max(len(deep) - 1, 1)}
    return _settings(model, tensors, source) | own


def _vrsp_rules(model: str, source: Source) -> Sequence[Rule]:
    head, net = r"roi_heads\.mask_head\.", r"roi_heads\.(?:mask_head\.)?recon_net\."
    of_class = of_classes(None, kept=False)

    def logits(tensor: torch.Tensor, source: Source) -> torch.Tensor | None:
        """(C, channels) of a 1x1 convolution."""
        return None if (rows := of_class(tensor, source)) is None else rows.flatten(1)

    rules = []
    for kind in ("amodal", "visible"):
        rules += [
            renamed(rf"{head}{kind}_mask_fcn{k + 1}\.", f"{kind}_head.convolutions.{2 * k}.")
            for k in range(4)
        ]
        rules += [
            renamed(rf"{head}{kind}_deconv\.", f"{kind}_head.upsample.8."),
            Rule(rf"{head}{kind}_predictor\.weight", (f"{kind}_head.weight",), logits),
            Rule(rf"{head}{kind}_predictor\.bias", (f"{kind}_head.bias",), of_class),
        ]
    return (
        *_FAMILY.trunk,
        *_FAMILY.boxes(source),
        *rules,
        renamed(rf"{head}fuse_layer\.", "prior_fusion."),
        *(
            renamed(rf"roi_heads\.recls\.{there}\.", f"reclassifier.{here}.", change=change)
            for there, here, change in (("fc1", 1, None), ("fc2", 3, None), ("recls", 5, of_class))
        ),
        *_recon_net(net),
    )


def _recon_net(prefix: str) -> list[Rule]:
    """Rules of the mask auto-encoder; its file of its own has no prefix."""
    return [
        *(
            renamed(rf"{prefix}mask_fcn_enc{k + 1}\.", f"auto_encoder.encoder.{2 * k}.")
            for k in range(3)
        ),
        *(
            renamed(rf"{prefix}mask_fcn_dec{k + 1}\.1\.", f"auto_encoder.decoder.{3 * k + 1}.")
            for k in range(3)
        ),
        renamed(rf"{prefix}outconv\.0\.", "auto_encoder.decoder.last."),
    ]


def _with_shapes(tensors: Tensors, source: Source) -> Tensors:
    """The files beside the network's: the auto-encoder's weights and the codebook."""
    tensors = with_statistics(tensors, source)
    codebook: dict[int, torch.Tensor] = {}
    for file in source.beside:
        if all(name.isdigit() for name in file.tensors):
            codebook = {int(label): rows for label, rows in file.tensors.items()}
        else:
            own, unknown = renamed_by(_recon_net(""), file.tensors, source)
            if unknown:
                raise InputError(
                    f"neither recon_net.pth nor a codebook: {unknown[0]}", str(file.path), ""
                )
            tensors |= own
    encoder = sum(n.startswith("auto_encoder.encoder.") and n.endswith("bias") for n in tensors)
    for part in ("weight", "bias"):
        if (last := tensors.pop(f"auto_encoder.decoder.last.{part}", None)) is not None:
            tensors[f"auto_encoder.decoder.{3 * encoder}.{part}"] = last
    if not encoder:
        return tensors
    book = Codebook(len(source.classes), _CENTRES, MaskAutoEncoder(encoder).width)
    rows = source.rows or []
    book.fill({k: codebook[row].numpy() for k, row in enumerate(rows) if row in codebook})
    return tensors | {f"codebook.{name}": value for name, value in book.state_dict().items()}


def _vrsp_settings(model: str, tensors: Tensors, source: Source) -> dict[str, Any]:
    encoder = sum(n.startswith("auto_encoder.encoder.") and n.endswith("bias") for n in tensors)
    kins = len(source.classes) == len(KINS)
    hidden = tensors.get("reclassifier.1.bias")
    return (
        _settings(model, tensors, source)
        # Of KINS' configuration with feature matching, the paper's model; others rescore.
        | ({"rescoring_alpha": 3.0, "reclassification_rescoring": False} if kins else {})
        | ({"reclassification_hidden": len(hidden)} if hidden is not None else {})
        | {
            "reclassification": hidden is not None,
            "prior_refinement": "prior_fusion.weight" in tensors,
            "prior_rescoring": bool(encoder),
            "encoder_convolutions": encoder or 3,
            "prior_query": "logits",
            "guided_visible": "amodal",
            "feature_matching": False,
            "candidates": 0,
        }
    )


def _orcnn_rules(model: str, source: Source) -> Sequence[Rule]:
    heads = (
        rule
        for kind in ("amodal", "visible")
        for rule in _FAMILY.masks(source, f"{kind}_branch.", head=f"{kind}_")
    )
    return (*_FAMILY.trunk, *_FAMILY.boxes(source), *heads)


def _aisformer_rules(model: str, source: Source) -> Sequence[Rule]:
    return (*_FAMILY.trunk, *_FAMILY.boxes(source), *_AISFORMER)


def _layout(title: str, mark: str, *maps: KeyMap) -> Layout:
    """Such files are a beginning for models with other masks, too."""
    models = OTHERS if maps else (*MASKS, *OTHERS)
    return Layout(
        title,
        (r"backbone\.bottom_up\.stem\.conv1\.weight", mark),
        (*maps, *beginnings(_FAMILY.detector, _settings, with_statistics, models)),
        _classes,
    )


def _classes(file: WeightFile) -> Sequence[str] | int:
    names = classes_of(file, "box_predictor.cls_score.bias")
    aistron = any("mask_feat_learner_TR." in name for name in file.tensors)
    return KINS_2020 if aistron and names == len(KINS_2020) else names


LAYOUTS = (
    _layout(
        "VRSP-Net",
        r"roi_heads\.mask_head\.amodal_mask_fcn1\.weight",
        *beginnings(_vrsp_rules, _vrsp_settings, _with_shapes, ["vrsp"]),
    ),
    _layout(
        "ORCNN",
        r"roi_heads\.amodal_mask_head\.amodal_mask_fcn1\.weight",
        *beginnings(_orcnn_rules, _settings, with_statistics, ["orcnn"]),
    ),
    _layout(
        "AISFormer",
        rf"{_HEAD}mask_feat_learner_TR\..*",
        *beginnings(_aisformer_rules, _aisformer_settings, with_statistics, ["aisformer"]),
    ),
    _layout("detectron2's Faster or Mask R-CNN", r"roi_heads\.box_predictor\.cls_score\.weight"),
)
