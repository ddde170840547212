"""Models by name; the module that holds one is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amodal_core.errors import InputError
from amodal_core.extras import extra
from amodal_core.runtime.devices import check_device

if TYPE_CHECKING:
    # Importing numba and torch takes seconds; names and help texts need neither.
    from amodal_core.models.base import Model
    from amodal_core.models.learned import LearnedModel

DEFAULT = "fused"
FALLBACK = "geometric"  # needs no weights
_WEIGHTS = Path(__file__).parent / "weights"
# Checkpoints that come with the package, by model.
_SHIPPED = dict.fromkeys(("flagship", "fused"), "flagship_nanodet.safetensors")

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
    "fused": (
        "amodal_core.models.fused:Fused",
        "the flagship and geometric as two witnesses of each object; ships with weights",
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

# What stands for a model where PyTorch is not installed.
_WITHOUT_TORCH = {"flagship": "amodal_core.models.flagship_graph:FlagshipGraph"}


def available() -> dict[str, str]:
    """Names of all models with one line of description each."""
    return {name: line for name, (_, line) in _MODELS.items()}


def shipped(name: str) -> Path | None:
    """The checkpoint of a model that comes with the package, None where there is none."""
    path = _WEIGHTS / _SHIPPED[name] if name in _SHIPPED else None
    return path if path is not None and path.is_file() else None


def create(
    name: str, device: str = "cpu", checkpoint: str | Path | None = None, **settings: Any
) -> Model:
    """Make a model by name, ready for inference.

    Args:
        name: one of `available()`.
        device: a torch device, such as "cpu" or "cuda:0"; what has no network runs on the CPU.
        checkpoint: of a trained model; the one that comes with the package where it is absent.
        **settings: of the model's `Config`; in a trained one they replace those of the checkpoint
            that no weight depends on.

    Raises:
        InputError: no model of that name, no such device, no such setting, a trained model without
            a checkpoint, or one that does not fit.
    """
    kind = class_of(name)
    check_device(device)
    trained = hasattr(kind, "from_checkpoint")
    if trained and not (checkpoint := checkpoint or shipped(name)):
        raise InputError(
            f"the model '{name}' needs a checkpoint",
            "--checkpoint",
            f"train one with `amodal train`, or take '{FALLBACK}', which needs none",
        )
    if checkpoint and not trained:
        raise InputError(f"'{name}' takes no checkpoint", str(checkpoint), "leave it out")
    try:
        if trained:
            model: Model = kind.from_checkpoint(str(checkpoint), device, **settings)
        else:
            from amodal_core.settings import checked

            model = kind(checked(kind.Config, settings, f"settings of {name}"), device)
        return model
    except RuntimeError as error:  # torch's, such as of a GPU that has no room
        line = str(error).strip().splitlines()[0]
        raise InputError(line, f"device {device}", "see `amodal doctor`") from None


def settings_of(name: str) -> type[Any]:
    """The type of a model's settings.

    Raises:
        InputError: no model of that name.
    """
    kind: type[Any] = class_of(name).Config
    return kind


def completes(name: str) -> bool:
    """Whether a model can be given visible masks to complete (`models.base.Completer`).

    Raises:
        InputError: no model of that name.
    """
    return hasattr(class_of(name), "complete")


def learned(name: str) -> type[LearnedModel]:
    """The class of a trainable model.

    Raises:
        InputError: no model of that name, or one without anything to train.
    """
    trainable = [n for n in _MODELS if n not in (FALLBACK, "fused")]
    if name not in trainable:
        what = "has nothing to train" if name in _MODELS else "is no model"
        raise InputError(f"'{name}' {what}", "model", f"choose {', '.join(trainable)}")
    kind: type[LearnedModel] = class_of(name)
    return kind


def class_of(name: str) -> Any:
    """The class of a model, or what stands for it where PyTorch is not installed.

    Raises:
        InputError: no model of that name, or it needs PyTorch.
    """
    if name not in _MODELS:
        raise InputError(f"there is no model '{name}'", "model", f"there are: {', '.join(_MODELS)}")
    place = _MODELS[name][0]
    if name in _WITHOUT_TORCH and find_spec("torch") is None:
        place = _WITHOUT_TORCH[name]
    module, _, attribute = place.partition(":")
    with extra("torch", f"model {name}"):
        return getattr(import_module(module), attribute)
