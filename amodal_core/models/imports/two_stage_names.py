"""What files of two-stage detectors share: how parts become ours, whatever they are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch

from amodal_core.errors import InputError
from amodal_core.models.imports.class_names import BY_COUNT
from amodal_core.models.imports.files import WeightFile
from amodal_core.models.imports.key_map import Change, KeyMap, Rule, Source, Tensors, renamed

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
    (True, 256, 8, 23): "resnext101_32x8d",
    (True, 256, 4, 23): "resnext101_64x4d",
}
_NORM = "norm."  # what follows a convolution's name in that of its batch norm, until it is folded
EPSILON = 1e-5  # that batch norms add to variances


@dataclass(frozen=True)
class Family:
    """Names of a family's parts, as patterns of the beginnings of its tensors' names.

    In those of heads `{head}` is the name of one head, `{k}` the number of a layer from 0, `{n}`
    from 1. After the name of a convolution comes that of what it consists of: `kernel`, `norm`.

    Attributes:
        trunk: rules of the backbone, the pyramid, the proposal network and of what is not needed.
        box_head: of one of the box head's convolutions, and of its two linear layers.
        box_outputs: of the logits of classes, and of the boxes' deltas.
        mask_head: of one of the mask head's convolutions, of its deconvolution and of its logits.
        any_mask: of whatever belongs to masks.
        background: place of the background among the logits of classes. Where it comes first, it
            has deltas and masks, too.
        kernel: see above.
        norm: of the batch norm; "" where there is none.
    """

    trunk: tuple[Rule, ...]
    box_head: tuple[str, ...]
    box_outputs: tuple[str, str]
    mask_head: tuple[str, ...]
    any_mask: str
    background: int
    kernel: str = ""
    norm: str = ""

    def boxes(self, source: Source, head: str = "", own: str = "heads.") -> list[Rule]:
        """Rules of a box head.

        Args:
            source: the file.
            head: its name.
            own: ours.
        """
        convolution, *linear = self.box_head
        rows = self._convolutions(source, convolution, head, f"{own}box_head.{{k}}.0.")
        ours = (f"{len(rows) + 1}.",) if rows else ("fc6.", "fc7.")
        logits, deltas = self.box_outputs
        classes, boxes = of_classes(self.background), of_box_deltas(self._elsewhere)
        return [
            *chain(*rows),
            *(
                renamed(there.format(head=head), f"{own}box_head.{here}")
                for there, here in zip(linear, ours, strict=False)
            ),
            renamed(logits.format(head=head), f"{own}box_predictor.cls_score.", change=classes),
            renamed(deltas.format(head=head), f"{own}box_predictor.bbox_pred.", change=boxes),
        ]

    def masks(self, source: Source, *own: str, head: str = "") -> list[Rule]:
        """Rules of a mask head of convolutions.

        Args:
            source: the file.
            *own: our heads that it becomes.
            head: its name.
        """
        convolution, deconvolution, logits = self.mask_head
        rows = self._convolutions(source, convolution, head, *(f"{n}head.{{place}}." for n in own))
        last = f"head.{2 * len(rows)}."
        change = of_classes(self._elsewhere, kept=False)
        return [
            *chain(*rows),
            renamed(deconvolution.format(head=head), *(name + last for name in own)),
            renamed(logits.format(head=head), *(f"{name}logits." for name in own), change=change),
        ]

    def detector(self, model: str, source: Source) -> list[Rule]:
        """Rules of a Faster or Mask R-CNN, whose masks are left out where a model has others."""
        rules = [*self.trunk, *self.boxes(source)]
        masks = self.masks(source, *MASKS[model]) if model in MASKS else [renamed(self.any_mask)]
        return [*rules, *masks]

    @property
    def _elsewhere(self) -> int | None:
        """Place of the background where it is no logit of a class."""
        return 0 if self.background == 0 else None

    def _convolutions(self, source: Source, pattern: str, head: str, *own: str) -> list[list[Rule]]:
        """Rules of each convolution that a file has in a row, and of its norm."""
        rows: list[list[Rule]] = []
        while True:
            k = len(rows)
            there = pattern.format(head=head, k=k, n=k + 1)
            weight = re.compile(f"{there}{self.kernel}weight")
            if not any(weight.fullmatch(name) for name in source.file.tensors):
                return rows
            names = [name.format(k=k, place=2 * k) for name in own]
            norm = [renamed(there + self.norm, *(n + _NORM for n in names))] if self.norm else []
            rows.append([*norm, renamed(there + self.kernel, *names)])


def beginnings(
    rules: Callable[[str, Source], Sequence[Rule]],
    settings: Callable[[str, Tensors, Source], dict[str, Any]],
    finish: Callable[[Tensors, Source], Tensors] = lambda tensors, source: tensors,
    models: Iterable[str] = (*MASKS, *OTHERS),
) -> tuple[KeyMap, ...]:
    """Maps of a file to each of the models that it is, or that may begin with it.

    Args:
        rules: of a model and a source.
        settings: of a model, its tensors and a source; what `trunk_settings` gives comes before.
        finish: see `KeyMap`.
        models: see above.
    """
    return tuple(
        KeyMap(
            model,
            partial(rules, model),
            lambda tensors, source, model=model: (  # type: ignore[misc]
                trunk_settings(model, tensors, source) | settings(model, tensors, source)
            ),
            lambda tensors, source: folded(finish(tensors, source)),
        )
        for model in models
    )


def folded(tensors: Tensors) -> Tensors:
    """Batch norms behind convolutions, with the statistics that they keep, become part of these."""
    end = f".{_NORM}running_var"
    result = dict(tensors)
    for own in (name.removesuffix(end) for name in tensors if name.endswith(end)):
        weight, bias, mean, variance = (
            result.pop(f"{own}.{_NORM}{part}")
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight * (variance + EPSILON).rsqrt()
        kernel, before = result[f"{own}.weight"], result.get(f"{own}.bias", torch.zeros(()))
        result[f"{own}.weight"] = kernel * scale.view(-1, *[1] * (kernel.ndim - 1))
        result[f"{own}.bias"] = bias + (before - mean) * scale
    return result


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


def trunk_settings(model: str, tensors: Tensors, source: Source) -> dict[str, Any]:
    """Settings of the trunk that the shapes tell, and those that such models are published with."""

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in tensors)

    masks = count(r"amodal_branch\.head\.\d+\.weight") - 1
    own = {"mask_convolutions": masks} if model in ("mask_rcnn", "orcnn") and masks > 0 else {}
    return own | {
        "backbone": body_name(tensors, BODY, str(source.file.path)),
        "norm": "frozen",
        "channels": tensors["backbone.fpn.inner_blocks.0.0.weight"].shape[0],
        "proposal_convolutions": count(r"rpn\.head\.conv\.\d\.0\.weight"),
        "box_convolutions": count(r"heads\.box_head\.\d\.0\.weight"),
        "lidar": False,
        "short_side": 800,
        "long_side": 1333,
        "min_score": 0.05,
        "proposals": 1000,
    }


def of_classes(background: int | None, kept: bool = True) -> Change:
    """A change of tensors with a row, or several in a row, for each class.

    Args:
        background: place of the background's rows in the file: 0 first, -1 last, None for none.
        kept: the result has a background, which comes first; zeros where the file has none.
    """

    def change(tensor: torch.Tensor, source: Source, each: int = 1) -> torch.Tensor | None:
        if source.rows is None:
            return None
        tensor = tensor.reshape(-1, each, *tensor.shape[1:])
        classes = tensor[1:] if background == 0 else tensor[:-1] if background == -1 else tensor
        rows = classes[source.rows]
        if kept:
            first = torch.zeros_like(rows[:1]) if background is None else tensor[background][None]
            rows = torch.cat([first, rows])
        return rows.flatten(0, 1)

    return change


def of_box_deltas(background: int | None) -> Change:
    """The same for the four rows of each class's box."""
    change = of_classes(background)
    return lambda tensor, source: change(tensor, source, 4)  # type: ignore[call-arg]


def classes_of(file: WeightFile, logits: str) -> Sequence[str] | int:
    """Names of a file's classes, where a data set has so many, else their number.

    Args:
        file: what was read.
        logits: end of the name of the classes' biases, one of them the background's.
    """
    count = next((len(t) for n, t in file.tensors.items() if n.endswith(logits)), 1) - 1
    return BY_COUNT.get(count, count)
