"""What models share that complete the instances of another model, their detector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from amodal_core.datasets.categories import translate
from amodal_core.errors import InputError
from amodal_core.frame import Frame, Instances, Report
from amodal_core.models import registry
from amodal_core.models.base import Model
from amodal_core.models.batch import Batch
from amodal_core.models.learned import Found, LearnedConfig, LearnedModel


@dataclass(frozen=True)
class RefinedConfig(LearnedConfig):
    """What every model can be told that completes what a detector found.

    Attributes:
        lidar: of no use here: what the detector takes is its own affair.
        detector: the model in the registry whose visible masks are completed in live use, "" for
            none; training and judging take the visible masks of the truth.
        detector_checkpoint: its weights, "" where it needs none.
    """

    lidar: bool = False
    detector: str = ""
    detector_checkpoint: str = ""


class RefinedModel(LearnedModel):
    """A trainable model that completes visible masks; a subclass implements `complete`.

    Args:
        config: of the subclass's `Config` type.
    """

    Config = RefinedConfig
    config: RefinedConfig

    def __init__(self, config: RefinedConfig) -> None:
        super().__init__(config)
        # In a tuple, so that its weights are none of this module's.
        self._detector: tuple[Model, ...] = ()
        self._table = np.zeros(0, np.int64)
        self._dropped: list[str] = []

    @property
    def detector(self) -> Model:
        """The detector, made when it is first asked for.

        Raises:
            InputError: there is none, it cannot be made, or it has no class of this model.
        """
        if not self._detector:
            name, path = self.config.detector, self.config.detector_checkpoint
            if name not in registry.available() or name == self.name:
                raise InputError(
                    f"{self.name} has no detector" + (f" '{name}'" if name else ""),
                    "detector",
                    "name one with the setting `detector`, such as geometric",
                )
            options = {"checkpoint": path} if path else {}
            made = registry.create(name, str(self.device), **options)
            self._table, self._dropped = _own_classes(made.classes, self.classes)
            self._detector = (made,)
        return self._detector[0]

    @property
    def inputs(self) -> frozenset[str]:
        """The image and, outside training, what the detector needs."""
        own = frozenset({"image"})
        return own if self.training or not self.config.detector else own | self.detector.inputs

    @property
    def optional(self) -> frozenset[str]:
        """What the detector uses where it is there."""
        if self.training or not self.config.detector:
            return frozenset()
        wanted: frozenset[str] = getattr(self.detector, "optional", frozenset())
        return wanted - self.inputs

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """The detector's instances with their masks completed, those of `min_score` and more.

        Raises:
            InputError: the model has no detector.
        """
        report = report or Report()
        seen = self.found(frames, report) if frames else []
        done = self.complete(frames, seen, report)
        return [one[one.scores >= self.config.min_score] for one in done]

    def found(self, frames: Sequence[Frame], report: Report) -> list[Instances]:
        """What the detector finds, with this model's class ids, at most `max_instances` a frame.

        Classes that this model lacks are left out; the first report says which.
        """
        detector = self.detector
        if self._dropped:
            named = ", ".join(self._dropped)
            report.warnings.append(f"{self.name} has no class for the detector's {named}: left out")
            self._dropped = []
        kept = []
        for one in detector.infer(frames, report):
            ids = one.class_ids
            table = (
                torch.as_tensor(self._table, device=ids.device) if torch.is_tensor(ids) else None
            )
            own = (self._table if table is None else table)[ids]
            best = (-one.scores).argsort()[: self.config.max_instances]
            best = best[own[best] >= 0]
            kept.append(replace(one[best], class_ids=own[best]))
        return kept

    @abstractmethod
    def complete(
        self, frames: Sequence[Frame], seen: Sequence[Instances], report: Report | None = None
    ) -> list[Instances]:
        """Instances with amodal masks for those whose visible masks are given.

        Args:
            frames: with images.
            seen: of each frame; only size, visible masks, class ids, scores, depths and what
                else the result hands on count, amodal masks do not.
            report: receives timings and warnings.

        Returns:
            As many instances a frame as were given, in their order.
        """

    def detect(self, batch: Batch) -> list[Found]:
        """A batch has no detections to complete: see `infer` and `complete`."""
        raise TypeError(f"{self.name} completes what a detector found: call infer or complete")

    def reset(self) -> None:
        """Forget the stream, here and in the detector."""
        for detector in self._detector:
            detector.reset()


def _own_classes(theirs: Sequence[str], own: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """(N,) the own class id of each of a detector's classes, -1 for none, and those that have none.

    Raises:
        InputError: none of them has one.
    """
    table = np.array([_own_class(name, own) for name in theirs], np.int64)
    if not (table >= 0).any():
        raise InputError(
            f"no class of the detector ({', '.join(theirs)}) is one of the model's",
            "detector",
            f"the model has: {', '.join(own)}",
        )
    return table, [name for name, k in zip(theirs, table, strict=True) if k < 0]


def _own_class(name: str, own: Sequence[str]) -> int:
    try:
        return translate([name], own)[0]
    except InputError:
        return -1
