"""Models that draw whole masks around visible ones, which a detector finds or somebody gives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Instances, Report, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import hiding, occlusion_rates
from amodal_core.models import registry
from amodal_core.models.base import Model, stream_of
from amodal_core.models.detections import Detections
from amodal_core.models.layers.batch import Batch
from amodal_core.models.learned import LearnedModel
from amodal_core.models.learned_config import LearnedConfig
from amodal_core.settings import settings_type

_T = TypeVar("_T", bound=Instances)


@settings_type
class CompletingConfig(LearnedConfig):
    """What every model can be told that completes visible masks.

    Attributes:
        lidar: of no use here: what the detector takes is its own affair.
        detector: the model of the registry that finds the objects of a stream, "" for none: visible
            masks are then given, as they are in training.
        detector_checkpoint: its weights, "" where it needs none.
    """

    lidar: bool = False
    detector: str = "geometric"
    detector_checkpoint: str = ""


class CompletingModel(LearnedModel):
    """A trainable model that completes visible masks and fits `models.base.Completer`.

    A subclass implements `losses`, `complete`, and `infer` over the `detections` of its detector.
    Only a model from a checkpoint has the detector that its configuration names; classes, and what
    frames must have, are then the detector's.

    Args:
        config: of the subclass's `Config` type.
    """

    Config = CompletingConfig
    config: CompletingConfig

    def __init__(self, config: CompletingConfig) -> None:
        super().__init__(config)
        # In a tuple, so that its weights are none of this module's.
        self._detector: tuple[Model, ...] = ()

    @property
    def reaches_all(self) -> bool:
        """Not where no mask of a clip is given."""
        return False

    @classmethod
    def from_checkpoint(cls, path: str, device: str = "cpu", **settings: Any) -> LearnedModel:
        """As `LearnedModel.from_checkpoint`, with the detector that the settings name.

        Raises:
            InputError: either checkpoint is missing or does not fit, or there is no such detector.
        """
        model = super().from_checkpoint(path, device, **settings)
        assert isinstance(model, CompletingModel)
        if model.config.detector:
            model._detector = (_made(model.config, cls.name, device),)
        return model

    @property
    def detector(self) -> Model:
        """What finds the objects of a stream.

        Raises:
            InputError: the model has none.
        """
        if not self._detector:
            raise InputError(
                f"{self.name} has no detector",
                "setting detector",
                "load a checkpoint with detector=geometric, or give visible masks",
            )
        return self._detector[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """The detector's class names; without one those that the training data had."""
        return self._detector[0].classes if self._detector else self.config.classes

    @property
    def inputs(self) -> frozenset[str]:
        """The image, and what the detector needs."""
        return frozenset({"image"}).union(*(d.inputs for d in self._detector))

    @property
    def remembers(self) -> bool:
        """Most keep objects that are hidden, or their detector may."""
        return True

    @property
    def optional(self) -> frozenset[str]:
        """What the detector uses where it is there."""
        used: frozenset[str] = getattr(next(iter(self._detector), None), "optional", frozenset())
        return used - self.inputs

    def detections(self, frames: Sequence[Frame], report: Report) -> list[Instances]:
        """What the detector finds, on the host: the best `max_instances` of `min_score` and more.

        Raises:
            InputError: the model has no detector.
        """
        detector = self.detector
        with report.time(f"{self.name}.detect"):
            return [self._best(one.numpy()) for one in detector.infer(frames, report)]

    def _best(self, detections: Instances) -> Instances:
        scores = np.asarray(detections.scores)
        selected = np.isfinite(np.asarray(detections.amodal_boxes)).all(axis=1)
        selected &= scores >= self.config.min_score
        order = np.argsort(-scores, kind="stable")
        best = order[selected[order]][: self.config.max_instances]
        return detections if len(best) == len(detections) else detections[np.sort(best)]

    @abstractmethod
    def complete(
        self,
        frames: Sequence[Frame],
        visible_tracks: Sequence[Tracks],
        report: Report | None = None,
    ) -> list[Tracks]:
        """See `models.base.Completer.complete`."""

    def detect(self, batch: Batch) -> list[Detections]:
        """A batch has no detections to complete: see `infer` and `complete`."""
        raise TypeError(f"{self.name} completes what a detector found: call infer or complete")

    def twin(self) -> CompletingModel:
        """The same weights with a memory of its own, for the stream of another camera."""
        twin = copy(self)
        twin._detector = tuple(stream_of(detector) for detector in self._detector)
        twin.begin()
        return twin

    def begin(self) -> None:
        """Take an empty memory of the stream, where there is one; the old one is left alone."""

    def reset(self) -> None:
        """Forget the stream, here and in the detector."""
        for detector in self._detector:
            detector.reset()


def completed(instances: _T, amodal: RleMasks) -> _T:
    """Objects with new whole masks; the visible ones are kept within them.

    j hides i where j shows on what i does not, unless j is known to be the farther one.

    Args:
        instances: N, on the host.
        amodal: N.
    """
    visible = instances.visible.rle() & amodal
    depths = np.asarray(instances.depths)
    has_depth = depths > 0
    farther = (depths[None, :] > depths[:, None]) & has_depth[None, :] & has_depth[:, None]
    return replace(
        instances,
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        amodal=amodal,
        visible=visible,
        occlusion_rates=occlusion_rates(amodal, visible),
        occluders=hiding(amodal, visible) & ~farther,
    )


def _made(config: CompletingConfig, own: str, device: str) -> Model:
    """The detector that a model's configuration names.

    Raises:
        InputError: no such model, or its checkpoint is missing or does not fit.
    """
    name, checkpoint = config.detector, config.detector_checkpoint
    if name == own:
        raise InputError(f"{own} cannot detect", "setting detector", "name another model")
    return registry.create(name, device, checkpoint or None)
