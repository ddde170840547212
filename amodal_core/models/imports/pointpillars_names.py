"""PointPillars of KITTI's three classes: the pure-PyTorch implementation and mmdetection3d."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from amodal_core.errors import InputError
from amodal_core.models.imports.files import WeightFile
from amodal_core.models.imports.key_map import KeyMap, Layout, Rule, Source, Tensors, renamed

_FEATURES = 9  # of a point


def _classes(file: WeightFile) -> Sequence[str]:
    """All have the same classes in the same order; the anchors are theirs."""
    return ("pedestrian", "cyclist", "car")


def _with_place(tensor: torch.Tensor, source: Source) -> torch.Tensor:
    """The linear layer over a point's features as a convolution."""
    return tensor[:, :, None]


def _checked(tensors: Tensors, source: Source) -> Tensors:
    """mmdetection3d changed coordinates and features with version 1."""
    meta = source.file.meta.get("meta")
    version = str(meta.get("mmdet3d_version", "")) if isinstance(meta, dict) else ""
    kernel = tensors.get("pillar_encoder.conv.weight")
    if version.startswith("1") or (kernel is not None and kernel.shape[1] != _FEATURES):
        raise InputError(
            "weights of mmdetection3d 1.x, whose boxes and points are described otherwise",
            str(source.file.path),
            "give those of mmdetection3d 0.x, or of the pure-PyTorch implementation",
        )
    return tensors


_PURE = (renamed(r"(pillar_encoder|backbone|neck|head)\.", r"\1."),)
_MMDET3D = (
    Rule(
        r"voxel_encoder\.pfn_layers\.0\.linear\.weight",
        ("pillar_encoder.conv.weight",),
        _with_place,
    ),
    renamed(r"voxel_encoder\.pfn_layers\.0\.norm\.", "pillar_encoder.bn."),
    renamed(r"backbone\.blocks\.", "backbone.multi_blocks."),
    renamed(r"neck\.deblocks\.", "neck.decoder_blocks."),
    renamed(r"bbox_head\.", "head."),
)
LAYOUTS = (
    Layout(
        "the pure-PyTorch PointPillars",
        (r"pillar_encoder\.conv\.weight", r"head\.conv_dir_cls\.weight"),
        (KeyMap("pointpillars", lambda source: _PURE),),
        _classes,
    ),
    Layout(
        "mmdetection3d's PointPillars",
        (r"voxel_encoder\.pfn_layers\.0\.linear\.weight", r"bbox_head\.conv_dir_cls\.weight"),
        (KeyMap("pointpillars", lambda source: _MMDET3D, finish=_checked),),
        _classes,
    ),
    # Known to be named: its points have other features, its boxes other angles and anchors.
    Layout("OpenPCDet's PointPillars", (r"vfe\.pfn_layers\.0\.linear\.weight",), ()),
)
