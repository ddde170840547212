"""What every model offers, whatever it is inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from amodal_core.frame import Frame, Instances, Report


@runtime_checkable
class Model(Protocol):
    """A model that turns frames into instances.

    A model may also have `optional`, a frozenset of the parts that it uses where they are there.

    Attributes:
        name: its name in the registry.
        inputs: the parts of a Frame that it needs: "image", "points", "depth", "calibration".
        classes: class names; `Instances.class_ids` index into them.
    """

    name: str
    inputs: frozenset[str]
    classes: tuple[str, ...]

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """The instances of each frame, in the frames' order; where nothing is, empty Instances."""
        ...

    def reset(self) -> None:
        """Forget what earlier frames of the stream left behind; nothing in single-frame models."""
        ...
