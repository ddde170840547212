"""What every model offers, whatever it is inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from amodal_core.frame import Frame, Instances, Report, Tracks


@runtime_checkable
class Model(Protocol):
    """A model that turns frames into instances.

    A model may also have `optional`, a frozenset of the parts that it uses where they are there,
    and `remembers`, True where it keeps a state of the stream: then each stream needs its own, and
    `twin` makes one.

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


@runtime_checkable
class Completer(Model, Protocol):
    """A model that draws whole masks of objects whose visible masks it is given.

    Where nothing is given, a detector of its own tells it what is seen.
    """

    def complete(
        self,
        frames: Sequence[Frame],
        visible_tracks: Sequence[Tracks],
        report: Report | None = None,
    ) -> list[Tracks]:
        """The objects of one clip with whole masks, whatever the stream was.

        Args:
            frames: in the order of time; a single image is a clip by itself.
            visible_tracks: of each frame its objects with visible masks; identities join them
                over the frames. Their amodal masks are not looked at.
            report: takes timings and warnings.

        Returns:
            Of each frame its objects in the order given, without those of which the model knows
            nothing, as they show nothing; then those that it remembers from earlier frames of the
            clip, `coasted`.
        """
        ...


def stream_of(model: Model) -> Model:
    """A model for another stream: the same one where it remembers nothing, else its twin."""
    twin = getattr(model, "twin", None)
    other: Model = model if twin is None else twin()
    return other
