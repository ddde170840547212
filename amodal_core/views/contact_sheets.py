"""Draw samples with their masks: what is seen filled, what is hidden hatched; many on one sheet."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from amodal_core.datasets.base import Dataset
from amodal_core.datasets.image_files import write_image
from amodal_core.errors import InputError
from amodal_core.frame import Sample

_GAP, _CAPTION = 6, 22
_STRIPE = 7  # pixels from one stripe of the hatching to the next


def colour(number: int) -> tuple[int, int, int]:
    """A colour for an identity; neighbours in number are far apart in hue."""
    r, g, b = colorsys.hsv_to_rgb(number * 0.61803398875 % 1.0, 0.85, 1.0)
    return round(255 * r), round(255 * g), round(255 * b)


def draw(
    sample: Sample,
    classes: Sequence[str],
    width: int,
    boxes: Sequence[tuple[str, tuple[float, float, float, float]]] = (),
) -> np.ndarray:
    """(h, width, 3) uint8 RGB: the image, its objects and a caption under it.

    Masks are drawn at the sheet's size, so that stripes and outlines are as wide in every picture.

    Args:
        sample: with an image.
        classes: names of the truth's class ids.
        width: of the picture in pixels.
        boxes: class and xyxy box of objects that have no masks.
    """
    image = sample.frame.image
    if image is None:
        raise InputError("a frame without an image", sample.name)
    scale = width / image.shape[1]
    height = max(1, round(image.shape[0] * scale))
    picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if sample.truth is not None:
        _draw_truth(picture, sample, classes, scale)
    for k, (name, box) in enumerate(boxes):
        x1, y1, x2, y2 = (round(v * scale) for v in box)
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour(k), 1, cv2.LINE_AA)
        _text(picture, name, (max(0, x1), max(12, y1 - 3)), colour(k), 0.38)
    caption = np.full((_CAPTION, width, 3), 255, np.uint8)
    count = len(sample.truth) if sample.truth is not None else len(boxes)
    _text(caption, f"{sample.name}   {count} objects", (4, 15), (0, 0, 0), 0.45)
    return np.concatenate([picture, caption])


def _draw_truth(picture: np.ndarray, sample: Sample, classes: Sequence[str], scale: float) -> None:
    assert sample.truth is not None
    truth = sample.truth.numpy()
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    stripes = (rows + columns) % _STRIPE < 2
    # Large objects first: what is small stays to be seen on top of them.
    order = np.argsort(-truth.amodal.rle().areas(), kind="stable")
    for k in order.tolist():
        paint = np.array(colour(int(truth.ids[k])))
        ignored = truth.ignore is not None and bool(truth.ignore[k])
        whole, seen = (
            cv2.resize(m.rle()[[k]].dense()[0].view(np.uint8), (width, height)) > 0
            for m in (truth.amodal, truth.visible)
        )
        share = 0.2 if ignored else 0.45
        picture[seen] = ((1 - share) * picture[seen] + share * paint).astype(np.uint8)
        hidden = whole & ~seen & stripes
        picture[hidden] = (0.1 * picture[hidden] + 0.9 * paint).astype(np.uint8)
        lines, _ = cv2.findContours(whole.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, paint.tolist(), 1, cv2.LINE_AA)
    taken = np.zeros(picture.shape[:2], bool)
    for k in order.tolist():
        x1, y1, x2, _ = (np.asarray(truth.amodal_boxes[k]) * scale).astype(int).tolist()
        rate = round(100 * float(truth.occlusion_rates[k]))
        name = classes[int(truth.class_ids[k])]
        text = f"{name} {rate}%" if rate else name
        at = max(0, x1), max(12, y1 - 3)
        place = taken[at[1] - 11 : at[1] + 3, at[0] : at[0] + 7 * len(text)]
        # A name over another helps nobody; the larger object keeps its own.
        if x2 - x1 >= 24 and not place.any():
            place[:] = True
            _text(picture, text, at, colour(int(truth.ids[k])), 0.38)


def _text(
    picture: np.ndarray, text: str, at: tuple[int, int], paint: tuple[int, int, int], size: float
) -> None:
    """Text on a plate of its colour; black text is written without one."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    ink = (0, 0, 0)
    if any(paint):
        (wide, high), below = cv2.getTextSize(text, font, size, 1)
        corner = at[0] + wide + 2, at[1] + below - 1
        cv2.rectangle(picture, (at[0] - 1, at[1] - high - 2), corner, paint, -1)
        bright = 0.3 * paint[0] + 0.59 * paint[1] + 0.11 * paint[2] > 110
        ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(picture, text, at, font, size, ink, 1, cv2.LINE_AA)


def spread(data: Dataset, many: int) -> list[int]:
    """Indices of so many samples, evenly spread over the data set."""
    many = min(many, len(data))
    return np.linspace(0, len(data) - 1, many).round().astype(int).tolist() if many else []


def write_sheets(
    data: Dataset,
    indices: Iterable[int],
    out: Path,
    *,
    columns: int = 2,
    rows: int = 4,
    width: int = 800,
) -> Iterator[Path | InputError | None]:
    """Write `sheet_%03d.png`; yields each sheet's path, the error of a broken sample, else None.

    Args:
        data: any data set.
        indices: the samples to draw.
        out: the folder for the sheets.
        columns: pictures side by side.
        rows: pictures above each other.
        width: of a picture in pixels.
    """
    cells: list[np.ndarray] = []
    number = 0
    for index in indices:
        try:
            cells.append(draw(data[index], data.classes, width, data.boxes(index)))
            yield None
        except InputError as error:
            yield error
        if len(cells) == rows * columns:
            yield _write(cells, columns, out / f"sheet_{number:03d}.png")
            number, cells = number + 1, []
    if cells:
        yield _write(cells, columns, out / f"sheet_{number:03d}.png")


def _write(cells: list[np.ndarray], columns: int, path: Path) -> Path:
    width = cells[0].shape[1]
    lines = []
    for begin in range(0, len(cells), columns):
        line = cells[begin : begin + columns]
        height = max(c.shape[0] for c in line)
        sheet = np.full((height + _GAP, columns * (width + _GAP), 3), 255, np.uint8)
        for k, cell in enumerate(line):
            x = k * (width + _GAP)
            sheet[: cell.shape[0], x : x + width] = cell
        lines.append(sheet)
    write_image(path, np.concatenate(lines))
    return path
