"""Models by name; the module that holds one is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from amodal_core.errors import InputError

if TYPE_CHECKING:
    # Importing numba and torch takes seconds; names and help texts need neither.
    from amodal_core.models.base import Model
    from amodal_core.models.learned import LearnedModel

DEFAULT = "flagship"
FALLBACK = "geometric"  # needs no weights
_WEIGHTS = Path(__file__).parent / "weights"
# Checkpoints that come with the package, by model.
_SHIPPED = {"flagship": "flagship_compact.safetensors"}

# name -> ("module:class", one line for `amodal models`)
_MODELS: dict[str, tuple[str, str]] = {
    "geometric": (
        "amodal_core.models.geometric:Geometric",
        "LiDAR clusters completed by size priors; needs no weights, runs on a CPU",
    ),
    "mask_rcnn": (
        "amodal_core.models.mask_rcnn:MaskRcnnAmodal",
        "Mask R-CNN with amodal and visible mask heads; needs a checkpoint",
    ),
    "orcnn": (
        "amodal_core.models.mask_rcnn:Orcnn",
        "Mask R-CNN amodal whose invisible mask is trained, too; needs a checkpoint",
    ),
    "aisformer": (
        "amodal_core.models.aisformer:AisFormer",
        "a transformer of visible, occluder and amodal queries over each RoI; needs a checkpoint",
    ),
    "vrsp": (
        "amodal_core.models.vrsp:Vrsp",
        "VRSP-Net: visible-region attention and a codebook of shapes; needs a checkpoint",
    ),
    "eoras": (
        "amodal_core.models.eoras:Eoras",
        "whole masks from the memory of a video, over a detector's objects; needs a checkpoint",
    ),
    "flagship": (
        "amodal_core.models.flagship:Flagship",
        "single-stage visible and amodal masks with LiDAR, CPU and GPU; ships with weights",
    ),
    "qdtrack": (
        "amodal_core.models.vatrack:QdTrack",
        "QDTrack: visible boxes and masks with embeddings; needs a checkpoint",
    ),
    "amodal_track": (
        "amodal_core.models.vatrack:AmodalTrack",
        "QDTrack on amodal boxes and masks; needs a checkpoint",
    ),
    "vatrack": (
        "amodal_core.models.vatrack:VaTrack",
        "amodal and visible masks on amodal boxes, with embeddings; needs a checkpoint",
    ),
    "vatrack_two_box": (
        "amodal_core.models.vatrack:VaTrackTwoBox",
        "VATrack with a head of its own for visible boxes; needs a checkpoint",
    ),
    "s_amodal": (
        "amodal_core.models.s_amodal:SAModal",
        "SAM, prompted by another model's visible masks, and point tracking; needs a checkpoint",
    ),
    "pointpillars": (
        "amodal_core.models.pointpillars:PointPillars",
        "3D boxes from LiDAR alone, their silhouettes as masks; needs a checkpoint",
    ),
}


def available() -> dict[str, str]:
    """Names of all models with one line of description each."""
    return {name: line for name, (_, line) in _MODELS.items()}


def shipped(name: str) -> Path | None:
    """The checkpoint of a model that comes with the package, None where there is none."""
    path = _WEIGHTS / _SHIPPED[name] if name in _SHIPPED else None
    return path if path is not None and path.is_file() else None


def create(name: str, device: str = "cpu", **options: Any) -> Model:
    """Make a model by name, ready for inference.

    Args:
        name: one of `available()`.
        device: a torch device, such as "cpu" or "cuda:0".
        **options: passed to the model's constructor. A trained model takes `checkpoint`, a path
            (the one that comes with the package where it is absent), and settings that replace
            those of the checkpoint and that no weight depends on.

    Raises:
        ValueError: no model of that name.
        InputError: a trained model without a checkpoint, or one that does not fit.
    """
    kind = _class(name)
    if not hasattr(kind, "from_checkpoint"):
        if hasattr(kind, "Config"):
            from amodal_core.settings import checked

            model: Model = kind(checked(kind.Config, options, f"settings of {name}"), device)
        else:
            model = kind(device=device, **options)
        return model
    checkpoint = options.pop("checkpoint", None) or shipped(name)
    if not checkpoint:
        raise InputError(
            f"the model '{name}' needs a checkpoint",
            "--checkpoint",
            f"train one with `amodal train`, or take '{FALLBACK}', which needs none",
        )
    trained: Model = kind.from_checkpoint(str(checkpoint), device, **options)
    return trained


def completes(name: str) -> bool:
    """Whether a model can be given visible masks to complete (`models.base.Completer`).

    Raises:
        ValueError: no model of that name.
    """
    return hasattr(_class(name), "complete")


def settings_of(rules: Sequence[str], where: str) -> dict[str, Any]:
    """Options for `create` from texts.

    Args:
        rules: "setting=value" each; values are YAML.
        where: who gave them, for error messages.

    Raises:
        InputError: a text is something else.
    """
    found = {}
    for rule in rules:
        name, equals, text = rule.partition("=")
        if not equals or not name.strip():
            raise InputError(f"'{rule}' is not setting=value", where, "such as min_score=0.3")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"'{text}' is no YAML value", f"{where} {name}", "quote it") from None
        found[name.strip()] = "" if value is None else value
    return found


def learned(name: str) -> type[LearnedModel]:
    """The class of a trainable model.

    Raises:
        InputError: no model of that name, or one without anything to train.
    """
    trainable = [n for n in _MODELS if n != FALLBACK]
    if name not in trainable:
        what = "has nothing to train" if name in _MODELS else "is no model"
        raise InputError(f"'{name}' {what}", "model", f"choose {', '.join(trainable)}")
    kind: type[LearnedModel] = _class(name)
    return kind


def _class(name: str) -> Any:
    if name not in _MODELS:
        raise ValueError(f"there is no model '{name}'; there are: {', '.join(_MODELS)}")
    module, _, attribute = _MODELS[name][0].partition(":")
    return getattr(import_module(module), attribute)
