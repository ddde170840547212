"""Samples of a data set with their truth, many on one sheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from amodal_core.datasets.base import Dataset
from amodal_core.datasets.image_files import write_image
from amodal_core.errors import InputError
from amodal_core.frame import Sample
from amodal_core.views.overlay import OverlayStyle, draw_boxes, draw_overlay, in_window
from amodal_core.views.text import put_text

_GAP, _CAPTION = 6, 22


def draw(
    sample: Sample,
    classes: Sequence[str],
    width: int,
    boxes: Sequence[tuple[str, tuple[float, float, float, float]]] = (),
    style: OverlayStyle | None = None,
) -> np.ndarray:
    """(h, width, 3) uint8 RGB: the image, its objects and a caption under it.

    Masks are drawn at the sheet's size, so that stripes and outlines are as wide in every picture.

    Args:
        sample: with an image.
        classes: names of the truth's class ids.
        width: of the picture in pixels.
        boxes: class and xyxy box of objects that have no masks; their truth is not drawn.
        style: what to draw beside the masks.
    """
    image = sample.frame.image
    if image is None:
        raise InputError("a frame without an image", sample.name)
    scale = width / image.shape[1]
    size = width, max(1, round(image.shape[0] * scale))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if sample.truth is not None and not boxes:
        window = 0, 0, image.shape[1], image.shape[0]
        picture = draw_overlay(picture, in_window(sample.truth, window, size), classes, style)
    draw_boxes(
        picture, [name for name, _ in boxes], np.array([b for _, b in boxes]).reshape(-1, 4) * scale
    )
    caption = np.full((_CAPTION, width, 3), 255, np.uint8)
    count = len(boxes) if boxes or sample.truth is None else len(sample.truth)
    words = f"{sample.name}   {count} object{'' if count == 1 else 's'}"
    put_text(caption, words, 4, 3, 13, (0, 0, 0))
    return np.concatenate([picture, caption])


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
    write_image(path, sheet(cells, columns))
    return path


def sheet(cells: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB: pictures of one width, row by row, with white between them."""
    width = cells[0].shape[1]
    lines = []
    for begin in range(0, len(cells), columns):
        line = cells[begin : begin + columns]
        height = max(c.shape[0] for c in line)
        row = np.full((height + _GAP, columns * (width + _GAP), 3), 255, np.uint8)
        for k, cell in enumerate(line):
            x = k * (width + _GAP)
            row[: cell.shape[0], x : x + width] = cell
        lines.append(row)
    return np.concatenate(lines)
