"""From what a network says of its objects to instances of the frame.

Written for tensors and for arrays of NumPy alike, see `amodal_core.arrays`; `Tensor` stands for
either here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from amodal_core.arrays import floats, integers, library, like, steps
from amodal_core.frame import Instances
from amodal_core.masks.mask_set import BoxMasks
from amodal_core.masks.occluders import MIN_SHARE
from amodal_core.masks.paste import of_probabilities
from amodal_core.models.layers.instance_depth import instance_depths, share_seen_through

Tensor: TypeAlias = Any


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
        class_probabilities: (N, C) float32 as in Instances, where the model weighs all classes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    amodal: Tensor
    visible: Tensor
    depths: Tensor
    embeddings: Tensor = None
    visible_boxes: Tensor = None
    boxes3d: Tensor = None
    class_probabilities: Tensor = None

    def __post_init__(self) -> None:
        self.visible = library(self.visible).minimum(self.visible, self.amodal)

    @classmethod
    def measured(
        cls,
        channels: Tensor,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        amodal: Tensor,
        visible: Tensor,
        **more: Tensor,
    ) -> Detections:
        """Detections with the depth of the LiDAR that falls on their visible masks.

        Args:
            channels: (2, H, W) depth channels of the image, None where there are none.
            boxes: as the attributes, and so are the others.
            scores: see there.
            labels: see there.
            amodal: see there.
            visible: see there.
            **more: `embeddings`, `visible_boxes`, `class_probabilities`.
        """
        unknown = floats(library(boxes).zeros_like(boxes[:, 0]))
        result = cls(boxes, scores, labels, amodal, visible, unknown, **more)
        result.depths = instance_depths(channels, boxes, result.visible)
        return result

    def borne_out(self, channels: Tensor) -> Detections:
        """The same; objects that the LiDAR looks through lose that share of their score.

        Args:
            channels: (2, H, W) depth channels of the image.
        """
        through = share_seen_through(
            channels, floats(self.boxes), self.visible, floats(self.depths)
        )
        return replace(self, scores=self.scores * (1 - through))


def instances_of(
    detections: Detections, size: tuple[int, int], scale: Tensor, probabilities: bool = False
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
    xp = library(detections.boxes)
    scale = like(scale, detections.boxes)
    ratio = xp.stack([scale[1], scale[0], scale[1], scale[0]])
    limit = like([size[1], size[0]] * 2, floats(detections.boxes))

    def own_size(boxes: Tensor) -> Tensor:
        return xp.minimum(xp.clip(floats(boxes) / ratio, 0, None), limit)

    boxes = own_size(detections.boxes)
    amodal, visible = floats(detections.amodal), floats(detections.visible)
    covered, shown = amodal > 0, visible > 0
    visible_boxes = _boxes_of(shown, boxes)
    if detections.visible_boxes is not None:
        anything = shown.any(2).any(1)[:, None]
        visible_boxes = xp.where(anything, own_size(detections.visible_boxes), 0.0)

    def pasted(logits: Tensor) -> BoxMasks:
        return BoxMasks(
            size, *(of_probabilities(logits, boxes) if probabilities else (logits, boxes))
        )

    area = covered.sum((1, 2))
    rates = 1 - floats(shown.sum((1, 2))) / floats(xp.clip(area, 1, None))
    return Instances(
        size=size,
        amodal_boxes=boxes,
        visible_boxes=visible_boxes,
        scores=floats(detections.scores),
        class_ids=detections.labels,
        amodal=pasted(amodal),
        visible=pasted(visible),
        occlusion_rates=xp.where(area > 0, rates, 0.0),
        depths=floats(detections.depths),
        occluders=occluders_of(boxes, covered & ~shown, shown, detections.depths),
        embeddings=detections.embeddings,
        boxes3d=None if detections.boxes3d is None else floats(detections.boxes3d),
        class_probabilities=detections.class_probabilities,
    )


def _boxes_of(cells: Tensor, boxes: Tensor) -> Tensor:
    """(N, 4) boxes around the set cells of (N, S, S) grids in boxes; zeros where none is set."""
    xp, side = library(cells), cells.shape[-1]
    places = steps(side, cells)
    result = []
    for axis in (1, 2):  # over rows: columns remain; over columns: rows remain
        line = cells.any(axis)
        low = xp.amin(xp.where(line, places, side), 1)
        high = xp.amax(xp.where(line, places, -1), 1) + 1
        k = axis - 1
        extent = (boxes[:, 2 + k] - boxes[:, k]) / side
        result.append((boxes[:, k] + low * extent, boxes[:, k] + high * extent))
    (x0, x1), (y0, y1) = result
    tight = xp.stack([x0, y0, x1, y1], 1)
    return xp.where(cells.any(2).any(1)[:, None], tight, 0.0)


def occluders_of(boxes: Tensor, hidden: Tensor, visible: Tensor, depths: Tensor) -> Tensor:
    """(N, N) bool, [i, j] where j is nearer than i and shows where i is hidden.

    Hidden cells of i are looked up in the visible grid of j at their place in the image.

    Args:
        boxes: (N, 4) xyxy.
        hidden: (N, S, S) bool, amodal without visible.
        visible: (N, S, S) bool.
        depths: (N,) metres, 0 where unknown.
    """
    xp, side = library(boxes), hidden.shape[-1]
    has_depth = depths > 0
    nearer = (depths[None] < depths[:, None]) & has_depth[None] & has_depth[:, None]
    low = xp.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = xp.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    nearer &= (high > low).all(-1) & hidden.any(2).any(1)[:, None]
    # Few pairs are left in a street; looking up the cells of all would take most of the time.
    i, j = xp.where(nearer)
    centres = (steps(side, boxes) + 0.5) / side
    x = boxes[:, :1] + centres * (boxes[:, 2:3] - boxes[:, :1])  # (N, S)
    y = boxes[:, 1:2] + centres * (boxes[:, 3:4] - boxes[:, 1:2])
    width = xp.clip(boxes[:, 2] - boxes[:, 0], 1e-6, None)
    height = xp.clip(boxes[:, 3] - boxes[:, 1], 1e-6, None)
    column = xp.floor((x[i] - boxes[j, None, 0]) / width[j, None] * side)  # (P, S)
    line = xp.floor((y[i] - boxes[j, None, 1]) / height[j, None] * side)
    inside = ((line >= 0) & (line < side))[:, :, None] & ((column >= 0) & (column < side))[:, None]
    column, line = integers(xp.clip(column, 0, side - 1)), integers(xp.clip(line, 0, side - 1))
    covered = visible[j[:, None, None], line[:, :, None], column[:, None]]  # (P, S, S)
    shared = (covered & inside & hidden[i]).sum((1, 2))
    result = xp.zeros_like(nearer)
    result[i, j] = shared >= MIN_SHARE * side * side
    return result
