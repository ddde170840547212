"""What all trainable models share: frames in, instances out, weights from a checkpoint."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Instances, Report
from amodal_core.masks.mask_set import BoxMasks
from amodal_core.masks.occluders import MIN_SHARE
from amodal_core.masks.paste import of_probabilities
from amodal_core.models.checkpoint import CheckpointInfo, load_weights, read_info
from amodal_core.models.layers.batch import Batch, Targets, make_batch
from amodal_core.models.layers.crossing import Crossing
from amodal_core.models.layers.instance_depth import instance_depths, share_seen_through
from amodal_core.models.layers.resizing import Resizing
from amodal_core.runtime.accelerator import Accelerator
from amodal_core.runtime.engines import Runtime
from amodal_core.runtime.parity import Precision
from amodal_core.settings import Count, Positive, Share, checked, settings_type

ClassNames = Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass
class Detections:
    """What a model found in one image of a batch, at the batch's scale, on the model's device.

    Attributes:
        boxes: (N, 4) float32 amodal xyxy in pixels.
        scores: (N,) float32.
        labels: (N,) int64 from 0.
        amodal: (N, S, S) float logits in `boxes`.
        visible: (N, S, S) float logits in `boxes`; kept at or below the amodal ones, whatever the
            model drew, so that masks pasted from them are within the amodal ones pixel for pixel.
        depths: (N,) float32 metres, 0 where unknown.
        embeddings: (N, D) float32 or None; of any length, as the model learnt to compare them.
        visible_boxes: (N, 4) float32 xyxy where the model finds them by themselves; None for those
            around the visible masks.
        boxes3d: (N, 7) float32 as in Instances, where the model finds them.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    amodal: torch.Tensor
    visible: torch.Tensor
    depths: torch.Tensor
    embeddings: torch.Tensor | None = None
    visible_boxes: torch.Tensor | None = None
    boxes3d: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.visible = torch.minimum(self.visible, self.amodal)

    @classmethod
    def measured(
        cls,
        channels: torch.Tensor | None,
        boxes: torch.Tensor,
        scores: torch.Tensor,
        labels: torch.Tensor,
        amodal: torch.Tensor,
        visible: torch.Tensor,
        **more: torch.Tensor,
    ) -> Detections:
        """Detections with the depth of the LiDAR that falls on their visible masks.

        Args:
            channels: (2, H, W) depth channels of the image, None where there are none.
            boxes: as the attributes, and so are the others.
            scores: see there.
            labels: see there.
            amodal: see there.
            visible: see there.
            **more: `embeddings`, `visible_boxes`.
        """
        unknown = boxes.new_zeros(len(boxes), dtype=torch.float32)
        result = cls(boxes, scores, labels, amodal, visible, unknown, **more)
        result.depths = instance_depths(channels, boxes, result.visible)
        return result


@settings_type
class LearnedConfig:
    """What every trainable model can be told; models extend it.

    Attributes:
        classes: class names.
        lidar: take depth as further input channels.
        short_side: pixels of the image's shorter side at the model's input; 0 keeps the size.
        long_side: most pixels of the longer side; 0 for no limit.
        resize: how images come to that size: "torch" as floats, "pil" or "opencv" as bytes, which
            published weights need to the last digit; see `layers.resizing`.
        most_pixels: of the image at the model's input, whatever its shape; 0 for no limit.
        min_score: detections below it are dropped.
        max_instances: of the best-scored in an image.
        runtime: what runs a checkpoint's network: "auto" is the fastest of those that are installed
            that gives what torch gives, as seen on the first frame.
        precision: of a network's arithmetic outside of torch; "bfloat16" is OpenVINO's alone.
    """

    classes: ClassNames
    lidar: bool = True
    short_side: Count = 0
    long_side: Count = 0
    resize: Resizing = "torch"
    most_pixels: Count = 0
    min_score: Share = 0.05
    max_instances: Positive = 100
    runtime: Runtime = "auto"
    precision: Precision = "float32"


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
    earlier: ClassVar[dict[str, Any]] = {}
    runtimes: ClassVar[bool] = False

    def __init__(self, config: LearnedConfig) -> None:
        super().__init__()
        self.config = config
        self.crossing = Crossing()
        # Of a checkpoint's network, where it may run elsewhere than in torch.
        self.accelerator: Accelerator | None = None

    @property
    def camera_view(self) -> bool:
        """Whether it sees those points alone that the image shows."""
        return bool(getattr(self.config, "camera_view", True))

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
                    detections = [
                        _weighed(f, d) for f, d in zip(detections, batch.depth, strict=True)
                    ]
            with report.time(f"{self.name}.instances"):
                results = [
                    instances_of(
                        one, batch.original_sizes[n], batch.scales[n], self.pastes_probabilities
                    )
                    for n, one in enumerate(detections)
                ]
        for kind, text in self.accelerator.notes() if self.accelerator is not None else ():
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
        values = cls.earlier | info.config | empty | settings
        model = cls.from_config(values, "" if settings else str(path))
        if not cls.runtimes and model.config.runtime not in ("auto", "torch"):
            given = model.config.runtime
            raise InputError(f"{cls.name} runs in torch alone", f"runtime {given}", "leave it out")
        model.check_tied(info, str(path))
        load_weights(path, model, cls.name)
        return model.to(device).eval()


def _weighed(detections: Detections, depth: torch.Tensor) -> Detections:
    """Objects with scores that the depth channels (2, H, W) of their image bear out."""
    depth = depth.to(detections.boxes.device).float()
    through = share_seen_through(
        depth, detections.boxes.float(), detections.visible, detections.depths.float()
    )
    return replace(detections, scores=detections.scores * (1 - through))


def instances_of(
    detections: Detections,
    size: tuple[int, int],
    scale: torch.Tensor,
    probabilities: bool = False,
) -> Instances:
    """Instances at the frame's own size, on the model's device.

    Who hides whom follows from depths and from the masks: j hides i where j is nearer and its
    visible mask covers hidden cells of i.

    Args:
        detections: at the batch's scale.
        size: (height, width) of the frame.
        scale: (2,) y and x scale from frame to batch.
        probabilities: masks are pasted by `masks.paste.of_probabilities`.
    """
    ratio = scale.flip(0).repeat(2).to(detections.boxes)
    limit = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32, device=ratio.device)

    def own_size(boxes: torch.Tensor) -> torch.Tensor:
        return torch.minimum((boxes.float() / ratio).clamp(min=0), limit)

    boxes = own_size(detections.boxes)
    amodal = detections.amodal.float()
    visible = detections.visible.float()
    covered, shown = amodal > 0, visible > 0
    visible_boxes = _boxes_of(shown, boxes)
    if detections.visible_boxes is not None:
        anything = shown.flatten(1).any(1)[:, None]
        visible_boxes = torch.where(anything, own_size(detections.visible_boxes), 0.0)

    def pasted(logits: torch.Tensor) -> BoxMasks:
        return BoxMasks(
            size, *(of_probabilities(logits, boxes) if probabilities else (logits, boxes))
        )

    area = covered.flatten(1).sum(1)
    rates = 1 - shown.flatten(1).sum(1) / area.clamp(min=1)
    return Instances(
        size=size,
        amodal_boxes=boxes,
        visible_boxes=visible_boxes,
        scores=detections.scores.float(),
        class_ids=detections.labels,
        amodal=pasted(amodal),
        visible=pasted(visible),
        occlusion_rates=torch.where(area > 0, rates, 0.0),
        depths=detections.depths.float(),
        occluders=occluders_of(boxes, covered & ~shown, shown, detections.depths),
        embeddings=detections.embeddings,
        boxes3d=None if detections.boxes3d is None else detections.boxes3d.float(),
    )


def _boxes_of(cells: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(N, 4) boxes around the set cells of (N, S, S) grids in boxes; zeros where none is set."""
    side = cells.shape[-1]
    places = torch.arange(side, device=cells.device)
    result = []
    for axis in (1, 2):  # over rows: columns remain; over columns: rows remain
        line = cells.any(axis)
        low = torch.where(line, places, side).amin(1)
        high = torch.where(line, places, -1).amax(1) + 1
        k = axis - 1
        extent = (boxes[:, 2 + k] - boxes[:, k]) / side
        result.append((boxes[:, k] + low * extent, boxes[:, k] + high * extent))
    (x0, x1), (y0, y1) = result
    tight = torch.stack([x0, y0, x1, y1], 1)
    return torch.where(cells.flatten(1).any(1)[:, None], tight, 0.0)


def occluders_of(
    boxes: torch.Tensor, hidden: torch.Tensor, visible: torch.Tensor, depths: torch.Tensor
) -> torch.Tensor:
    """(N, N) bool, [i, j] where j is nearer than i and shows where i is hidden.

    Hidden cells of i are looked up in the visible grid of j at their place in the image.

    Args:
        boxes: (N, 4) xyxy.
        hidden: (N, S, S) bool, amodal without visible.
        visible: (N, S, S) bool.
        depths: (N,) metres, 0 where unknown.
    """
    n, side = len(boxes), hidden.shape[-1]
    if n == 0:
        return torch.zeros((0, 0), dtype=torch.bool, device=boxes.device)
    has_depth = depths > 0
    nearer = (depths[None] < depths[:, None]) & has_depth[None] & has_depth[:, None]
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    nearer &= (high > low).all(-1) & hidden.flatten(1).any(1)[:, None]
    # Few pairs are left in a street; looking up the cells of all would take most of the time.
    i, j = torch.nonzero(nearer, as_tuple=True)
    centres = (torch.arange(side, device=boxes.device) + 0.5) / side
    x = boxes[:, :1] + centres * (boxes[:, 2:3] - boxes[:, :1])  # (N, S)
    y = boxes[:, 1:2] + centres * (boxes[:, 3:4] - boxes[:, 1:2])
    width = (boxes[:, 2] - boxes[:, 0]).clamp(min=1e-6)
    height = (boxes[:, 3] - boxes[:, 1]).clamp(min=1e-6)
    column = torch.floor((x[i] - boxes[j, None, 0]) / width[j, None] * side)  # (P, S)
    row = torch.floor((y[i] - boxes[j, None, 1]) / height[j, None] * side)
    inside = ((row >= 0) & (row < side))[:, :, None] & ((column >= 0) & (column < side))[:, None]
    column, row = column.clamp(0, side - 1).long(), row.clamp(0, side - 1).long()
    covered = visible[j[:, None, None], row[:, :, None], column[:, None]]  # (P, S, S)
    shared = (covered & inside & hidden[i]).flatten(1).sum(1)
    result = torch.zeros_like(nearer)
    result[i, j] = shared >= MIN_SHARE * side * side
    return result
