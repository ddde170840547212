"""PointPillars of KITTI's classes: the pure-PyTorch implementation, mmdetection3d and OpenPCDet.

All have the anchors of the paper, two a class, and the same layers but for the first; what a point
and a box are, where anchors stand and how boxes suppress each other is each one's own. The values
here are those of the published configurations: zhulf0804/PointPillars; mmdetection3d's
pointpillars_hv_secfpn_8xb6-160e_kitti-3d-3class and -car, of its versions 0.5 to 1.4; OpenPCDet's
kitti_models/pointpillar.yaml, of its versions 0.2 to 0.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from amodal_core.errors import InputError
from amodal_core.models.imports.files import WeightFile
from amodal_core.models.imports.key_map import KeyMap, Layout, Rule, Source, Tensors, renamed

_KITTI = ("pedestrian", "cyclist", "car")
_KITTI_OF_PCDET = ("car", "pedestrian", "cyclist")
# What a point is told by how many numbers it has, see `PointFeatures`.
_LEGACY = {
    9: {"xyz": "legacy", "voxel_center": "xy"},
    10: {"xyz": "legacy", "voxel_center": "xyz"},
}
_ABSOLUTE = {
    7: {"xyz": "none", "voxel_center": "xyz"},
    10: {"xyz": "absolute", "voxel_center": "xyz"},
}


def _count(file: WeightFile) -> int:
    """Classes of a file: each has two anchors, and each of these two directions."""
    name = next(n for n in file.tensors if n.endswith("head.conv_dir_cls.weight"))
    return len(file.tensors[name]) // 4


def _classes(names: Sequence[str]) -> Callable[[WeightFile], Sequence[str] | int]:
    """The published order of three, else how many there are."""
    return lambda file: names if _count(file) == len(names) else _count(file)


def _classes_of_mmdet3d(file: WeightFile) -> Sequence[str] | int:
    """Those that the file tells, in either version's place; else the published ones."""
    meta = _meta(file)
    data = meta.get("dataset_meta")
    names = data.get("classes") if isinstance(data, Mapping) else meta.get("CLASSES")
    count = _count(file)
    if isinstance(names, Sequence) and len(names) == count:
        return tuple(str(name).lower() for name in names)
    return {len(_KITTI): _KITTI, 1: ("car",)}.get(count, count)


def _meta(file: WeightFile) -> Mapping[str, Any]:
    meta = file.meta.get("meta")
    return meta if isinstance(meta, Mapping) else {}


def _of_classes(tensors: Tensors, source: Source) -> Tensors:
    """The anchors of the classes that are wanted, and the scores of these classes there."""
    heads = {name: t for name, t in tensors.items() if name.startswith("head.conv_")}
    result = {name: t for name, t in tensors.items() if name not in heads}
    if source.rows is None:
        return result
    count = _count(source.file)
    each = {"head.conv_cls": count, "head.conv_reg": 7, "head.conv_dir_cls": 2}
    for name, tensor in heads.items():
        width = each.get(name.rpartition(".")[0], 0)
        if len(tensor) == count * 2 * width:  # else it does not fit, which is said later
            rows = tensor.reshape(count, 2, width, *tensor.shape[1:])[source.rows]
            rows = rows[:, :, source.rows] if name.startswith("head.conv_cls.") else rows
            tensor = rows.flatten(0, 2)
        result[name] = tensor
    return result


def _features(
    tensors: Tensors, source: Source, kinds: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the network is told of a point, by how many numbers a point has."""
    kernel = tensors.get("pillar_encoder.conv.weight")
    if kernel is None:
        return {}
    width = kernel.shape[1]
    given = source.settings.get("features")
    distance = isinstance(given, Mapping) and given.get("with_distance") is True
    if width - distance not in kinds:
        raise InputError(
            f"points of {width} numbers, "
            + " or ".join(str(n) for n in sorted(kinds))
            + " with x, y, z and intensity",
            str(source.file.path),
            "--set features.with_distance=true if it is told the distance; networks that are told "
            "more of a point (Waymo's elongation, nuScenes' time) cannot be taken",
        )
    return dict(kinds[width - distance])


def _of_mmdet3d(tensors: Tensors, source: Source) -> dict[str, Any]:
    """Version 1 has boxes, features and anchors of its own; a file of version 0 is told by 9."""
    meta = _meta(source.file)
    version = str(meta.get("mmdet3d_version", ""))
    features = _features(tensors, source, _LEGACY)
    first = features.get("voxel_center", "xy") == "xy"
    if version and version.startswith("0") != first:
        raise InputError(
            f"weights of mmdetection3d {version} with a point of other numbers than it has",
            str(source.file.path),
            "is it the published network?",
        )
    if not first:
        return {"features": features, "heading": "yaw", "dir_offset": -math.pi / 2}
    # The three classes' anchors are spread beyond the grid there, the car's own are not.
    spread = (0.0, -39.68, 70.4, 39.68) if _count(source.file) == len(_KITTI) else None
    return {"features": features, "align_center": False, "anchor_range": spread}


def _of_pcdet(tensors: Tensors, source: Source) -> dict[str, Any]:
    return {
        "features": _features(tensors, source, _ABSOLUTE),
        "heading": "yaw",
        "align_center": False,
        "dir_offset": 0.78539,
        "multi_classes_nms": False,
        "candidates": 4096,
        "max_instances": 500,
    }


def _with_place(tensor: torch.Tensor, source: Source) -> torch.Tensor:
    """The linear layer over a point's features as a convolution."""
    return tensor[:, :, None]


def _encoder(prefix: str) -> tuple[Rule, ...]:
    layer = rf"{prefix}\.pfn_layers\.0\."
    return (
        Rule(rf"{layer}linear\.weight", ("pillar_encoder.conv.weight",), _with_place),
        renamed(rf"{layer}norm\.", "pillar_encoder.bn."),
    )


_PURE = (renamed(r"(pillar_encoder|backbone|neck|head)\.", r"\1."),)
_MMDET3D = (
    *_encoder("voxel_encoder"),
    renamed(r"backbone\.blocks\.", "backbone.multi_blocks."),
    renamed(r"neck\.deblocks\.", "neck.decoder_blocks."),
    renamed(r"bbox_head\.", "head."),
)
_PCDET = (
    *_encoder("vfe"),
    # Its stages begin with a layer of padding, which has no weights.
    *(
        renamed(rf"backbone_2d\.blocks\.(\d)\.{k + 1}\.", rf"backbone.multi_blocks.\1.{k}.")
        for k in range(18)
    ),
    renamed(r"backbone_2d\.deblocks\.", "neck.decoder_blocks."),
    renamed(r"dense_head\.conv_(cls|dir_cls)\.", r"head.conv_\1."),
    renamed(r"dense_head\.conv_box\.", "head.conv_reg."),
    Rule("global_step"),
)
LAYOUTS = (
    Layout(
        "the pure-PyTorch PointPillars",
        (r"pillar_encoder\.conv\.weight", r"head\.conv_dir_cls\.weight"),
        (KeyMap("pointpillars", lambda source: _PURE, finish=_of_classes),),
        _classes(_KITTI),
    ),
    Layout(
        "mmdetection3d's PointPillars",
        (r"voxel_encoder\.pfn_layers\.0\.linear\.weight", r"bbox_head\.conv_dir_cls\.weight"),
        (KeyMap("pointpillars", lambda source: _MMDET3D, _of_mmdet3d, _of_classes),),
        _classes_of_mmdet3d,
    ),
    Layout(
        "OpenPCDet's PointPillars",
        (r"vfe\.pfn_layers\.0\.linear\.weight", r"dense_head\.conv_dir_cls\.weight"),
        (KeyMap("pointpillars", lambda source: _PCDET, _of_pcdet, _of_classes),),
        _classes(_KITTI_OF_PCDET),
    ),
    # Known to be named: they have other heads, classes and anchors, or other boxes.
    Layout(
        "OpenPCDet's PointPillars with several heads (nuScenes)",
        (r"vfe\.pfn_layers\..*", r"dense_head\.rpn_heads\..*"),
        (),
    ),
    Layout(
        "OpenPCDet's CenterPoint on pillars",
        (r"vfe\.pfn_layers\..*", r"dense_head\.heads_list\..*"),
        (),
    ),
    Layout("PCDet 0.1's PointPillars", (r"vfe\.pfn_layers\..*", r"rpn_head\..*"), ()),
    Layout(
        "mmdetection3d's networks of nuScenes, Lyft and Waymo",
        (r"pts_voxel_encoder\..*", r"pts_bbox_head\..*"),
        (),
    ),
    Layout(
        "second.pytorch's PointPillars",
        (r"voxel_feature_extractor\.pfn_layers\..*", r"rpn\..*"),
        (),
    ),
)
