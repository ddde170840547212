"""ResNets in detectron2's and Caffe2's names; and the colours that their first layer takes."""

from __future__ import annotations

import re

import torch

from amodal_core.models.imports.key_map import Rule, Source, Tensors, renamed
from amodal_core.models.layers.batch import STD

CAFFE, PYTORCH = "caffe", "pytorch"
_BYTES = 255.0
# Where a ResNet has 64 channels and a ResNeXt more.
_SECOND, _PLAIN = ("res2.0.conv2.weight", "res2_0_branch2b_w"), 64
# Frozen norms that were merged into scale and offset have no statistics of their own; detectron2
# fills in such as divide by exactly 1.
_UNIT_VARIANCE = 1 - 1e-5
_NORMS = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}


def pixel_std(source: Source) -> tuple[list[float], bool]:
    """What images are divided by, and whether blue comes first.

    The file says it (`pixel_mean`, `pixel_std` of detectron2), else its style does.
    """
    tensors = source.file.tensors
    mean, std = tensors.get("pixel_mean"), tensors.get("pixel_std")
    if not source.style and mean is not None and std is not None:
        return std.flatten().tolist(), bool(mean.flatten()[0] < mean.flatten()[2])
    if source.style == PYTORCH:
        return [_BYTES * s for s in STD], False
    wide = any(n.endswith(_SECOND) and t.shape[0] > _PLAIN for n, t in tensors.items())
    if not source.style and wide:
        return [_BYTES * s for s in STD[::-1]], True  # ResNeXt of detectron2's zoo
    return [1.0, 1.0, 1.0], True


def is_caffe(source: Source) -> bool:
    """Whether strides lie in the 1x1 convolutions: so it is where images are bytes."""
    return max(pixel_std(source)[0]) <= 1


def first_convolution(tensor: torch.Tensor, source: Source) -> torch.Tensor:
    """The first kernel (O, 3, H, W) for red, green, blue less ImageNet's mean over its deviation.

    Means are ImageNet's everywhere, so that only order and scale of the colours change.
    """
    std, blue_first = pixel_std(source)
    if blue_first:
        tensor, std = tensor.flip(1), std[::-1]
    scale = torch.tensor([_BYTES * own / theirs for own, theirs in zip(STD, std, strict=True)])
    return tensor * scale.view(1, 3, 1, 1).to(tensor.dtype)


def detectron2_body(there: str, here: str) -> list[Rule]:
    """Rules of a ResNet in detectron2's names.

    Args:
        there: pattern of the prefix of its names.
        here: prefix of ours.
    """
    rules = [
        Rule(rf"{there}stem\.conv1\.weight", (f"{here}conv1.weight",), first_convolution),
        renamed(rf"{there}stem\.conv1\.norm\.", f"{here}bn1."),
    ]
    for k in range(1, 5):
        block, own = rf"{there}res{k + 1}\.(\d+)\.", rf"{here}layer{k}.\1."
        rules += [
            renamed(rf"{block}shortcut\.norm\.", f"{own}downsample.1."),
            renamed(rf"{block}shortcut\.", f"{own}downsample.0."),
            renamed(rf"{block}conv(\d)\.norm\.", rf"{own}bn\2."),
            renamed(rf"{block}conv(\d)\.", rf"{own}conv\2."),
        ]
    return rules


def caffe2_body(here: str) -> list[Rule]:
    """Rules of a ResNet in Caffe2's names, as Detectron's and MSRA's pickles have them.

    Args:
        here: prefix of our names.
    """
    rules = [
        Rule("conv1_w", (f"{here}conv1.weight",), first_convolution),
        Rule("conv1_b|fc1000_[wb]|pred_[wb]|lr|.*_momentum"),
    ]
    for ours, theirs in _NORMS.items():
        name = rf"_bn_(?:{theirs}|{ours})" if "running" in ours else rf"_bn_{theirs}"
        rules.append(Rule(rf"(?:res_)?conv1{name}", (f"{here}bn1.{ours}",)))
        for k in range(1, 5):
            block, own = rf"res{k + 1}_(\d+)_branch", rf"{here}layer{k}.\1."
            rules.append(Rule(rf"{block}1{name}", (f"{own}downsample.1.{ours}",)))
            rules += [
                Rule(rf"{block}2{letter}{name}", (f"{own}bn{n}.{ours}",))
                for n, letter in enumerate("abc", 1)
            ]
    for k in range(1, 5):
        block, own = rf"res{k + 1}_(\d+)_branch", rf"{here}layer{k}.\1."
        rules.append(Rule(rf"{block}1_w", (f"{own}downsample.0.weight",)))
        rules += [
            Rule(rf"{block}2{letter}_w", (f"{own}conv{n}.weight",))
            for n, letter in enumerate("abc", 1)
        ]
    return rules


def with_statistics(tensors: Tensors, source: Source) -> Tensors:
    """Norms that have none get the statistics that change nothing."""
    result = dict(tensors)
    for name, bias in tensors.items():
        if norm := re.fullmatch(r"(.*(?:bn\d|downsample\.1)\.)bias", name):
            result.setdefault(f"{norm[1]}running_mean", torch.zeros_like(bias))
            result.setdefault(f"{norm[1]}running_var", torch.full_like(bias, _UNIT_VARIANCE))
    return result
