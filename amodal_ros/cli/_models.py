"""The model that a command is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_ros.cli._progress import stderr

if TYPE_CHECKING:
    from amodal_core.models.base import Model

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="setting=value in place of the checkpoint's; repeatable."),
]

TrackerSettings = Annotated[
    list[str] | None,
    typer.Option("--tracker-set", help="setting=value of the tracker; repeatable."),
]


def make_model(
    name: str,
    device: str,
    checkpoint: Path | None,
    rules: Sequence[str] = (),
    *,
    given_by: str = "",
) -> Model:
    """The model of `--model`, `--device`, `--checkpoint` and `--set`.

    Args:
        name: in the registry.
        device: of torch.
        checkpoint: its weights.
        rules: "setting=value" each.
        given_by: the option that gives the visible masks, "" where the model finds objects itself.
            The model is then made without a detector.

    Raises:
        InputError: no such model or device, or it takes no checkpoint or no such setting, or it
            cannot be given visible masks.
    """
    from amodal_core.settings import parse_rules

    settings = parse_rules(rules, "--set")
    if given_by:
        if not registry.completes(name):
            raise InputError(
                f"{name} finds its objects by itself", given_by, "take eoras or s_amodal"
            )
        if "detector" in settings:
            raise InputError("a detector has nothing to find", given_by, "leave it out")
        settings["detector"] = ""
    with stderr.status("loading model"):  # torch and weights, seconds on a cold disk
        return registry.create(name, device, checkpoint, **settings)
