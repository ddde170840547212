"""EoRaS: object slots that carry an object's look through the frames of a video.

A crop around what is visible of an object goes through a small pyramid; its features are seen from
the front and, lifted by the camera's intrinsics, from above; slots take in both, frame by frame,
and two decoders draw the whole and the visible mask from them.
Fan et al.: Rethinking Amodal Video Segmentation from Learning Supervised Signals with
Object-centric Representation, ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from amodal_core.frame import Frame, Instances, Report, Tracks
from amodal_core.masks.mask_set import BoxMasks, RleMasks
from amodal_core.models.completing import CompletingConfig, CompletingModel, completed
from amodal_core.models.detections import Detections
from amodal_core.models.layers.batch import MEAN, STD, Batch
from amodal_core.models.layers.bev import BirdsEyeView, Published
from amodal_core.models.layers.clip_tracks import (
    ClipTracks,
    Crops,
    portions,
    tracks_in,
    tracks_of_clips,
)
from amodal_core.models.layers.crop_encoder import STRIDE, CropEncoder
from amodal_core.models.layers.crop_windows import (
    aligned,
    cut,
    cut_masks,
    enlarged,
    rescaled,
    whole_pixels,
)
from amodal_core.models.layers.object_slots import MaskDecoder, ObjectSlots, Positions
from amodal_core.models.learned import Clip
from amodal_core.models.object_stream import ObjectStream
from amodal_core.settings import Amount, Positive, settings_type

_ENCODED = 32  # crops that go through the encoder at once; more would fill small memories
# What each part of the setting `decoder` draws.
_DRAWN = {"fm": "amodal", "vm": "visible", "occ": "hidden"}
_T = TypeVar("_T", bound=Instances)


@settings_type
class EorasConfig(CompletingConfig):
    """Settings of EoRaS; the defaults are the published network's.

    Attributes:
        published: "movi" or "kitti" feeds the network as the published code did on that data set,
            which its weights need: see `layers.bev.image_places`; colours from 0 to 1, windows of
            whole pixels, masks drawn from corner to corner. "" is better for weights of one's own.
        backbone: resnet18, resnet34 or resnet50.
        weights: torchvision's weights for it, "" for random ones; only read to begin a training.
        crop: side of the crop in pixels, a multiple of 8.
        enlarge: side of the crop's window over that of the visible box.
        features: channels of the pyramid and of the view from above.
        cells: of the grid along x and z, a multiple of 4.
        pitch: degrees that a camera in a fixed place looks down.
        width: channels of slots and tokens.
        slots: of an object.
        positions: of slots and tokens: "sincos" or, learned, "random".
        decoder: what is drawn, and learnt: amodal (fm), visible (vm) and hidden (occ) masks.
        layers: of each attention decoder.
        heads: of attention.
        hidden: of the perceptrons.
        dropout: share.
        visible_weight: of the visible mask's loss.
        hidden_weight: of the hidden mask's loss.
        objects: of a clip that a training step looks at, drawn at random.
    """

    published: Published = ""
    backbone: Literal["resnet18", "resnet34", "resnet50"] = "resnet50"
    weights: str = ""
    crop: Annotated[int, Field(ge=STRIDE, multiple_of=STRIDE)] = 128
    enlarge: Annotated[float, Field(ge=1)] = 2.0
    features: Positive = 256
    cells: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    pitch: Annotated[float, Field(ge=-90, le=90)] = 0.0
    width: Positive = 512
    slots: Positive = 8
    positions: Positions = "sincos"
    decoder: Literal["fm", "fm+vm", "fm+occ", "fm+vm+occ"] = "fm+vm"
    layers: Positive = 2
    heads: Positive = 8
    hidden: Positive = 2048
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    visible_weight: Amount = 1.0
    hidden_weight: Amount = 1.0
    objects: Positive = 1


class Eoras(CompletingModel):
    """See the module's head.

    Without a calibration the slots look at the front view alone.

    Args:
        config: settings.

    Raises:
        InputError: weights that do not fit the backbone.
    """

    name = "eoras"
    Config = EorasConfig
    clip = Clip(12)
    tied = frozenset({"published"})
    config: EorasConfig

    def __init__(self, config: EorasConfig) -> None:
        super().__init__(config)
        side = config.crop // STRIDE
        self.encoder = CropEncoder(config.backbone, config.features, config.weights)
        self.above = BirdsEyeView(config.features, config.cells, config.pitch, config.published)
        self.front_tokens = nn.Linear(config.features, config.width)
        self.above_tokens = nn.Linear(config.features, config.width)
        self.slots = ObjectSlots(
            config.slots,
            config.width,
            layers=config.layers,
            heads=config.heads,
            hidden=config.hidden,
            dropout=config.dropout,
            front=side**2,
            above=(config.cells // 4) ** 2,
            positions=config.positions,
        )
        drawn = [_DRAWN[name] for name in config.decoder.split("+")]
        self.decoders = nn.ModuleDict({name: MaskDecoder(2 * config.width, side) for name in drawn})
        self.stream = ObjectStream()

    @property
    def optional(self) -> frozenset[str]:
        """Calibration for the view from above, depth for telling hidden from gone."""
        return (super().optional | {"calibration", "depth"}) - self.inputs

    def begin(self) -> None:
        """See `CompletingModel.begin`."""
        self.stream = ObjectStream()

    def reset(self) -> None:
        """Forget the stream's objects, here and in the detector."""
        super().reset()
        self.stream.reset()

    def tokens(
        self, batch: Batch, frames: torch.Tensor, windows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What crops show.

        Args:
            batch: images, and calibrations where there are any.
            frames: (A,) int64, the image of each crop; at least one.
            windows: (A, 4) float32 xyxy at the batch's scale.

        Returns:
            (A, P, width) tokens of the front view, (A, Q, width) of the view from above or None.
        """
        if not self.config.published:
            crops = cut(batch.images, frames, windows, self.config.crop)
        else:
            crops = rescaled(batch.images, batch.sizes, frames, windows, self.config.crop)
            mean, deviation = (crops.new_tensor(v)[:, None, None] for v in (MEAN, STD))
            crops = crops * deviation + mean
        features = self.encoder(crops)
        front = self.front_tokens(features.flatten(2).transpose(1, 2))
        if batch.calibrations is None:
            return front, None
        K = torch.from_numpy(np.stack([c.K for c in batch.calibrations])).float()
        K = K.to(features.device, non_blocking=True)[frames]
        sizes = torch.tensor(batch.original_sizes, device=features.device).float()[frames]
        lifted = self.above(features, K, sizes, batch.scales[frames], windows)
        return front, self.above_tokens(lifted.flatten(2).transpose(1, 2))

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Focal losses of what is drawn, over frames whose whole mask is known."""
        assert batch.targets is not None, "losses need targets"
        clip_tracks = self._learnt(batch)
        if not len(clip_tracks):
            nothing = torch.stack([p.sum() for p in self.parameters()]).sum() * 0.0
            return dict.fromkeys(self.decoders, nothing)
        crops = Crops.of(clip_tracks, self.device)
        windows = self._windows(crops.boxes, batch, crops.frames)
        read = self._read(crops, *self.tokens(batch, crops.where, windows))
        pairs = list(zip(crops.frames.tolist(), crops.rows.tolist(), strict=True))
        objects = batch.targets
        annotated = torch.stack([~objects[f].ignore[r] for f, r in pairs]).float()

        truths = {
            "amodal": torch.stack([objects[f].amodal[r] for f, r in pairs]),
            "visible": torch.stack([objects[f].visible[r] for f, r in pairs]),
        }
        truths["hidden"] = truths["amodal"] & ~truths["visible"]
        weights = {"visible": self.config.visible_weight, "hidden": self.config.hidden_weight}

        def loss(name: str) -> torch.Tensor:
            logits = self.decoders[name](read).float()
            wanted = cut_masks(truths[name], windows, logits.shape[-1])
            each = sigmoid_focal_loss(logits, wanted, alpha=-1, gamma=2).mean((1, 2))
            # The published code learns the visible mask where the whole one is unknown, too.
            every = bool(self.config.published) and name == "visible"
            frames = torch.ones_like(annotated) if every else annotated
            mean = (each * frames).sum() / frames.sum().clamp(min=1)
            return weights.get(name, 1.0) * mean

        return {name: loss(name) for name in self.decoders}

    def _learnt(self, batch: Batch) -> ClipTracks:
        """The objects of each clip that a step learns from."""
        clip_tracks, ignored = tracks_in(batch)
        learnt = [
            any(r >= 0 and not ignored[f][r] for f, r in zip(frames, rows, strict=True))
            for frames, rows in zip(clip_tracks.frames, clip_tracks.rows, strict=True)
        ]
        index: list[int] = []
        for clip in sorted(set(clip_tracks.clips.tolist())):
            mine = np.flatnonzero((clip_tracks.clips == clip) & learnt)
            order = torch.randperm(len(mine))[: self.config.objects]
            index += sorted(mine[order.numpy()].tolist())
        return clip_tracks.select(np.array(index, np.int64))

    def _read(self, crops: Crops, front: torch.Tensor, above: torch.Tensor | None) -> torch.Tensor:
        """(A, P, 2 width) what the decoders draw from, from the tokens of all crops of clips."""
        lifted = None if above is None else crops.spread(above)
        return crops.gathered(self.slots(crops.spread(front), lifted, crops.present))

    def detect(self, batch: Batch) -> list[Detections]:
        """Masks of the objects that the batch's targets name, clip by clip."""
        assert batch.targets is not None, "visible boxes must be given"
        crops = Crops.of(tracks_in(batch)[0], self.device)
        windows = self._windows(crops.boxes, batch, crops.frames)
        amodal = visible = windows.new_zeros((0, 1, 1))
        if len(windows):
            read = self._read(crops, *self.tokens(batch, crops.where, windows))
            amodal = visible = self.decoders["amodal"](read)
            if "visible" in self.decoders:
                visible = self.decoders["visible"](read)
        results = []
        for f, objects in enumerate(batch.targets):
            mine = np.flatnonzero(crops.frames == f)
            rows = torch.from_numpy(crops.rows[mine]).to(self.device)
            index = torch.from_numpy(mine).to(self.device)
            results.append(
                Detections(
                    windows[index],
                    windows.new_ones(len(mine)),
                    objects.labels[rows],
                    amodal[index],
                    visible[index],
                    objects.depths[rows],
                )
            )
        return results

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """The detector's objects of a stream's next frames, with whole masks from their memory.

        Objects that are hidden for up to 3 s are drawn where their motion takes them; their visible
        masks are empty.

        Raises:
            InputError: the model was made without a detector.
        """
        if not frames:
            return []
        report = report or Report()
        detections = self.detections(frames, report)
        with self.inferring():
            return [
                self._next(frame, one, report)
                for frame, one in zip(frames, detections, strict=True)
            ]

    def _next(self, frame: Frame, detections: Instances, report: Report) -> Instances:
        with report.time("eoras.track"):
            present = self.stream.follow(detections, frame, report)
        n = len(present.ids)
        if not n:
            return present.instances
        with report.time("eoras.network"):
            batch, where = self._batch([frame]), np.zeros(n, np.int64)
            boxes = torch.from_numpy(present.boxes).to(self.device) * _four(batch, where)
            windows = self._windows(boxes, batch, where)
            zeros = torch.zeros(n, dtype=torch.int64, device=self.device)
            front, above = self.tokens(batch, zeros, windows)
            slots = self.stream.recall(present.ids, self.slots.begin(n))
            slots, read = self.slots.step(slots, front, above)
            self.stream.keep(present.ids, slots)
            amodal = self.decoders["amodal"](read)
        with report.time("eoras.instances"):
            return self._drawn(present.instances, amodal, windows / _four(batch, where), report)

    def complete(
        self,
        frames: Sequence[Frame],
        visible_tracks: Sequence[Tracks],
        report: Report | None = None,
    ) -> list[Tracks]:
        """Whole masks of objects whose visible masks are given, each from its whole clip.

        Args:
            frames: of one clip, in the order of time.
            visible_tracks: of each frame its objects; identities join them over the frames. Only
                visible masks and boxes are used; amodal masks are replaced.
            report: takes timings and warnings.

        Returns:
            The objects in the order given. One that shows nothing in the whole clip is left out;
            one of which nothing is drawn has its visible mask.
        """
        report = report or Report()
        tracks = [
            replace(one.numpy(), amodal=one.visible.rle(), ignore=None) for one in visible_tracks
        ]
        boxes = [np.asarray(one.visible_boxes, np.float32) for one in tracks]
        clip_tracks = tracks_of_clips(
            [np.asarray(one.ids) for one in tracks], boxes, [range(len(tracks))]
        )
        with self.inferring(), report.time("eoras.network"):
            done = [self._completed(frames, portion) for portion in portions(clip_tracks)]
        results = []
        with report.time("eoras.instances"):
            for f, one in enumerate(tracks):
                mine = [
                    (c.rows[c.frames == f], w[c.where == f], m[c.where == f]) for c, w, m in done
                ]
                rows = np.concatenate([np.zeros(0, np.int64), *(r for r, _, _ in mine)])
                if not len(rows):
                    results.append(one[rows])
                    continue
                order = np.argsort(rows)
                index = torch.from_numpy(order).to(self.device)
                windows = torch.cat([w for _, w, _ in mine])[index]
                masks = torch.cat([m for _, _, m in mine])[index]
                results.append(self._drawn(one[rows[order]], masks, windows, report))
        return results

    def _completed(
        self, frames: Sequence[Frame], clip_tracks: ClipTracks
    ) -> tuple[Crops, torch.Tensor, torch.Tensor]:
        """Some objects of a clip: their crops, windows in the frames' own pixels, and logits."""
        crops = Crops.of(clip_tracks, self.device)
        flat = any(f.calibration is None for f in frames)  # the clip may read them when asked
        order = np.argsort(crops.frames, kind="stable")  # so that images are prepared few times
        windows, front, above = [], [], []
        for begin in range(0, len(order), _ENCODED):
            index = order[begin : begin + _ENCODED]
            used, where = np.unique(crops.frames[index], return_inverse=True)
            few = [frames[f] for f in used.tolist()]
            batch = self._batch([replace(f, calibration=None) for f in few] if flat else few)
            scale = _four(batch, where)
            window = self._windows(crops.boxes[torch.from_numpy(index)] * scale, batch, where)
            tokens = self.tokens(batch, torch.from_numpy(where).to(self.device), window)
            windows.append(window / scale)
            front.append(tokens[0])
            above += [] if tokens[1] is None else [tokens[1]]
        back = torch.from_numpy(np.argsort(order)).to(self.device)
        lifted = torch.cat(above)[back] if above else None
        amodal = self.decoders["amodal"](self._read(crops, torch.cat(front)[back], lifted))
        return crops, torch.cat(windows)[back], amodal

    def _batch(self, frames: Sequence[Frame]) -> Batch:
        return self.batch_of([replace(f, depth=None, points=None) for f in frames])

    def _windows(self, boxes: torch.Tensor, batch: Batch, frames: np.ndarray) -> torch.Tensor:
        """Windows around boxes (A, 4), both at the batch's scale; (A,) the frame of each."""
        sizes = np.array(batch.sizes, np.float32).reshape(-1, 2)[frames][:, ::-1]
        limits = torch.from_numpy(np.ascontiguousarray(sizes)).to(boxes.device)
        windows_of = whole_pixels if self.config.published else enlarged
        return windows_of(boxes, limits, self.config.enlarge)

    def _drawn(
        self, instances: _T, logits: torch.Tensor, windows: torch.Tensor, report: Report
    ) -> _T:
        """Objects with the whole masks that were drawn; one of which nothing was keeps what it had.

        Args:
            instances: N, on the host.
            logits: (N, S, S) in the windows.
            windows: (N, 4) xyxy in the frame's own pixels.
            report: takes a warning.
        """
        n = len(instances)
        if self.config.published:
            grids = aligned(windows, logits.shape[-1])
            amodal = BoxMasks(instances.size, logits.sigmoid() - 0.5, grids).rle()
            # In large windows the outer cells of a grid reach beyond the outer pixels.
            amodal &= RleMasks.from_boxes(windows.double().cpu().numpy(), instances.size)
        else:
            amodal = BoxMasks(instances.size, logits, windows).rle()
        blank = amodal.areas() == 0
        if blank.any():
            text = "eoras: nothing was drawn of an object, the mask given is kept"
            report.warn("empty mask", text)
            both = RleMasks.concatenated([amodal, instances.amodal.rle()])
            amodal = both[np.arange(n) + n * blank]
        return completed(instances, amodal)


def _four(batch: Batch, frames: np.ndarray) -> torch.Tensor:
    """(A, 4) scale of boxes from the frames' own pixels to the batch's."""
    index = torch.from_numpy(frames).to(batch.scales.device)
    return batch.scales[index].flip(1).repeat(1, 2)
