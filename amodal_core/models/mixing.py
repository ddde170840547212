"""Checkpoints made of checkpoints: the mean of several runs, and scores that begin elsewhere.

Runs that began with the same weights stay close enough for their mean to be one model, often a
better one than each (Wortsman et al. 2022, "Model soups" and WiSE-FT).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from amodal_core.errors import InputError
from amodal_core.models.checkpoint import save_tensors
from amodal_core.models.checkpoint_info import CheckpointInfo, read_info
from amodal_core.models.layers.weights import fitted, read_weights
from amodal_core.models.learned_config import OF_THE_MACHINE
from amodal_core.models.registry import learned

_STATISTICS = ("running_mean", "running_var")  # of norms, which have a mean as weights have
_COUNTER = "num_batches_tracked"  # of norms; runs of other lengths have others, and none reads it
_CURE = "give checkpoints of one model, trained with the same settings"
Tensors = dict[str, torch.Tensor]


def mean(paths: Sequence[Path], out: Path, shares: Sequence[float] = ()) -> None:
    """Write the mean of checkpoints, in the number types of the first.

    Args:
        paths: of two checkpoints or more, of one model with the same settings and classes; of those
            that are no matter of training (`LearnedModel.selection`) the mean has the first's.
        out: of the mean.
        shares: of each in the mean, of any sum; none for equal ones.

    Raises:
        InputError: the checkpoints do not fit each other, or the shares do not fit them.
    """
    if len({path.resolve() for path in paths}) < max(len(paths), 2):
        raise InputError("a mean is of two different files or more", str(paths[0]), "give others")
    parts = list(shares) if shares else [1.0] * len(paths)
    if len(parts) != len(paths) or not all(0 < s < float("inf") for s in parts):
        what = f"{len(parts)} shares of {len(paths)} checkpoints"
        raise InputError(what, "--share", "give each a number above 0, in their order")
    first, own = _read(paths[0])
    settings, learnt = _known(first)
    learnt |= {name for name in own if name.endswith(_STATISTICS)}
    sums: Tensors = {}
    infos = []
    for path, share in zip(paths, parts, strict=True):
        info, state = _read(path)
        theirs, _ = _known(info)
        names = sorted(settings.keys() | theirs.keys())
        if differ := [k for k in names if settings.get(k) != theirs.get(k)]:
            raise InputError(f"another {', '.join(differ)} than in {paths[0]}", str(path), _CURE)
        infos.append(info)
        for name, value in fitted(state, own, path, _CURE).items():
            if name in learnt:
                sums[name] = sums.get(name, 0) + value.double() * (share / sum(parts))
            elif not name.endswith(_COUNTER) and not torch.equal(value, own[name]):
                raise InputError(
                    f"{name} is another than in {paths[0]}, and is nothing that has a mean",
                    str(path),
                    "of a codebook: take the mean of the runs before it, then `amodal codebook`",
                )
    done = own | {name: value.to(own[name]) for name, value in sums.items()}
    info = replace(first, data=_each(infos, "data"), commit=_each(infos, "commit"), metrics={})
    save_tensors(out, done, info)


def shifted(path: Path, out: Path, logits: Mapping[str, float]) -> None:
    """Write a checkpoint whose scores of some classes begin elsewhere.

    What separates best in training may lie at any score; users expect it near 0.3 to 0.5.

    Args:
        path: of a checkpoint whose model tells how sure it is class by class (`class_bias`).
        out: of the result.
        logits: class -> what is added to the log odds of its score.

    Raises:
        InputError: another model, or a class that it does not have.
    """
    info, state = _read(path)
    name = learned(info.model).class_bias
    if not name:
        raise InputError(
            f"'{info.model}' has no logits with a bias for each class",
            str(path),
            "take the flagship's",
        )
    if foreign := sorted(logits.keys() - set(info.classes)):
        raise InputError(
            f"no class '{foreign[0]}' in the checkpoint",
            "--logit",
            f"it has {', '.join(info.classes)}",
        )
    if name not in state:
        raise InputError(f"it lacks {name}", str(path), "train or copy it again")
    bias = state[name].double()
    for label, by in logits.items():
        if not math.isfinite(by):
            raise InputError(f"{by} is no number", f"--logit {label}", "such as -0.5")
        bias[info.classes.index(label)] += by
    save_tensors(out, state | {name: bias.to(state[name])}, replace(info, metrics={}))


def _read(path: Path) -> tuple[CheckpointInfo, Tensors]:
    info = read_info(path)
    if info.partial:
        raise InputError("it has a part of the weights alone", str(path), "train it first")
    return info, read_weights(path)


def _known(info: CheckpointInfo) -> tuple[dict[str, Any], set[str]]:
    """What must be the same of two checkpoints to have a mean; the names of what is learnt."""
    kind = learned(info.model)
    values = kind.earlier | info.config | dict.fromkeys(kind.files & info.config.keys(), "")
    with torch.device("meta"):
        model = kind.from_config(values)
    free = OF_THE_MACHINE | kind.selection
    settings = {k: v for k, v in model.config_json().items() if k not in free}
    return {"model": info.model} | settings, {name for name, _ in model.named_parameters()}


def _each(infos: Sequence[CheckpointInfo], field: str) -> str:
    """What they say, each once."""
    return "; ".join(dict.fromkeys(text for i in infos if (text := getattr(i, field))))
