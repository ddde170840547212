"""The worst failures as pictures: the truth's object, and beside it what was predicted there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from amodal_core.evaluation.failures import SURE, Failure
from amodal_core.evaluation.sets import AnnotationSet
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.views.overlay import OverlayStyle, draw_overlay

_WIDTH = 520  # pixels of each picture
_ASPECT = 16 / 10
_LEAST = 120  # pixels of the image that a crop shows across, at least


@dataclass(frozen=True)
class Picture:
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
) -> list[Picture]:
    """Draw failures; those whose image is not there on grey.

    Args:
        failed: of `failures.worst`; positions in `truth` and in `predictions`.
        truth: with amodal masks.
        predictions: those that count as answers, with amodal masks.
        images: (H, W, 3) uint8 RGB by image id.
    """
    records = {i.id: i for i in truth.images}
    pictures = []
    for failure in failed:
        record = records[failure.image_id]
        image = images.get(failure.image_id)
        if image is None or image.shape[:2] != (record.height, record.width):
            image = np.full((record.height, record.width, 3), 96, np.uint8)
        window = _window(truth, predictions, failure, record.height, record.width)
        shown = (
            [failure.prediction]
            if failure.prediction >= 0
            else _nearby(predictions, failure.image_id, window)
        )
        annotation = failure.annotation
        kind = truth.classes[truth.class_ids[annotation]]
        hidden = truth.occlusion_rates[annotation]
        words = kind if np.isnan(hidden) else f"{kind}, {hidden:.0%} hidden"
        if failure.prediction >= 0:
            said = predictions.classes[predictions.class_ids[failure.prediction]]
            score = predictions.scores[failure.prediction]
            words += f": IoU {failure.iou:.2f} with {said} ({score:.2f})"
        else:
            words += f": missed{'; what was found near it' if shown else ''}"
        pictures.append(
            Picture(
                _panel(image, truth, [annotation], window),
                _panel(image, predictions, shown, window),
                words,
                record.name or f"image {record.id}",
            )
        )
    return pictures


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


def _nearby(part: AnnotationSet, image_id: int, window: tuple[int, int, int, int]) -> list[int]:
    """Predictions of an image, of some score, that reach into the window."""
    x0, y0, x1, y1 = window
    boxes = part.boxes
    inside = (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
    chosen = inside & (part.image_ids == image_id) & (part.scores >= SURE)
    return [int(n) for n in np.flatnonzero(chosen)]


def _panel(
    image: np.ndarray,
    part: AnnotationSet,
    chosen: Sequence[int],
    window: tuple[int, int, int, int],
) -> bytes:
    """JPEG of the window, enlarged, with the chosen entries drawn on it."""
    x0, y0, x1, y1 = window
    scale = _WIDTH / (x1 - x0)
    size = (_WIDTH, max(1, round((y1 - y0) * scale)))
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    crop = cv2.resize(np.ascontiguousarray(image[y0:y1, x0:x1]), size, interpolation=how)
    if chosen:
        crop = draw_overlay(
            crop, _enlarged(part, chosen, window, size), part.classes, OverlayStyle(labels=False)
        )
    coded = cv2.imencode(".jpg", crop[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 84))[1]
    return bytes(coded.tobytes())


def _enlarged(
    part: AnnotationSet,
    chosen: Sequence[int],
    window: tuple[int, int, int, int],
    size: tuple[int, int],
) -> Tracks:
    """Entries of one image as they lie in the enlarged window."""
    x0, y0, x1, y1 = window
    record = next(i for i in part.images if i.id == int(part.image_ids[chosen[0]]))

    def masks(counts: list[bytes | None]) -> RleMasks:
        whole = RleMasks((record.height, record.width), [counts[n] or b"" for n in chosen])
        crops = whole.dense()[:, y0:y1, x0:x1].astype(np.uint8)
        grown = [cv2.resize(c, size, interpolation=cv2.INTER_LINEAR) for c in crops * 255]
        return RleMasks.from_dense(np.stack(grown) > 127)

    amodal = masks(part.amodal)
    known = all(part.visible[n] is not None for n in chosen)
    visible = masks(part.visible) & amodal if known else amodal
    n = len(chosen)
    return Tracks(
        size=(size[1], size[0]),
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        scores=part.scores[list(chosen)].astype(np.float32),
        class_ids=part.class_ids[list(chosen)],
        amodal=amodal,
        visible=visible,
        occlusion_rates=np.zeros(n, np.float32),
        depths=part.depths[list(chosen)].astype(np.float32),
        occluders=np.zeros((n, n), bool),
        ids=np.arange(n),
        ages=np.ones(n, np.int64),
        coasted=np.zeros(n, bool),
    )
