"""A second look at what is far: the strip around the horizon, enlarged, by the same network.

Most objects of a street are far, and all of them lie in a strip of a few degrees around the
horizon. A network that sees the whole image at one scale pays for pixels of the road and of the sky
and has ten for a car at sixty metres. What it finds in the enlarged strip replaces what it finds
there in the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from amodal_core.arrays import host
from amodal_core.frame import Calibration, Frame, Instances, Report, joined
from amodal_core.geometry.horizon import horizon
from amodal_core.geometry.projection import depth_image
from amodal_core.masks.mask_set import BoxMasks, Masks
from amodal_core.masks.occluders import occlusion_order
from amodal_core.models.base import Model
from amodal_core.models.layers.resizing import input_size

# Of the strip, as tangents: above and below the horizon, and to either side.
_ABOVE, _BELOW, _ASIDE = 40 / 780, 56 / 780, 416 / 720
_HIGHEST = 60 / 720  # what is higher is near enough for the whole image
_GAIN = 1.25  # least enlargement that is worth a look
_SAME = 0.5  # IoU of whole masks of one object
_AHEAD = 0.1  # of the score, by which the whole image must be surer
_EDGE = 1.0  # pixels; what reaches a cut goes on behind it


@dataclass(frozen=True)
class Strip:
    """Part of an image, at another scale.

    Attributes:
        x: first column.
        y: first row.
        width: columns of the image.
        height: rows of the image.
        scale: (2,) float64, how much it is enlarged in x and y.
        size: (height, width) once it is.
    """

    x: int
    y: int
    width: int
    height: int
    scale: np.ndarray
    size: tuple[int, int]


def strip_of(calibration: Calibration, focal: float) -> Strip | None:
    """Where the far lies; None where the camera does not look there.

    Args:
        calibration: of the camera.
        focal: pixels of its focal length in the strip.
    """
    K = calibration.K
    middle, (width, height) = horizon(calibration), (calibration.width, calibration.height)
    top, bottom = middle - _ABOVE * K[1, 1], middle + _BELOW * K[1, 1]
    left, right = (K[0, 2] + side * _ASIDE * K[0, 0] for side in (-1, 1))
    y, x = max(round(top), 0), max(round(left), 0)
    rows, columns = min(round(bottom), height) - y, min(round(right), width) - x
    if rows < (bottom - top) / 2 or columns < 1:
        return None
    size = round(rows * focal / K[1, 1]), round(columns * focal / K[0, 0])
    return Strip(x, y, columns, rows, np.array([size[1] / columns, size[0] / rows]), size)


def view_of(frame: Frame, strip: Strip) -> Frame:
    """A frame as its strip shows it: image, depth and calibration; the scan is projected anew."""
    assert frame.image is not None
    assert frame.calibration is not None
    rows, columns = slice(strip.y, strip.y + strip.height), slice(strip.x, strip.x + strip.width)
    how = cv2.INTER_LINEAR if strip.scale.max() > 1 else cv2.INTER_AREA
    height, width = strip.size
    image = np.ascontiguousarray(frame.image[rows, columns])
    image = cv2.resize(image, (width, height), interpolation=how)
    K = frame.calibration.K.copy()
    K[:2, 2] = (K[:2, 2] - (strip.x, strip.y) + 0.5) * strip.scale - 0.5
    K[[0, 1], [0, 1]] *= strip.scale
    calibration = Calibration(K, frame.calibration.camera_from_lidar, width, height)
    depth = None
    if frame.depth is not None and frame.points is not None:
        depth = depth_image(frame.points, calibration)
    elif frame.depth is not None:
        near = np.ascontiguousarray(frame.depth[rows, columns])
        depth = cv2.resize(near, (width, height), interpolation=cv2.INTER_NEAREST)
    return replace(frame, image=image, depth=depth, calibration=calibration)


class FarView:
    """A model that looks twice: at the whole image, shrunk, and at the strip of what is far.

    Args:
        model: gives masks as logits in boxes.
        focal: pixels of the focal length at which the strip is seen.
        pixels: of the whole image where the strip is seen, too; 0 for as many as it has.
    """

    def __init__(self, model: Model, focal: float, pixels: int) -> None:
        self.model, self.focal, self.pixels = model, focal, pixels

    def infer(self, frames: Sequence[Frame], report: Report) -> list[Instances]:
        """The instances of each frame, in its own pixels.

        What the model gives of the whole image at its own size, where there is no calibration to
        tell where the far lies, or where the strip would show nothing larger. Of frames with a scan
        occluders are left to who knows the scan's depths, too.
        """
        with report.time("far_view.views"):
            strips = [self._strip(frame) for frame in frames]
            shrunk = [
                None if s is None else self._shrunk(f) for f, s in zip(frames, strips, strict=True)
            ]
            views = [f if s is None else view_of(f, s) for f, s in zip(frames, shrunk, strict=True)]
            enlarged = [view_of(f, s) for f, s in zip(frames, strips, strict=True) if s is not None]
        results = self.model.infer(views, report)
        if not enlarged:
            return results
        far = iter(self.model.infer(enlarged, report))
        with report.time("far_view.join"):
            for n, (frame, strip, whole) in enumerate(zip(frames, strips, shrunk, strict=True)):
                if strip is None:
                    continue
                near = results[n] if whole is None else placed(results[n], frame.size, whole)
                enlarged_objects = placed(next(far), frame.size, strip)
                results[n] = _joined(near, enlarged_objects, frame, strip)
        return results

    def _strip(self, frame: Frame) -> Strip | None:
        if frame.calibration is None or frame.image is None:
            return None
        size = input_size(frame.size, 0, 0, most_pixels=self.pixels)
        focal = frame.calibration.K[1, 1] * size[0] / frame.size[0]
        return strip_of(frame.calibration, self.focal) if self.focal >= _GAIN * focal else None

    def _shrunk(self, frame: Frame) -> Strip | None:
        """The whole image as a strip of so many pixels; None where it has no more."""
        size = input_size(frame.size, 0, 0, most_pixels=self.pixels)
        if size == frame.size:
            return None
        (height, width), scale = frame.size, np.array(size[::-1]) / frame.size[::-1]
        return Strip(0, 0, width, height, scale, size)


def placed(objects: Instances, size: tuple[int, int], strip: Strip) -> Instances:
    """The objects of a strip in the pixels of its whole image of (height, width)."""
    ratio = np.tile(1 / strip.scale, 2).astype(np.float32)
    offset = np.tile([strip.x, strip.y], 2).astype(np.float32)

    def moved(boxes: Any) -> Any:
        if isinstance(boxes, np.ndarray):
            return boxes * ratio + offset
        return boxes * boxes.new_tensor(ratio) + boxes.new_tensor(offset)

    def masks(masks: Masks) -> BoxMasks:
        assert isinstance(masks, BoxMasks)
        return BoxMasks(size, masks.logits, moved(masks.boxes))

    return replace(
        objects,
        size=size,
        amodal_boxes=moved(objects.amodal_boxes),
        visible_boxes=moved(objects.visible_boxes),
        amodal=masks(objects.amodal),
        visible=masks(objects.visible),
    )


def _joined(near: Instances, far: Instances, frame: Frame, strip: Strip) -> Instances:
    """Both views' objects, each once.

    Args:
        near: of the whole image.
        far: of the strip, in the whole image's pixels.
        frame: of the image.
        strip: where it lies.

    Returns:
        On the host. Nobody hides anybody where there is a scan: it tells depths better.
    """
    assert frame.calibration is not None
    highest = _HIGHEST * frame.calibration.K[1, 1]

    def small(objects: Instances) -> np.ndarray:
        boxes = host(objects.amodal_boxes)
        return inside(boxes, strip, frame.size) & (boxes[:, 3] - boxes[:, 1] < highest)

    far = far[small(far)]
    # The surer one of the two counts, the strip's where they are about as sure. What one view tells
    # apart, such as two of whom one hides most of the other, stays apart.
    both = joined([far, near])
    ranks = np.array(both.scores, np.float64)
    ranks[len(far) :] -= np.where(small(near), _AHEAD, 0.0)
    order = np.argsort(-ranks, kind="stable")
    amodal, from_far = both.amodal.rle(), order < len(far)
    earlier = np.tri(len(order), k=-1, dtype=bool) & (from_far[:, None] != from_far[None])
    ordered = amodal[order]
    same = ordered.iou(ordered, pairs=earlier) >= _SAME
    keep = np.array(~same.any(1))
    for n in np.flatnonzero(~keep):
        keep[n] = not (same[n] & keep).any()  # what is not kept itself takes nobody's place
    # What is left out is drawn no further.
    both = replace(both, amodal=amodal)[order[keep]].numpy()
    if frame.points is not None:
        return both
    hides = occlusion_order(np.asarray(both.depths), both.amodal.rle(), both.visible.rle())
    return replace(both, occluders=hides)


def inside(boxes: np.ndarray, strip: Strip, size: tuple[int, int]) -> np.ndarray:
    """(N,) whether a strip shows the whole of (N, 4) boxes, as far as the image does."""
    right, bottom = strip.x + strip.width, strip.y + strip.height
    result = (boxes[:, 0] >= strip.x + _EDGE) | (strip.x == 0)
    result &= (boxes[:, 1] >= strip.y + _EDGE) | (strip.y == 0)
    result &= (boxes[:, 2] <= right - _EDGE) | (right == size[1])
    result &= (boxes[:, 3] <= bottom - _EDGE) | (bottom == size[0])
    return np.asarray(result)
