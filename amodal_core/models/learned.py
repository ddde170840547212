"""What all trainable models share: frames in, instances out, weights from a checkpoint."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Instances, Report
from amodal_core.models.checkpoint import CheckpointInfo, load_weights, read_info
from amodal_core.models.detections import Detections, instances_of
from amodal_core.models.layers.batch import Batch, Targets, make_batch
from amodal_core.models.layers.crossing import Crossing
from amodal_core.models.learned_config import OF_THE_MACHINE, LearnedConfig
from amodal_core.runtime.accelerator import Accelerator
from amodal_core.settings import checked


@dataclass(frozen=True)
class Clip:
    """The frames of one video that a model learns from together.

    Attributes:
        frames: of a clip.
        reach: 0 for consecutive frames; else a clip is a key frame and a reference frame up to so
            many frames before or after it, and they share an object.
    """

    frames: int
    reach: int = 0


class LearnedModel(nn.Module):
    """A trainable model that fits `amodal_core.models.base.Model`.

    A subclass sets `name` and `Config`, and implements `losses` and `detect`. One that learns from
    videos sets `clip`, too: its batches then hold clips, `Batch.clip` frames each.

    Attributes:
        files: settings that name files of weights; they are only read to begin a training, and are
            empty in checkpoints.
        needs_masks: whether it learns masks; one that does not may learn from 3D boxes alone.
        tied: settings that weights were trained for although no tensor's shape shows it; weights
            are refused where they differ.
        selection: settings that weights were not trained for: what is given out of what is found,
            and how finely it is drawn. Of checkpoints that differ in them a mean has the first's.
        class_bias: name of the weights that are added to the logit of each class; "" where there
            are none, or a softmax joins the classes.
        earlier: what settings were in checkpoints from before they could be chosen.
        runtimes: whether its network can run elsewhere than in torch.

    Args:
        config: of the subclass's `Config` type.
    """

    name: ClassVar[str]
    Config: ClassVar[type[LearnedConfig]] = LearnedConfig
    clip: ClassVar[Clip | None] = None
    needs_masks: ClassVar[bool] = True
    files: ClassVar[frozenset[str]] = frozenset({"weights"})
    tied: ClassVar[frozenset[str]] = frozenset()
    selection: ClassVar[frozenset[str]] = frozenset({"min_score", "max_instances"})
    class_bias: ClassVar[str] = ""
    earlier: ClassVar[dict[str, Any]] = {}
    runtimes: ClassVar[bool] = False

    def __init__(self, config: LearnedConfig) -> None:
        super().__init__()
        self.config = config
        self.crossing = Crossing()
        # Of a checkpoint's network or its parts, where they may run elsewhere than in torch; of a
        # copy None.
        self.accelerators: list[Accelerator] = []

    @property
    def camera_view(self) -> bool:
        """Whether it sees those points alone that the image shows."""
        return bool(getattr(self.config, "camera_view", True))

    @property
    def reaches_all(self) -> bool:
        """Whether any batch, without objects too, gives each weight that is learnt a gradient.

        Where it may not, processes that train together have to look for those that got none.
        """
        return True

    @property
    def pastes_probabilities(self) -> bool:
        """Whether masks come into images by `masks.paste.of_probabilities`."""
        return False

    def trunk(self) -> list[nn.Module]:
        """The modules before `crossing`; none where a model is not to be split."""
        return []

    def blocks(self) -> list[nn.Module]:
        """Large parts that training in several processes may hold in shares, one by one.

        Each is called as a whole, once a pass, and gives tensors, or a list or dictionary of them.
        """
        return []

    def split(self, first: torch.device | str, second: torch.device | str) -> None:
        """Put the trunk on one device and the rest on another; batches come to the first.

        Raises:
            InputError: the model is made in one piece.
        """
        trunk = self.trunk()
        if not trunk:
            raise InputError(f"{self.name} cannot be split", "split", "turn it off")
        for child in self.children():
            child.to(first if child in trunk else second)
        self.crossing.device = torch.device(second)

    def crossed(self, batch: Batch) -> Batch:
        """The batch where the second half is."""
        return batch if self.crossing.device is None else batch.to(self.crossing.device)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; `Instances.class_ids` index into them."""
        return self.config.classes

    @property
    def inputs(self) -> frozenset[str]:
        """What a frame must have."""
        return frozenset({"image"})

    @property
    def optional(self) -> frozenset[str]:
        """What is used where it is there: depth, by a model with a LiDAR branch."""
        return frozenset({"depth"}) if self.config.lidar else frozenset()

    @property
    def device(self) -> torch.device:
        """Where the weights are; where the first ones are if the model is split."""
        return next(self.parameters()).device

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Losses to be summed, by name; finite for images without objects and without proposals.

        Args:
            batch: on the model's device, with targets.
        """

    @abstractmethod
    def detect(self, batch: Batch) -> list[Detections]:
        """What is in each image of a batch on the model's device."""

    @contextmanager
    def inferring(self) -> Iterator[None]:
        """Without gradients and as in inference; the mode is put back at the end."""
        was_training = self.training
        # Either walks over all layers, a millisecond that a stream would pay every frame.
        if was_training:
            self.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            if was_training:
                self.train()

    def batch_of(self, frames: Sequence[Frame], targets: Sequence[Targets] | None = None) -> Batch:
        """Frames at the model's input size, on its device; see `make_batch`."""
        return make_batch(
            frames,
            targets,
            short_side=self.config.short_side or None,
            long_side=self.config.long_side or None,
            resize=self.config.resize,
            most_pixels=self.config.most_pixels or None,
            device=self.device,
        )

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """The instances of each frame, masks as logits in boxes on the model's device.

        Where there is depth, an object that the LiDAR looks through loses that share of its score.
        """
        if not frames:
            return []
        report = report or Report()
        with self.inferring():
            with report.time(f"{self.name}.prepare"):
                batch = self.batch_of(
                    frames if self.config.lidar else [replace(f, depth=None) for f in frames]
                )
            with report.time(f"{self.name}.network"):
                detections = self.detect(batch)
                if batch.depth is not None:
                    pairs = zip(detections, batch.depth, strict=True)
                    detections = [one.borne_out(depth) for one, depth in pairs]
            with report.time(f"{self.name}.instances"):
                results = [
                    instances_of(
                        one, batch.original_sizes[n], batch.scales[n], self.pastes_probabilities
                    )
                    for n, one in enumerate(detections)
                ]
        for accelerator in filter(None, self.accelerators):
            for kind, text in accelerator.notes():
                report.warn(kind, text)
        return results

    def reset(self) -> None:
        """Forget the stream; single-frame models keep nothing of it."""

    def config_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return asdict(self.config)

    def check_tied(self, info: CheckpointInfo, path: str) -> None:
        """Make sure that the weights of a checkpoint were trained for this configuration.

        Raises:
            InputError: a tied setting differs.
        """
        own = json.loads(json.dumps(self.config_json()))
        trained = (self.earlier if info.model == self.name else {}) | info.config
        for name in sorted(self.tied & trained.keys()):
            if trained[name] != own[name]:
                raise InputError(
                    f"weights for {name} {trained[name]}, not {own[name]}",
                    path,
                    f"set {name} as it was in training",
                )

    @classmethod
    def from_config(cls, values: Mapping[str, Any], where: str = "") -> LearnedModel:
        """A model with random weights from `config_json`.

        Args:
            values: settings by name.
            where: who gave them, for errors.

        Raises:
            InputError: a name, type or range that this model does not have.
        """
        return cls(checked(cls.Config, values, where or f"settings of {cls.name}"))

    @classmethod
    def from_checkpoint(cls, path: str, device: str = "cpu", **settings: Any) -> LearnedModel:
        """A model with a checkpoint's configuration and weights, ready for inference.

        Args:
            path: of the checkpoint.
            device: where to put it.
            **settings: replace values of the configuration that no weight depends on.

        Raises:
            InputError: the checkpoint is missing, of another model, or does not fit.
        """
        info = read_info(path)
        if info.model != cls.name:
            raise InputError(f"a checkpoint of '{info.model}'", str(path), f"wanted: '{cls.name}'")
        empty = dict.fromkeys(cls.files & info.config.keys(), "")
        trained = {k: v for k, v in info.config.items() if k not in OF_THE_MACHINE}
        values = cls.earlier | trained | empty | settings
        model = cls.from_config(values, "" if settings else str(path))
        if not cls.runtimes and model.config.runtime not in ("auto", "torch"):
            given = model.config.runtime
            raise InputError(f"{cls.name} runs in torch alone", f"runtime {given}", "leave it out")
        model.check_tied(info, str(path))
        load_weights(path, model, cls.name)
        return model.to(device).eval()
