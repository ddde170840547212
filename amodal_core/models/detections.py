"""From what a network says of its objects to instances of the frame.

Written for tensors and for arrays of NumPy alike, see `amodal_core.arrays`; `Tensor` stands for
either here. What looks into the small grids of masks does so on the host.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numba import njit

from amodal_core.arrays import floats, host, library, like
from amodal_core.frame import Instances
from amodal_core.masks.mask_set import BoxMasks
from amodal_core.masks.occluders import MIN_SHARE
from amodal_core.masks.paste import of_probabilities
from amodal_core.models.layers.instance_depth import (
    Returns,
    instance_depths,
    returns_on,
    share_seen_through,
)

Tensor: TypeAlias = Any


@dataclass
class Detections:
    """What a model found in one image of a batch, at the batch's scale, on the model's device.

    The flagship's are arrays of NumPy on a CPU.

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
        returns: the LiDAR's on their visible masks, once they have been looked up.
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
    returns: Returns | None = None

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
        result.returns = returns_on(channels, boxes, result.visible)
        result.depths = like(instance_depths(result.returns), unknown)
        return result

    def borne_out(self, channels: Tensor) -> Detections:
        """The same; objects that the LiDAR looks through lose that share of their score.

        Args:
            channels: (2, H, W) depth channels of the image.
        """
        returns = self.returns or returns_on(channels, self.boxes, self.visible)
        through = share_seen_through(returns, host(floats(self.depths)))
        return replace(self, scores=self.scores * like(1 - through, floats(self.scores)))


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
    amodal_logits, visible_logits = (np.ascontiguousarray(host(v)) for v in (amodal, visible))
    amodal_areas, visible_areas, extents = _measured(amodal_logits, visible_logits)
    corners, side = host(boxes), amodal_logits.shape[-1]
    if detections.visible_boxes is None:
        lengths = (corners[:, 2:] - corners[:, :2]) / np.float32(max(side, 1))
        around = np.tile(corners[:, :2], 2) + extents * np.tile(lengths, 2)
    else:
        around = host(own_size(detections.visible_boxes))

    def pasted(logits: Tensor) -> BoxMasks:
        return BoxMasks(
            size, *(of_probabilities(logits, boxes) if probabilities else (logits, boxes))
        )

    rates = 1 - visible_areas.astype(np.float32) / np.maximum(amodal_areas, 1).astype(np.float32)
    depths = floats(detections.depths)
    occluders = _occluders(
        corners, amodal_logits, visible_logits, host(depths), MIN_SHARE * side * side
    )
    return Instances(
        size=size,
        amodal_boxes=boxes,
        visible_boxes=like(np.where(visible_areas[:, None] > 0, around, np.float32(0)), boxes),
        scores=floats(detections.scores),
        class_ids=detections.labels,
        amodal=pasted(amodal),
        visible=pasted(visible),
        occlusion_rates=like(np.where(amodal_areas > 0, rates, np.float32(0)), boxes),
        depths=depths,
        occluders=occluders if xp is np else like(occluders, boxes) > 0,
        embeddings=detections.embeddings,
        boxes3d=None if detections.boxes3d is None else floats(detections.boxes3d),
        class_probabilities=detections.class_probabilities,
    )


@njit(cache=True, nogil=True)
def _measured(amodal: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) amodal and (N,) visible cells of (N, S, S) logits, (N, 4) float32 around these."""
    masks, side = amodal.shape[0], amodal.shape[1]
    amodal_areas, visible_areas = np.zeros(masks, np.int64), np.zeros(masks, np.int64)
    extents = np.zeros((masks, 4), np.float32)
    for n in range(masks):
        left, top, right, bottom = side, side, 0, 0
        for k in range(side):
            before = visible_areas[n]
            for m in range(side):
                amodal_areas[n] += amodal[n, k, m] > 0
                if visible[n, k, m] > 0:
                    visible_areas[n] += 1
                    left, right = min(left, m), max(right, m + 1)
            if visible_areas[n] > before:
                top, bottom = min(top, k), k + 1
        extents[n, 0], extents[n, 1], extents[n, 2], extents[n, 3] = left, top, right, bottom
    return amodal_areas, visible_areas, extents


@njit(cache=True, nogil=True)
def _occluders(
    boxes: np.ndarray, amodal: np.ndarray, visible: np.ndarray, depths: np.ndarray, least: float
) -> np.ndarray:
    """(N, N) bool, [i, j] where j is nearer than i and shows where i is hidden.

    Hidden cells of i are looked up in the visible grid of j at their place in the image.

    Args:
        boxes: (N, 4) float32 xyxy.
        amodal: (N, S, S) float32 logits.
        visible: (N, S, S) float32 logits.
        depths: (N,) float32 metres, 0 where unknown.
        least: cells that j must show.
    """
    masks, side = amodal.shape[0], amodal.shape[1]
    result = np.zeros((masks, masks), np.bool_)
    hidden = np.empty((side * side, 2), np.int64)
    places = np.empty((2, side), np.int64)  # of i's cells in j's grid, across and down; or -1
    sides, half = np.float32(side), np.float32(0.5)
    for i in range(masks):
        count = -1  # not looked at yet
        for j in range(masks):
            if not 0 < depths[j] < depths[i]:
                continue
            apart = False
            for axis in range(2):
                low, high = boxes[j, axis], boxes[j, 2 + axis]
                apart |= not min(high, boxes[i, 2 + axis]) > max(low, boxes[i, axis])
            if apart:
                continue
            if count < 0:
                count = 0
                for k in range(side):
                    for m in range(side):
                        hidden[count, 0], hidden[count, 1] = m, k
                        count += amodal[i, k, m] > 0 and not visible[i, k, m] > 0
            if count < least:
                break
            for axis in range(2):
                low, high = boxes[j, axis], boxes[j, 2 + axis]
                start, end = boxes[i, axis], boxes[i, 2 + axis]
                length = max(high - low, np.float32(1e-6))
                for k in range(side):
                    centre = start + (np.float32(k) + half) / sides * (end - start)
                    place = np.floor((centre - low) / length * sides)
                    places[axis, k] = int(place) if 0 <= place < side else -1
            shared = 0
            for n in range(count):
                column, row = places[0, hidden[n, 0]], places[1, hidden[n, 1]]
                if column >= 0 and row >= 0:
                    shared += visible[j, row, column] > 0
            result[i, j] = shared >= least
    return result
