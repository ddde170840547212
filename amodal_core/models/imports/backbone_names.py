"""Backbones of ImageNet, which become files that the setting `weights` of models names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import get_args

import torch
from torchvision.models import resnet

from amodal_core.errors import InputError
from amodal_core.models.imports.key_map import KeyMap, Layout, Rule, Source, Tensors, renamed
from amodal_core.models.imports.resnet_names import (
    PYTORCH,
    caffe2_body,
    detectron2_body,
    first_convolution,
    with_statistics,
)
from amodal_core.models.imports.two_stage_names import body_name
from amodal_core.models.layers.backbone import ResNetName
from amodal_core.models.layers.efficientnet_lite import package_shapes

LITE = "efficientnet_lite0"
BODIES: tuple[str, ...] = get_args(ResNetName)
PARTS = (*BODIES, LITE)


def expected(part: str) -> Tensors:
    """The tensors of a backbone as the setting `weights` reads them, without data."""
    if part == LITE:
        return {n: torch.empty(s, device="meta") for n, s in package_shapes().items()}
    with torch.device("meta"):
        state = getattr(resnet, part)(weights=None).state_dict()
    return {n: t for n, t in state.items() if not n.startswith("fc.") and "tracked" not in n}


def _body(model: str, tensors: Tensors, source: Source) -> Tensors:
    """The tensors, if they are of this ResNet."""
    tensors = with_statistics(tensors, source)
    own = body_name(tensors, "", str(source.file.path))
    if own != model:
        raise InputError(f"these are weights of {own}", str(source.file.path), f"--model {own}")
    return tensors


def _bodies(rules: Sequence[Rule]) -> tuple[KeyMap, ...]:
    return tuple(KeyMap(m, lambda source: rules, finish=partial(_body, m)) for m in BODIES)


def _lite(tensors: Tensors, source: Source) -> Tensors:
    """Timm's names of blocks -> the package's, whose blocks are counted through."""
    stages: dict[str, list[str]] = {}
    for name in tensors:
        if name.startswith("blocks."):
            _, stage, block, _ = name.split(".", 3)
            stages.setdefault(stage, [])
            if block not in stages[stage]:
                stages[stage].append(block)
    numbers: dict[str, int] = {}
    for stage in sorted(stages, key=int):
        for block in sorted(stages[stage], key=int):
            numbers[f"{stage}.{block}"] = len(numbers)
    result: Tensors = {}
    for name, value in tensors.items():
        if not name.startswith("blocks."):
            result[name] = value
            continue
        _, stage, block, rest = name.split(".", 3)
        layer, part = rest.rsplit(".", 1)
        names = _DEPTHWISE if stage == "0" else _INVERTED
        result[f"_blocks.{numbers[f'{stage}.{block}']}.{names.get(layer, layer)}.{part}"] = value
    return result


# timm counts the norms of a block from 1, the package from the one after the expansion.
_DEPTHWISE = {
    "conv_dw": "_depthwise_conv",
    "bn1": "_bn1",
    "conv_pw": "_project_conv",
    "bn2": "_bn2",
}
_INVERTED = {
    "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
    "conv_pwl": "_project_conv", "bn3": "_bn2",
}  # fmt: skip
_TIMM_LITE = (
    renamed(r"conv_stem\.", "_conv_stem."),
    renamed(r"bn1\.", "_bn0."),
    renamed(r"(?:conv_head|bn2|classifier)\."),
    renamed(r"blocks\.", "blocks."),
)
_TORCHVISION = (
    renamed(r"fc\."),
    Rule(r"conv1\.weight", ("conv1.weight",), first_convolution),
    renamed(r"(bn1|layer\d)\.", r"\1."),
)
_STEM = r"stem\.conv1\.weight"


LAYOUTS = (
    Layout(
        "a ResNet of torchvision or timm",
        (r"conv1\.weight", r"layer1\.0\.conv1\.weight"),
        _bodies(_TORCHVISION),
        style=lambda file: PYTORCH,
    ),
    Layout(
        "detectron2's ResNet of torchvision",
        (_STEM, r"res2\.0\.conv1\.weight"),
        _bodies((renamed(r"(?:stem\.)?fc\."), *detectron2_body("", ""))),
        style=lambda file: PYTORCH,
    ),
    Layout(
        "Detectron's detectors",
        (r"conv1_w", r"res2_0_branch2a_w", r"cls_score_w"),
        (),
        cure="its anchors lie half a cell farther and its regions end a pixel earlier than here: "
        "give detectron2's model of the same name",
    ),
    Layout(
        "a ResNet of Caffe2 (MSRA, FAIR)",
        (r"conv1_w", r"res2_0_branch2a_w"),
        _bodies(caffe2_body("")),
    ),
    Layout(
        "timm's EfficientNet-Lite0",
        (r"conv_stem\.weight", r"blocks\.1\.0\.conv_pwl\.weight"),
        (KeyMap(LITE, lambda source: _TIMM_LITE, finish=_lite),),
    ),
    Layout(
        "EfficientNet-Lite0",
        (r"_conv_stem\.weight", r"_blocks\.15\._project_conv\.weight"),
        (
            KeyMap(
                LITE,
                lambda source: (renamed(r"_(?:conv_head|bn1|fc)\."), renamed("_", "_")),
            ),
        ),
    ),
)
