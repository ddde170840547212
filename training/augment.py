"""Random changes of a sample that image, points, calibration, masks and boxes go through together.

What the LiDAR shows in the image is projected anew afterwards from the changed points with the
changed calibration, so that depth cannot drift from the picture.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch

from amodal_core.frame import Calibration, Frame
from amodal_core.models.layers.resizing import Resizing, resized_bytes

from .colours import recoloured
from .config import Augment
from .mask_crops import CroppedTargets

# An object of which a crop leaves less is neither learnt nor background.
_LEAST_SHARE, _LEAST_PIXELS = 0.1, 4
_LEAST_BLUR = 0.3  # pixels of deviation; a kernel below it is one pixel
_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])  # of the camera's x
_MIRROR_LIDAR = np.diag([1.0, -1.0, 1.0, 1.0])  # of the LiDAR's y


def augmented(
    frame: Frame, targets: CroppedTargets, options: Augment, draw: np.random.Generator
) -> tuple[Frame, CroppedTargets]:
    """A changed copy of a sample with an image.

    Args:
        frame: at its own size.
        targets: at the same size.
        options: what may happen; sizes are final pixels.
        draw: decides.
    """
    if draw.random() < options.flip:
        frame, targets = flipped(frame, targets)
    ratio = draw.uniform(*options.scale)
    height, width = frame.size
    if options.short_sides:
        ratio *= int(draw.choice(options.short_sides)) / min(height, width)
    if options.long_side:
        ratio = min(ratio, options.long_side / max(height, width))
    nearest = round if options.resize == "torch" else _half_up
    size = max(1, nearest(height * ratio)), max(1, nearest(width * ratio))
    frame, targets = resized(frame, targets, size, options.resize)
    if options.crop is not None:
        across, down = options.crop
        x = int(draw.integers(0, max(size[1] - across, 0) + 1))
        y = int(draw.integers(0, max(size[0] - down, 0) + 1))
        frame, targets = cropped(
            frame, targets, (x, y, min(x + across, size[1]), min(y + down, size[0]))
        )
    assert frame.image is not None
    image = _degraded(recoloured(frame.image, options, draw), options, draw)
    frame = replace(frame, image=image)
    if frame.points is not None and options.point_dropout:
        kept = draw.random(len(frame.points)) >= draw.uniform(0, options.point_dropout)
        frame = replace(frame, points=np.compress(kept, frame.points, axis=0))
    return frame, targets


def flipped(frame: Frame, targets: CroppedTargets) -> tuple[Frame, CroppedTargets]:
    """A mirrored street: the camera's x and the LiDAR's y change their signs."""
    assert frame.image is not None
    width = frame.image.shape[1]
    calibration = frame.calibration
    if calibration is not None:
        K = calibration.K.copy()
        K[0, 2] = width - 1 - K[0, 2]
        K[0, 1] = -K[0, 1]
        moved = _MIRROR @ calibration.camera_from_lidar @ _MIRROR_LIDAR
        calibration = Calibration(K, moved, calibration.width, calibration.height)
    points = frame.points
    if points is not None:
        points = points.copy()
        points[:, 1] *= -1
    turned = replace(
        frame,
        image=cv2.flip(frame.image, 1),
        points=points,
        depth=None if frame.depth is None else np.ascontiguousarray(frame.depth[:, ::-1]),
        calibration=calibration,
    )
    sign = torch.tensor([1.0, -1, 1, 1, 1, 1, -1])
    return turned, replace(
        targets,
        boxes=_mirrored(targets.boxes, width),
        visible_boxes=torch.where(
            (targets.visible_boxes != 0).any(1, keepdim=True),
            _mirrored(targets.visible_boxes, width),
            0.0,
        ),
        amodal=targets.amodal.mirrored(),
        visible=targets.visible.mirrored(),
        boxes3d=targets.boxes3d * sign,
    )


def _mirrored(boxes: torch.Tensor, width: int) -> torch.Tensor:
    x0, y0, x1, y1 = boxes.unbind(1)
    return torch.stack([width - x1, y0, width - x0, y1], 1)


def _half_up(length: float) -> int:
    return int(length + 0.5)


def resized(
    frame: Frame, targets: CroppedTargets, size: tuple[int, int], resize: Resizing = "torch"
) -> tuple[Frame, CroppedTargets]:
    """Another (height, width): image by area or bilinear, masks and depth by nearest pixel.

    Objects whose amodal mask vanishes are ignored.

    Args:
        frame: with an image.
        targets: of the frame.
        size: see above.
        resize: "pil" or "opencv" for the image as these libraries make it.
    """
    assert frame.image is not None
    height, width = frame.image.shape[:2]
    if size == (height, width):
        return frame, targets
    down, across = size[0] / height, size[1] / width
    calibration = frame.calibration
    if calibration is not None:
        # Integer pixels are centres: the outer corner (-0.5, -0.5) is what stays in place.
        K = calibration.K.copy()
        K[0] *= across
        K[1] *= down
        K[0, 2] += (across - 1) / 2
        K[1, 2] += (down - 1) / 2
        calibration = Calibration(K, calibration.camera_from_lidar, size[1], size[0])
    depth = frame.depth
    if depth is not None:
        depth = cv2.resize(depth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    if resize == "torch":
        how = cv2.INTER_AREA if down < 1 else cv2.INTER_LINEAR
        image = cv2.resize(frame.image, size[::-1], interpolation=how)
    else:
        image = resized_bytes(frame.image, size, resize)
    scale = torch.tensor([size[1] / width, size[0] / height] * 2)
    amodal = targets.amodal.resized(size)
    return replace(frame, image=image, depth=depth, calibration=calibration), replace(
        targets,
        boxes=targets.boxes * scale,
        visible_boxes=targets.visible_boxes * scale,
        amodal=amodal,
        visible=targets.visible.resized(size),
        ignore=targets.ignore | (amodal.areas() == 0),
    )


def cropped(
    frame: Frame, targets: CroppedTargets, window: tuple[int, int, int, int]
) -> tuple[Frame, CroppedTargets]:
    """The part of a sample in a window x0, y0, x1, y1; masks end at its border.

    Objects that are wholly outside go; those of which little is left are ignored.
    """
    assert frame.image is not None
    x0, y0, x1, y1 = window
    rows, columns = slice(y0, y1), slice(x0, x1)
    calibration = frame.calibration
    if calibration is not None:
        K = calibration.K.copy()
        K[0, 2] -= x0
        K[1, 2] -= y0
        calibration = Calibration(K, calibration.camera_from_lidar, x1 - x0, y1 - y0)
    part = replace(
        frame,
        image=np.ascontiguousarray(frame.image[rows, columns]),
        depth=None if frame.depth is None else np.ascontiguousarray(frame.depth[rows, columns]),
        calibration=calibration,
    )
    amodal, visible = targets.amodal.cut(window), targets.visible.cut(window)
    before, left = targets.amodal.areas(), amodal.areas()
    shift = torch.tensor([x0, y0, x0, y0], dtype=torch.float32)
    limit = torch.tensor([x1 - x0, y1 - y0] * 2, dtype=torch.float32)

    def moved(boxes: torch.Tensor) -> torch.Tensor:
        return torch.minimum((boxes - shift).clamp(min=0), limit)

    inside = replace(
        targets,
        boxes=moved(targets.boxes),
        visible_boxes=torch.where(
            (visible.areas() > 0)[:, None], moved(targets.visible_boxes), 0.0
        ),
        amodal=amodal,
        visible=visible,
        ignore=targets.ignore | (left < _LEAST_SHARE * before) | (left < _LEAST_PIXELS),
    )
    return part, inside.select(left > 0)


def _degraded(image: np.ndarray, options: Augment, draw: np.random.Generator) -> np.ndarray:
    """Tone, blur and noise of other cameras, in this order; each of a strength of its own."""
    if options.tone:
        gain, gamma = draw.uniform(1 - options.tone, 1 + options.tone, (2, 3))
        levels = np.linspace(0, 1, 256)[:, None] ** gamma * gain
        image = cv2.LUT(image, np.round(levels * 255).clip(0, 255).astype(np.uint8)[:, None])
    if options.blur:
        deviation = draw.uniform(0, options.blur)
        if deviation > _LEAST_BLUR:
            image = cv2.GaussianBlur(image, (0, 0), deviation)
    if options.noise:
        grain = draw.standard_normal(image.shape, np.float32) * draw.uniform(0, options.noise)
        image = (image + grain).round().clip(0, 255).astype(np.uint8)
    return image
