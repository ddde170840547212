"""Models by name; the module that holds one is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from amodal_core.models.base import Model

# name -> ("module:class", one line for `amodal models`)
_MODELS: dict[str, tuple[str, str]] = {
    "geometric": (
        "amodal_core.models.geometric:Geometric",
        "LiDAR clusters completed by size priors; needs no weights, runs on a CPU",
    ),
}


def available() -> dict[str, str]:
    """Names of all models with one line of description each."""
    return {name: line for name, (_, line) in _MODELS.items()}


def create(name: str, device: str = "cpu", **options: Any) -> Model:
    """Make a model by name.

    Args:
        name: one of `available()`.
        device: a torch device, such as "cpu" or "cuda:0".
        **options: passed to the model's constructor.

    Raises:
        ValueError: no model of that name.
    """
    if name not in _MODELS:
        raise ValueError(f"there is no model '{name}'; there are: {', '.join(_MODELS)}")
    module, _, attribute = _MODELS[name][0].partition(":")
    model: Model = getattr(import_module(module), attribute)(device=device, **options)
    return model
