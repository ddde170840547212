"""What all files of two-stage detectors share: our names of their parts, and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from amodal_core.errors import InputError
from amodal_core.models.imports.class_names import BY_COUNT
from amodal_core.models.imports.files import WeightFile
from amodal_core.models.imports.key_map import Rule, Source, Tensors, of_classes, renamed

BODY = "backbone.body."
MASKS = {
    "mask_rcnn": ("amodal_branch.", "visible_branch."),
    "qdtrack": ("mask_branch.",),
    "amodal_track": ("mask_branch.",),
}
# Without a mask head of their own names: such a file is a beginning for training.
OTHERS = ("orcnn", "aisformer", "vrsp", "vatrack", "vatrack_two_box")
_BODIES = {
    (False, 64, 64, 2): "resnet18",
    (True, 64, 64, 6): "resnet50",
    (True, 64, 64, 23): "resnet101",
    (True, 128, 4, 6): "resnext50_32x4d",
    (True, 256, 4, 23): "resnext101_64x4d",
}


def body_name(tensors: Tensors, prefix: str, where: str) -> str:
    """Torchvision's name of the ResNet whose tensors these are.

    Args:
        tensors: under torchvision's names with a prefix.
        prefix: see above.
        where: the file, for errors.

    Raises:
        InputError: another network.
    """
    blocks = len({n for n in tensors if n.startswith(f"{prefix}layer3.") and "conv1.weight" in n})
    kernel = tensors.get(f"{prefix}layer1.0.conv2.weight", torch.empty(0, 0))
    deep = f"{prefix}layer1.0.conv3.weight" in tensors
    key = (deep, kernel.shape[0], kernel.shape[1], blocks)
    if key not in _BODIES:
        raise InputError(
            f"a ResNet with {blocks} blocks in its third stage and kernels {tuple(kernel.shape)}",
            where,
            f"there are: {', '.join(_BODIES.values())}",
        )
    return _BODIES[key]


def trunk_settings(tensors: Tensors, source: Source) -> dict[str, Any]:
    """Settings of the trunk that the shapes tell, and those that such models are published with."""
    return {
        "backbone": body_name(tensors, BODY, str(source.file.path)),
        "norm": "frozen",
        "channels": tensors["backbone.fpn.inner_blocks.0.0.weight"].shape[0],
        "lidar": False,
        "short_side": 800,
        "long_side": 1333,
        "min_score": 0.05,
        "proposals": 1000,
    }


def mask_rules(
    model: str, convolutions: Sequence[str], deconvolution: str, logits: str, background: int | None
) -> list[Rule]:
    """Rules of a mask head of convolutions.

    Args:
        model: whose mask heads it becomes; both the amodal and the visible one where it has both.
        convolutions: patterns of the beginnings of their names, the first one's first.
        deconvolution: of its deconvolution.
        logits: of its last layer.
        background: see `of_classes`.
    """
    heads = MASKS[model]
    rules = [
        renamed(pattern, *(f"{head}head.{2 * k}." for head in heads))
        for k, pattern in enumerate(convolutions)
    ]
    last = 2 * len(convolutions)
    change = of_classes(background, kept=False)
    return [
        *rules,
        renamed(deconvolution, *(f"{head}head.{last}." for head in heads)),
        renamed(logits, *(f"{head}logits." for head in heads), change=change),
    ]


def classes_of_count(count: int) -> Sequence[str] | int:
    """Names of so many classes where a data set has them, else their number."""
    return BY_COUNT.get(count, count)


def count_of(file: WeightFile, name: str) -> int:
    """The length of a tensor whose name ends like this, such as a bias; 0 where there is none."""
    return next((len(t) for n, t in file.tensors.items() if n.endswith(name)), 0)
