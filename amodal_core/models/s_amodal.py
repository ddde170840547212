"""S-AModal: SAM, asked by points on visible masks, draws whole ones; points carry them on.

A detector gives visible masks. The image is encoded once; every visible mask gives a point prompt,
and all are decoded together. An object that is seen no more keeps its last whole mask, moved along
with tracked points, for as long as it may be hidden.

Breitenstein, Juenger, Baer, Fingscheidt: Foundation Models for Amodal Video Instance Segmentation
in Automated Driving, ECCV Workshops 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Instances, Report, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models.completing import CompletingConfig, CompletingModel, completed
from amodal_core.models.layers.batch import Batch, Targets, bytes_of
from amodal_core.models.layers.prompts import Crop, crop_of, prompt_points
from amodal_core.models.layers.sam import MOBILE, SIZES, make_sam
from amodal_core.models.layers.sam_adapter import (
    BlockAdapter,
    PromptGenerator,
    decoded,
    encode,
    filled,
    in_image,
    in_square,
    resized,
)
from amodal_core.settings import Count, Positive, settings_type
from amodal_core.tracking.hidden_objects import HiddenObjects
from amodal_core.tracking.points import PointTracker, point_tracker

_FOCAL, _ALPHA, _GAMMA = 20.0, 0.8, 2
_ENCODED = 4  # images that go through the encoder at once; more would fill small memories
_AT_ONCE = 64  # prompts that are decoded together: bounds the memory in crowded scenes
_T = TypeVar("_T", bound=Instances)


@settings_type
class SAModalConfig(CompletingConfig):
    """Settings of S-AModal.

    Attributes:
        size: "vit_b", "vit_l", "vit_h", "mobile" (MobileSAM, for CPUs), or "tiny" (our own, smaller
            still, of which no weights are published).
        image_size: side of SAM's square input in pixels, 0 for the size's own.
        resize: how images come into that square, with `short_side` and `long_side` unset; "pil" is
            the published way, which points and masks then go, too.
        encoder: "samadpt" (SAM-Adapter), "adapt" (Medical SAM Adapter), "normal" (nothing is added
            to it), or "auto": "samadpt", but "normal" for "mobile", which has no other.
        token_order: of the patches in "samadpt": "places", or "published", what weights need that
            S-AModal's code trained; see `layers.sam_adapter`.
        mid_dim: four times the width of the bottlenecks of "adapt"; 0 for the tokens' width.
        weights: SAM's, a file or folder in transformers' or Meta's layout, for "mobile" MobileSAM's
            file or the folder of its two graphs; "" for random ones. Only read when a model is
            made for training.
        freeze: train what was added to the encoder and the mask decoder alone; False from random
            weights.
        prompt: "random", "maxdis", "maxent" or "saliency" points (see `layers.prompts`), or "none":
            SAM is not told which object is meant.
        num_points: points an object, the further ones random.
        erode: pixels by which a visible mask is eroded before a point is drawn in it, 0 for none.
        detector_score: the score is the detector's times the IoU that SAM expects, else the IoU
            alone, as in the published evaluation.
        union: the visible mask belongs to the whole one, whatever SAM says.
        seed: of the prompts in inference.
        objects: of an image that training learns from, drawn at random where there are more.
        points: a CoTracker on this machine, "" for Lucas-Kanade; see `tracking.points`.
        points_weights: its weights, "" for those in torch's hub cache.
        seconds: for which an object that is not seen is carried on, 0 for not at all, inf for
            as long as the stream goes on, as published.
    """

    size: Literal["vit_b", "vit_l", "vit_h", "mobile", "tiny"] = "vit_b"
    image_size: Count = 0
    encoder: Literal["normal", "adapt", "samadpt", "auto"] = "auto"
    token_order: Literal["places", "published"] = "places"
    mid_dim: Count = 0
    weights: str = ""
    freeze: bool = True
    prompt: Literal["none", "random", "maxdis", "maxent", "saliency"] = "random"
    num_points: Positive = 1
    erode: Count = 7
    detector_score: bool = True
    union: bool = True
    seed: Count = 0
    objects: Positive = 32
    points: str = ""
    points_weights: str = ""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=True)] = 3.0


class SAModal(CompletingModel):
    """See the module's head.

    Args:
        config: settings.

    Raises:
        InputError: transformers is missing, a side that does not divide, weights that do not fit,
            or an encoder that cannot be changed.
    """

    name = "s_amodal"
    Config = SAModalConfig
    config: SAModalConfig
    tied = frozenset({"token_order"})

    def __init__(self, config: SAModalConfig) -> None:
        super().__init__(config)
        encoder = _encoder(config)
        self.sam = make_sam(config.size, config.image_size, config.weights)
        shape = SIZES[config.size]
        self.side: int = self.sam.vision_encoder.image_size
        self.generator = (
            PromptGenerator(
                shape.width, shape.depth, shape.patch, config.token_order == "published"
            )
            if encoder == "samadpt"
            else None
        )
        self.adapters = (
            nn.ModuleList(BlockAdapter(shape.width, config.mid_dim) for _ in range(shape.depth))
            if encoder == "adapt"
            else None
        )
        self._freeze()
        self.sam.mask_decoder.iou_prediction_head.register_forward_pre_hook(_detached)
        self._memory: HiddenObjects | None = None

    def _freeze(self) -> None:
        """Leave alone what is not trained: most of SAM, and always what one point never reaches."""
        if self.config.freeze:
            self.sam.vision_encoder.requires_grad_(False)
            self.sam.prompt_encoder.requires_grad_(False)
        prompts, decoder = self.sam.prompt_encoder, self.sam.mask_decoder
        idle = [self.sam.shared_image_embedding, prompts.mask_embed]
        idle += [e for k, e in enumerate(prompts.point_embed) if k != 1]
        if self.config.prompt == "none":
            idle.append(prompts.point_embed[1])
        # Only the first of SAM's four masks is asked for.
        idle += decoder.output_hypernetworks_mlps[1:]
        for module in idle:
            module.requires_grad_(False)

    def embed(self, images: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
        """(B, C, h, w) embeddings of a batch's images in SAM's square.

        Where the encoder allows it ("mobile") only of that part of the square that the images
        fill: of a wide image a third, in a third of the time.

        Args:
            images: (B, 3, H, W) as `Batch.images`.
            sizes: (height, width) of each without padding.
        """
        squares = [
            resized(image[:, :h, :w], self.side, self.config.resize)
            for image, (h, w) in zip(images, sizes, strict=True)
        ]
        pictures = torch.stack(squares)
        if self.config.size == MOBILE:
            height, width = filled(sizes, self.side, SIZES[MOBILE].patch)
            pictures = pictures[..., :height, :width]
        return encode(self.sam.vision_encoder, pictures, self.generator, self.adapters)

    def ask(
        self, embedding: torch.Tensor, points: torch.Tensor, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What SAM draws for each prompt.

        Args:
            embedding: (1, C, h, w) of one image.
            points: (N, K, 2) float32 x, y in pixels of the image.
            size: (height, width) of the image in which points are given and masks wanted.

        Returns:
            (N, H, W) float32 logits at that size, and (N,) float32 expected IoU.
        """
        how = self.config.resize
        placed = in_square(points, size, self.side, how)[None]
        # -1 is SAM's label of what is no point.
        label = -1 if self.config.prompt == "none" else 1
        labels = torch.full(placed.shape[:3], label, device=points.device)
        low, scores = decoded(self.sam, embedding, placed, labels)
        return in_image(low, size, self.side, how), scores

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """20 focal + dice of the masks at the batch's size, and the squared error of the score.

        The focal term is that of the *mean* cross entropy b of a mask, 0.8 (1 - exp(-b))^2 b. The
        score's error reaches SAM's IoU head alone, so that masks are learnt as published.
        """
        assert batch.targets is not None, "losses need targets"
        embeddings = self.embed(batch.images, batch.sizes)
        # Chance is torch's, which training seeds at each step.
        draw = np.random.default_rng(int(torch.randint(2**62, ())))
        focal, dice, score, count = [], [], [], 0
        for n, (targets, size) in enumerate(zip(batch.targets, batch.sizes, strict=True)):
            wanted = self._learnt(targets, size, draw)
            points = self._points_of(wanted, batch.images[n], size, draw)
            logits, expected = self.ask(embeddings[n : n + 1], points, size)
            amodal = wanted.amodal[:, : size[0], : size[1]].float()
            if not len(wanted):  # one prompt was asked for nothing, to keep the graph the same
                amodal = torch.zeros_like(logits)
            weight = float(len(wanted) > 0)
            count += len(wanted)
            entropy = F.binary_cross_entropy_with_logits(logits, amodal, reduction="none")
            entropy = entropy.mean((1, 2))
            focal.append(weight * _ALPHA * (1 - torch.exp(-entropy)) ** _GAMMA * entropy)
            drawn = logits.sigmoid()
            shared, both = (drawn * amodal).sum((1, 2)), (drawn + amodal).sum((1, 2))
            dice.append(weight * (1 - (2 * shared + 1) / (both + 1)))
            score.append(weight * (expected - _iou(logits.detach() > 0, amodal > 0)) ** 2)
        count = max(count, 1)
        return {
            "focal": _FOCAL * torch.cat(focal).sum() / count,
            "dice": torch.cat(dice).sum() / count,
            "score": torch.cat(score).sum() / count,
        }

    def _learnt(
        self, targets: Targets, size: tuple[int, int], draw: np.random.Generator
    ) -> Targets:
        """The objects of an image that are learnt from."""
        learnable = targets.amodal[:, : size[0], : size[1]].flatten(1).any(1) & ~targets.ignore
        index = torch.nonzero(learnable)[:, 0]
        if len(index) > self.config.objects:
            chosen = np.sort(draw.permutation(len(index))[: self.config.objects])
            index = index[torch.as_tensor(chosen, device=index.device)]
        return targets.select(index)

    def _points_of(
        self,
        targets: Targets,
        image: torch.Tensor,
        size: tuple[int, int],
        draw: np.random.Generator,
    ) -> torch.Tensor:
        """(N, K, 2) prompts of objects, on amodal masks where nothing is visible; one of none."""
        if not len(targets):
            return torch.zeros((1, self.config.num_points, 2), device=image.device)
        visible = targets.visible[:, : size[0], : size[1]]
        shows = visible.flatten(1).any(1)[:, None, None]
        masks = torch.where(shows, visible, targets.amodal[:, : size[0], : size[1]]).cpu().numpy()
        picture = bytes_of(image[:, : size[0], : size[1]])
        points = self._prompts([crop_of(m) for m in masks], picture, draw)
        return torch.from_numpy(points).to(image.device)

    def _prompts(
        self, masks: Sequence[Crop], image: np.ndarray, draw: np.random.Generator
    ) -> np.ndarray:
        """(N, K, 2) float32; zeros, which SAM does not see, without prompts."""
        config = self.config
        if config.prompt == "none":
            return np.zeros((len(masks), config.num_points, 2), np.float32)
        return prompt_points(
            config.prompt, masks, image, draw, erode=config.erode, count=config.num_points
        )

    def draw(
        self, frames: Sequence[Frame], instances: Sequence[_T], report: Report | None = None
    ) -> list[_T]:
        """Whole masks for visible ones, frame by frame and without any memory.

        Args:
            frames: with images.
            instances: of each frame; amodal masks do not count.
            report: receives timings.

        Returns:
            The same objects on the host, scored as `detector_score` says; those without a visible
            pixel have nothing.
        """
        report = report or Report()
        results = []
        with self.inferring():
            for begin in range(0, len(frames), _ENCODED):
                few = frames[begin : begin + _ENCODED]
                with report.time(f"{self.name}.encode"):
                    batch = self.batch_of([Frame(f.stamp, image=f.image) for f in few])
                    embeddings = self.embed(batch.images, batch.sizes)
                with report.time(f"{self.name}.masks"):
                    results += [
                        self._drawn(embeddings[n : n + 1], frame, one.numpy())
                        for n, (frame, one) in enumerate(
                            zip(few, instances[begin : begin + _ENCODED], strict=True)
                        )
                    ]
        return results

    def _drawn(self, embedding: torch.Tensor, frame: Frame, instances: _T) -> _T:
        assert frame.image is not None
        visible = instances.visible.rle()
        some = np.flatnonzero(visible.areas() > 0)
        crops, offsets = visible[some].crops()
        masks = [(c, (int(x), int(y))) for c, (x, y) in zip(crops, offsets, strict=True)]
        draw = np.random.default_rng([self.config.seed, frame.stamp])
        points = torch.from_numpy(self._prompts(masks, frame.image, draw)).to(self.device)
        scores = np.zeros(len(instances), np.float32)
        drawn = [RleMasks.empty(instances.size)]
        for few, place in zip(
            points.split(_AT_ONCE),
            np.split(some, range(_AT_ONCE, len(some), _AT_ONCE)),
            strict=True,
        ):
            if len(few):
                logits, expected = self.ask(embedding, few, instances.size)
                drawn.append(RleMasks.from_dense((logits > 0).cpu().numpy()))
                scores[place] = expected.clamp(0, 1).cpu().numpy()
        places = np.full(len(instances), -1)
        places[some] = np.arange(len(some))
        amodal = RleMasks.concatenated([*drawn, RleMasks.empty(instances.size, 1)])[places]
        if self.config.union:
            amodal = amodal | visible
        if self.config.detector_score:
            scores *= np.asarray(instances.scores, np.float32)
        return replace(completed(instances, amodal), scores=scores)

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """The detector's instances with whole masks, and those that are hidden but remembered.

        Frames are successive ones of a stream; `tracking.hidden_objects` tells what is remembered.

        Raises:
            InputError: the model has no detector.
        """
        if not frames:
            return []
        report = report or Report()
        done = self.draw(frames, self.detections(frames, report), report)
        kept = [one[one.scores >= self.config.min_score] for one in done]
        with report.time(f"{self.name}.carry"):
            return [
                self.memory.add_to_detections(frame, one)
                for frame, one in zip(frames, kept, strict=True)
            ]

    def complete(
        self,
        frames: Sequence[Frame],
        visible_tracks: Sequence[Tracks],
        report: Report | None = None,
    ) -> list[Tracks]:
        """Whole masks and scores of what shows, then what is hidden and carried on, `coasted`."""
        report = report or Report()
        tracks = [replace(one.numpy(), ignore=None) for one in visible_tracks]
        done = self.draw(frames, [one[one.visible.rle().areas() > 0] for one in tracks], report)
        memory = HiddenObjects(self.points, self.config.seconds)
        with report.time(f"{self.name}.carry"):
            return [
                memory.add_to_tracks(frame, one) for frame, one in zip(frames, done, strict=True)
            ]

    @cached_property
    def points(self) -> PointTracker:
        """Follows points through images.

        Raises:
            InputError: there is no such CoTracker.
        """
        config = self.config
        return point_tracker(config.points, str(self.device), config.points_weights)

    @property
    def memory(self) -> HiddenObjects:
        """What is remembered of the stream."""
        if self._memory is None:
            self._memory = HiddenObjects(self.points, self.config.seconds)
        return self._memory

    def begin(self) -> None:
        """See `CompletingModel.begin`."""
        self._memory = None

    def reset(self) -> None:
        """Forget the stream, here and in the detector."""
        super().reset()
        if self._memory is not None:
            self._memory.reset()


def _encoder(config: SAModalConfig) -> str:
    """What the encoder is to be, said or not."""
    if config.encoder == "auto":
        return "normal" if config.size == MOBILE else "samadpt"
    if config.size == MOBILE and config.encoder != "normal":
        raise InputError(
            f"size {MOBILE} has no encoder {config.encoder}", "setting encoder", "give normal"
        )
    return config.encoder


def _detached(_: nn.Module, values: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Keeps the score's error from the weights that draw masks."""
    return tuple(v.detach() for v in values)


def _iou(drawn: torch.Tensor, amodal: torch.Tensor) -> torch.Tensor:
    """(N,) float32 of (N, H, W) bool masks."""
    shared, either = (drawn & amodal).sum((1, 2)), (drawn | amodal).sum((1, 2))
    return shared.float() / either.clamp(min=1)
