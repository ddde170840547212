"""What trainable models see: images, depth and targets of several frames as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from amodal_core.frame import Calibration, Frame, Tracks
from amodal_core.models.layers.inputs import (
    DEPTH_CHANNELS,
    LOG_FAR,
    MEAN,
    STD,
    STRIDE,
    TALLEST,
    camera_of,
    checked_depth,
    enter_depth,
    image_of,
    normalise,
)
from amodal_core.models.layers.resizing import Resizing, input_size, resized_bytes

_Objects = TypeVar("_Objects", bound="Objects")


@dataclass
class Objects:
    """The truth of one image without its masks.

    Attributes:
        boxes: (N, 4) float32 amodal xyxy in pixels.
        visible_boxes: (N, 4) float32, zeros where nothing is visible.
        labels: (N,) int64 class ids from 0.
        depths: (N,) float32 metres, 0 where unknown.
        occluders: (N, N) bool, `occluders[i, j]` where j hides part of i.
        ids: (N,) int64 identities within the video.
        ignore: (N,) bool, neither object nor background.
        boxes3d: (N, 7) float32 as in `Instances.boxes3d`, NaN rows where unknown.
    """

    boxes: torch.Tensor
    visible_boxes: torch.Tensor
    labels: torch.Tensor
    depths: torch.Tensor
    occluders: torch.Tensor
    ids: torch.Tensor
    ignore: torch.Tensor
    boxes3d: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self: _Objects, index: torch.Tensor) -> _Objects:
        """The objects at `index` (positions or a mask)."""
        parts = {f.name: getattr(self, f.name)[index] for f in fields(self)}
        parts["occluders"] = parts["occluders"][:, index]
        return type(self)(**parts)


@dataclass
class Targets(Objects):
    """The truth of one image, at the batch's scale.

    Attributes:
        amodal: (N, H, W) bool.
        visible: (N, H, W) bool.
    """

    amodal: torch.Tensor
    visible: torch.Tensor

    def to(self, device: torch.device | str) -> Targets:
        """The same on another device."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return Targets(**moved)


@dataclass
class LidarBoxes:
    """The objects that a LiDAR detector found in one image, at the batch's scale, best first.

    Attributes:
        boxes: (N, 4) float32 xyxy around the projected 3D boxes, cut to the image.
        scores: (N,) float32.
        labels: (N,) int64 class ids of the image model.
        depths: (N,) float32 metres of the 3D boxes' centres along the optical axis.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    depths: torch.Tensor

    def to(self, device: torch.device | str) -> LidarBoxes:
        """The same on another device."""
        return LidarBoxes(*(getattr(self, f.name).to(device) for f in fields(self)))

    def best(self, score: float, count: int) -> LidarBoxes:
        """At most `count` of those with at least this score."""
        best = torch.nonzero(self.scores >= score)[:count, 0]
        return LidarBoxes(*(getattr(self, f.name)[best] for f in fields(self)))


@dataclass
class Batch:
    """B frames, padded to one size at the right and bottom.

    Attributes:
        images: (B, 3, H, W) float32, RGB less mean over deviation of ImageNet, 0 in padding.
        depth: (B, 2, H, W) float32 log depth / log 80 m and its validity, or None.
        sizes: (height, width) of each image at this scale, without padding.
        original_sizes: (height, width) of each frame.
        scales: (B, 2) float32, y and x scale from frame to batch.
        points: (N, 4) float32 x, y, z, intensity a frame, or None.
        calibrations: of the frames at their original size, or None.
        targets: one a frame, or None.
        videos: name of each frame's stream, "" for single images.
        indices: place of each frame in its stream.
        clip: frames of each clip; a clip's frames stand in a row.
        lidar_boxes: one a frame where a model with a LiDAR detector has looked, else None.
        heights: (B, 1, H, W) float32, how far above the camera returns lie, in `TALLEST` metres,
            within -1 and 1, 0 without a return or a calibration; None where depth is.
    """

    images: torch.Tensor
    depth: torch.Tensor | None
    sizes: list[tuple[int, int]]
    original_sizes: list[tuple[int, int]]
    scales: torch.Tensor
    points: list[torch.Tensor] | None = None
    calibrations: list[Calibration] | None = None
    targets: list[Targets] | None = None
    videos: list[str] | None = None
    indices: list[int] | None = None
    clip: int = 1
    lidar_boxes: list[LidarBoxes] | None = None
    heights: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            depth=None if self.depth is None else self.depth.to(device, non_blocking=True),
            heights=None if self.heights is None else self.heights.to(device, non_blocking=True),
            scales=self.scales.to(device, non_blocking=True),
            points=self.points and [p.to(device, non_blocking=True) for p in self.points],
            targets=self.targets and [t.to(device) for t in self.targets],
            lidar_boxes=self.lidar_boxes and [b.to(device) for b in self.lidar_boxes],
        )

    def frames_at(self, which: slice) -> Batch:
        """Some of the frames, as a batch of single ones.

        Args:
            which: positions, such as slice(0, None, 2) for the first frame of every pair.
        """

        def of(values: Any) -> Any:
            return None if values is None else values[which]

        parts = {f.name: of(getattr(self, f.name)) for f in fields(self) if f.name != "clip"}
        return Batch(**parts)

    def inputs(self, depth: bool) -> torch.Tensor:
        """(B, 3 or 5, H, W): the images, with depth channels where a model takes them.

        Where the batch has no depth the channels are zeros: nothing is known.
        """
        if not depth:
            return self.images
        channels = self.depth
        if channels is None:
            b, _, h, w = self.images.shape
            channels = self.images.new_zeros((b, DEPTH_CHANNELS, h, w))
        return torch.cat([self.images, channels], dim=1)


def bytes_of(image: torch.Tensor) -> np.ndarray:
    """(H, W, 3) uint8 RGB on the host of one of `Batch.images` (3, H, W)."""
    mean, deviation = (torch.tensor(v, device=image.device)[:, None, None] for v in (MEAN, STD))
    colours = (image * deviation + mean) * 255
    return colours.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def depth_channels(depth: torch.Tensor) -> torch.Tensor:
    """(2, H, W) log depth / log 80 m and validity from (H, W) metres with 0 for unknown."""
    valid = depth > 0
    log = torch.log(depth.clamp(min=0.1)) / LOG_FAR
    return torch.stack([torch.where(valid, log, 0.0), valid.to(depth.dtype)])


def heights_of(channels: torch.Tensor, camera: tuple[float, float]) -> torch.Tensor:
    """(H, W) as in `Batch.heights` from (2, H, W) depth channels and `inputs.camera_of`."""
    focal, row = camera
    if not focal > 0:
        return torch.zeros_like(channels[0])
    up = row - torch.arange(channels.shape[1], device=channels.device, dtype=torch.float32)
    metres = (up / focal)[:, None] * torch.exp(channels[0] * LOG_FAR)
    return (metres / TALLEST).clamp(-1, 1) * channels[1]


def targets_of(truth: Tracks) -> Targets:
    """Tensors of a frame's truth at its own size."""
    host = truth.numpy()
    masks = [torch.as_tensor(m.rle().dense()) for m in (host.amodal, host.visible)]
    return Targets(**objects_of(host), amodal=masks[0], visible=masks[1])


def objects_of(truth: Tracks) -> dict[str, torch.Tensor]:
    """The fields of `Objects` of a frame's truth at its own size."""
    host = truth.numpy()
    n = len(host)
    ignore = host.ignore if host.ignore is not None else np.zeros(n, bool)
    boxes3d = host.boxes3d if host.boxes3d is not None else np.full((n, 7), np.nan)
    return {
        "boxes": torch.as_tensor(np.asarray(host.amodal_boxes, np.float32)).reshape(n, 4),
        "visible_boxes": torch.as_tensor(np.asarray(host.visible_boxes, np.float32)).reshape(n, 4),
        "labels": torch.as_tensor(np.asarray(host.class_ids, np.int64)),
        "depths": torch.as_tensor(np.asarray(host.depths, np.float32)),
        "occluders": torch.as_tensor(np.asarray(host.occluders, bool)).reshape(n, n),
        "ids": torch.as_tensor(np.asarray(host.ids, np.int64)),
        "ignore": torch.as_tensor(np.asarray(ignore, bool)),
        "boxes3d": torch.as_tensor(np.asarray(boxes3d, np.float32)).reshape(n, 7),
    }


def resize_targets(targets: Targets, size: tuple[int, int]) -> Targets:
    """Targets on the host at another (height, width); masks by nearest pixel, boxes scaled.

    Objects whose amodal mask vanishes stay in the batch as ignored.
    """
    if tuple(targets.amodal.shape[1:]) == size:
        return targets

    height, width = targets.amodal.shape[1:]
    rows, columns = nearest_centres(height, size[0]), nearest_centres(width, size[1])

    def masks(value: torch.Tensor) -> torch.Tensor:
        resized = np.zeros((len(value), *size), bool)
        for before, after in zip(value.numpy(), resized, strict=True):
            # Most of a mask's image is empty: only its box is looked up.
            down = _range(rows, before.any(1))
            part = before[rows[down]]
            across = _range(columns, part.any(0))
            after[down, across] = part[:, columns[across]]
        return torch.from_numpy(resized)

    scale = torch.tensor([size[1] / width, size[0] / height] * 2)
    amodal = masks(targets.amodal)
    return replace(
        targets,
        boxes=targets.boxes * scale,
        visible_boxes=targets.visible_boxes * scale,
        amodal=amodal,
        visible=masks(targets.visible),
        ignore=targets.ignore | (pixels(amodal) == 0),
    )


def nearest_centres(before: int, after: int) -> np.ndarray:
    """(after,) int64, for each pixel of a line the one of `before` that its centre falls into."""
    return np.asarray((2 * np.arange(after) + 1) * before // (2 * after))


def _range(sources: np.ndarray, used: np.ndarray) -> slice:
    """Where in ascending `sources` the first to the last place of `used` (bool) are looked up."""
    places = np.flatnonzero(used)
    if not len(places):
        return slice(0, 0)
    first, end = np.searchsorted(sources, (places[0], places[-1] + 1)).tolist()
    return slice(first, end)


def pixels(masks: torch.Tensor) -> torch.Tensor:
    """(N,) int64 area of each of (N, H, W) bool masks; torch would add them up far slower."""
    if masks.device.type != "cpu":
        return masks.flatten(1).sum(1)
    return torch.tensor([np.count_nonzero(m) for m in masks.numpy()], dtype=torch.int64)


def make_batch(
    frames: Sequence[Frame],
    targets: Sequence[Targets] | None = None,
    *,
    short_side: int | None = None,
    long_side: int | None = None,
    resize: Resizing = "torch",
    most_pixels: int | None = None,
    device: torch.device | str = "cpu",
) -> Batch:
    """Resize (keeping the ratio), normalise, pad and stack frames.

    Args:
        frames: with images; depth, points and calibration are taken along where all have them.
        targets: one a frame at the frame's size, or None.
        short_side: pixels of the shorter side; None keeps the frames' own size.
        long_side: most pixels of the longer side.
        resize: how images are; see `layers.resizing`.
        most_pixels: of both sides' product.
        device: where the tensors go. Images travel as bytes and are normalised there.

    Raises:
        InputError: a frame without an image, or a depth image of another size.
    """
    device = torch.device(device)
    sizes = [
        input_size(
            image_of(frame).shape[:2], short_side or 0, long_side or 0, resize, most_pixels or 0
        )
        for frame in frames
    ]
    with_depth = all(f.depth is not None for f in frames)
    # Images travel as bytes; each is resized, normalised and put into the corner of its sheet.
    high, wide = (-(-max(lengths) // STRIDE) * STRIDE for lengths in zip(*sizes, strict=True))
    images = torch.empty((len(frames), 3, high, wide), device=device)
    channels = torch.zeros((len(frames), DEPTH_CHANNELS, high, wide), device=device)
    heights = torch.zeros((len(frames), 1, high, wide), device=device)
    for n, (frame, (h, w)) in enumerate(zip(frames, sizes, strict=True)):
        if device.type == "cpu" and image_of(frame).shape[:2] == (h, w):
            normalise(image_of(frame), images[n].numpy())
        else:
            mean, std = (torch.tensor(v, device=device).view(3, 1, 1) * 255 for v in (MEAN, STD))
            images[n] = 0
            images[n, :, :h, :w] = (_resized_image(frame, (h, w), resize, device) - mean) / std
        if not with_depth:
            continue
        camera = camera_of(frame.calibration, h / frame.size[0])
        if device.type == "cpu":
            arrays = channels[n].numpy(), heights[n, 0].numpy()
            enter_depth(checked_depth(frame), (h, w), camera, *arrays)
        else:
            channels[n, :, :h, :w] = depth_channels(_resized_depth(frame, (h, w), device))
            heights[n, 0] = heights_of(channels[n], camera)
    # Targets shrink with their images and are padded like them.
    prepared = None
    if targets is not None:
        prepared = []
        for one, (h, w) in zip(targets, sizes, strict=True):
            small = resize_targets(one, (h, w))
            pad = (0, wide - w, 0, high - h)
            prepared.append(
                replace(small, amodal=F.pad(small.amodal, pad), visible=F.pad(small.visible, pad))
            )
    # Scans and calibrations stay those of the frames.
    points = None
    if all(f.points is not None for f in frames):
        points = [_tensor(np.asarray(f.points, np.float32)) for f in frames]
    calibrations = [f.calibration for f in frames if f.calibration is not None]
    originals = [(f.image.shape[0], f.image.shape[1]) for f in frames if f.image is not None]
    scales = [(h / y, w / x) for (h, w), (y, x) in zip(sizes, originals, strict=True)]
    batch = Batch(
        images=images,
        depth=channels if with_depth else None,
        heights=heights if with_depth else None,
        sizes=sizes,
        original_sizes=originals,
        scales=torch.tensor(scales, dtype=torch.float32, device=device).reshape(-1, 2),
        points=points,
        calibrations=calibrations if len(calibrations) == len(frames) else None,
        targets=prepared,
    )
    return batch.to(device)


def _resized_image(
    frame: Frame, size: tuple[int, int], resize: Resizing, device: torch.device
) -> torch.Tensor:
    """(3, h, w) float32 of 0-255; smoothed where it shrinks, if not as OpenCV does it."""
    pixels = image_of(frame)
    if resize != "torch":
        pixels = resized_bytes(pixels, size, resize)
    height, width = pixels.shape[:2]
    image = _tensor(pixels).to(device, non_blocking=True).permute(2, 0, 1)[None].float()
    if size == (height, width):
        return image[0]
    shrinks = size[0] < height or size[1] < width
    return F.interpolate(image, size, mode="bilinear", antialias=shrinks)[0]


def _resized_depth(frame: Frame, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    return _nearest_depth(_tensor(checked_depth(frame)).to(device), size)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor on the array's memory; on a copy where a message only lends it."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _nearest_depth(depth: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Depth at another size: the nearest return of each cell, so that no return is lost."""
    if depth.shape == size:
        return depth
    if size[0] > depth.shape[0]:
        return F.interpolate(depth[None, None], size, mode="nearest-exact")[0, 0]
    near = torch.where(depth > 0, -depth, -torch.inf)
    pooled = -F.adaptive_max_pool2d(near[None], size)[0]
    return torch.where(torch.isinf(pooled), 0.0, pooled)
