"""The worst failures as pictures: the truth's object, and beside it what was predicted there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from amodal_core.evaluation.failures import MIN_SCORE, Failure
from amodal_core.evaluation.sets import AnnotationSet
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.views.overlay import OverlayStyle, draw_overlay, in_window

_WIDTH = 520  # pixels of each picture
_ASPECT = 16 / 10
_LEAST = 120  # pixels of the image that a crop shows across, at least


@dataclass(frozen=True)
class Panel:
    """A failure to look at.

    Attributes:
        truth: JPEG of the object as annotated.
        prediction: JPEG of what was predicted there.
        caption: what the object is, and how far off the prediction.
        where: the image's name.
    """

    truth: bytes
    prediction: bytes
    caption: str
    where: str


def draw(
    failed: Sequence[Failure],
    truth: AnnotationSet,
    predictions: AnnotationSet,
    images: dict[int, np.ndarray],
) -> list[Panel]:
    """Draw failures; those whose image is not there on grey.

    Args:
        failed: of `failures.worst`; positions in `truth` and in `predictions`.
        truth: with amodal masks.
        predictions: those that count as answers, with amodal masks.
        images: (H, W, 3) uint8 RGB by image id.
    """
    records = {i.id: i for i in truth.images}
    panels = []
    for failure in failed:
        record = records[failure.image_id]
        image = images.get(failure.image_id)
        if image is None or image.shape[:2] != (record.height, record.width):
            image = np.full((record.height, record.width, 3), 96, np.uint8)
        window = _window(truth, predictions, failure, record.height, record.width)
        candidates = (
            [failure.prediction]
            if failure.prediction >= 0
            else _nearby(predictions, failure.image_id, window)
        )
        annotation = failure.annotation
        class_name = truth.classes[truth.class_ids[annotation]]
        hidden = truth.occlusion_rates[annotation]
        caption = class_name if np.isnan(hidden) else f"{class_name}, {hidden:.0%} hidden"
        if failure.prediction >= 0:
            predicted_class = predictions.classes[predictions.class_ids[failure.prediction]]
            score = predictions.scores[failure.prediction]
            caption += f": IoU {failure.iou:.2f} with {predicted_class} ({score:.2f})"
        else:
            caption += f": missed{'; what was found near it' if candidates else ''}"
        panels.append(
            Panel(
                _jpeg(image, truth, [annotation], window),
                _jpeg(image, predictions, candidates, window),
                caption,
                record.name or f"image {record.id}",
            )
        )
    return panels


def _window(
    truth: AnnotationSet,
    predictions: AnnotationSet,
    failure: Failure,
    height: int,
    width: int,
) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the crop: both boxes with room around, of the pictures' shape."""
    boxes = [truth.boxes[failure.annotation]]
    if failure.prediction >= 0:
        boxes.append(predictions.boxes[failure.prediction])
    low = np.clip(np.min([b[:2] for b in boxes], axis=0), 0, (width, height))
    high = np.clip(np.max([b[2:] for b in boxes], axis=0), 0, (width, height))
    across = max((high[0] - low[0]) * 1.5, (high[1] - low[1]) * 1.5 * _ASPECT, _LEAST)
    across = min(across, width, height * _ASPECT)
    side = np.array([across, across / _ASPECT])
    corner = np.clip((low + high - side) / 2, 0, np.maximum((width, height) - side, 0))
    x0, y0 = np.floor(corner).astype(int).tolist()
    x1, y1 = np.ceil(corner + side).astype(int).tolist()
    return x0, y0, min(x1, width), min(y1, height)


def _nearby(entries: AnnotationSet, image_id: int, window: tuple[int, int, int, int]) -> list[int]:
    """Predictions of an image, of some score, that reach into the window."""
    x0, y0, x1, y1 = window
    boxes = entries.boxes
    inside = (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
    selected = inside & (entries.image_ids == image_id) & (entries.scores >= MIN_SCORE)
    return [int(n) for n in np.flatnonzero(selected)]


def _jpeg(
    image: np.ndarray,
    entries: AnnotationSet,
    selected: Sequence[int],
    window: tuple[int, int, int, int],
) -> bytes:
    """JPEG of the window, enlarged, with the chosen entries drawn on it."""
    x0, y0, x1, y1 = window
    scale = _WIDTH / (x1 - x0)
    size = (_WIDTH, max(1, round((y1 - y0) * scale)))
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    crop = cv2.resize(np.ascontiguousarray(image[y0:y1, x0:x1]), size, interpolation=how)
    if selected:
        tracks = in_window(_as_tracks(entries, selected), window, size)
        crop = draw_overlay(crop, tracks, entries.classes, OverlayStyle(labels=False))
    coded = cv2.imencode(".jpg", crop[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 84))[1]
    return bytes(coded.tobytes())


def _as_tracks(entries: AnnotationSet, selected: Sequence[int]) -> Tracks:
    """Entries of one image; without visible masks all of them shows."""
    record = next(i for i in entries.images if i.id == int(entries.image_ids[selected[0]]))
    size, n = (record.height, record.width), len(selected)
    amodal = RleMasks(size, [entries.amodal[k] or b"" for k in selected])
    visible = amodal
    if all(entries.visible[k] is not None for k in selected):
        visible = RleMasks(size, [entries.visible[k] or b"" for k in selected])
    return Tracks(
        size=size,
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        scores=entries.scores[list(selected)].astype(np.float32),
        class_ids=entries.class_ids[list(selected)],
        amodal=amodal,
        visible=visible,
        occlusion_rates=np.zeros(n, np.float32),
        depths=entries.depths[list(selected)].astype(np.float32),
        occluders=np.zeros((n, n), bool),
        ids=np.arange(n),
        ages=np.ones(n, np.int64),
        coasted=np.zeros(n, bool),
    )
