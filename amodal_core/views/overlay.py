"""Tracks drawn on their image: what is visible, what is hidden, by what, and who is who.

The visible part is tinted in the track's colour within a solid outline; the hidden part is hatched
within a dashed one, over whatever hides it. A track that coasts is hatched whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numba import njit

from amodal_core.frame import Instances, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.views.palette import PAPER, track_colour
from amodal_core.views.text import Colour, put_text, text_size

Box = tuple[int, int, int, int]

_VISIBLE = 0.36  # share of the track's colour where it is visible
_IGNORED = 0.16  # ... of annotations that evaluation leaves out
_STRIPES, _BETWEEN = 0.62, 0.14  # ... on the stripes of its hidden part, and between them
_PERIOD, _STRIPE = 9, 4  # pixels from stripe to stripe, and a stripe's width
_DASH = 9.0  # pixels
_THICK_FROM = 60  # pixels of height from which outlines are two pixels wide
_INK = (18, 20, 26)
_GREY = (176, 184, 198)
_AMBER = (255, 206, 110)


@dataclass(frozen=True)
class OverlayStyle:
    """What to draw beside the masks.

    Attributes:
        labels: id, class, distance and what hides it, beside each object.
        min_label_height: objects lower than this many pixels are only numbered.
        text_size: pixels.
    """

    labels: bool = True
    min_label_height: int = 20
    text_size: int = 12


def draw_overlay(
    image: np.ndarray,
    tracks: Tracks | Instances,
    classes: Sequence[str],
    style: OverlayStyle | None = None,
) -> np.ndarray:
    """Draw tracks, or instances numbered by their place, on a copy of their image.

    Args:
        image: (H, W, 3) uint8 RGB.
        tracks: of this image.
        classes: class names.
        style: what to draw.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    style = style or OverlayStyle()
    host = tracks.numpy()
    n = len(host)
    out = np.array(image, order="C")
    if n == 0:
        return out
    ids = host.ids if isinstance(host, Tracks) else np.arange(n)
    coasted = host.coasted if isinstance(host, Tracks) else np.zeros(n, bool)
    colours = [track_colour(int(i)) for i in ids]
    amodal = host.amodal.rle()
    visible = host.visible.rle() & amodal  # messages from elsewhere may claim more
    far_first = np.argsort(np.where(host.depths > 0, host.depths, np.inf), kind="stable")[::-1]
    visible_crops, visible_at = visible.crops()
    amodal_crops, amodal_at = amodal.crops()
    # What is visible, evenly.
    for i in far_first[~coasted[far_first]]:
        x, y = visible_at[i]
        share = _VISIBLE if host.ignore is None or not host.ignore[i] else _IGNORED
        _tint(out, visible_crops[i], x, y, np.asarray(colours[i], np.int32), share, share)
    # What is hidden, in stripes; all of what coasts.
    for i in far_first:
        crop, shown, (x, y) = amodal_crops[i], visible_crops[i], amodal_at[i]
        if not coasted[i] and shown.size:
            dx, dy = visible_at[i] - amodal_at[i]
            crop = crop.copy()
            crop[dy : dy + shown.shape[0], dx : dx + shown.shape[1]] &= ~shown
        _tint(out, crop, x, y, np.asarray(colours[i], np.int32), _STRIPES, _BETWEEN)
    for i in far_first:
        amodal_part, visible_part = (
            (amodal_crops[i], amodal_at[i]),
            (visible_crops[i], visible_at[i]),
        )
        _outline(out, *amodal_part, *visible_part, colours[i], bool(coasted[i]))
    if style.labels:
        _label_all(out, host, ids, coasted, colours, classes, style, far_first[::-1])
    return out


def enlarge(image: np.ndarray, tracks: Tracks, factor: int) -> tuple[np.ndarray, Tracks]:
    """An image and its tracks, `factor` times as large, so that labels fit beside small objects."""
    height, width = image.shape[0] * factor, image.shape[1] * factor
    host = tracks.numpy()

    def grown(masks: RleMasks) -> RleMasks:
        crops, offsets = masks.crops()
        large = [
            cv2.resize(255 * c.view(np.uint8), None, fx=factor, fy=factor) > 127 if c.size else c
            for c in crops
        ]
        return RleMasks.from_crops(large, offsets * factor, (height, width))

    grown_tracks = replace(
        host,
        size=(height, width),
        amodal=grown(host.amodal.rle()),
        visible=grown(host.visible.rle()),
        amodal_boxes=host.amodal_boxes * factor,
        visible_boxes=host.visible_boxes * factor,
    )
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), grown_tracks


def in_window(tracks: Tracks, window: Box, size: tuple[int, int]) -> Tracks:
    """Tracks as they lie in a window of their image.

    Args:
        tracks: of the image.
        window: x0, y0, x1, y1 in its pixels.
        size: (width, height) in pixels that the window is resized to.
    """
    x0, y0, x1, y1 = window
    host = tracks.numpy()

    def cut(masks: RleMasks) -> RleMasks:
        crops = (masks[[k]].dense()[0, y0:y1, x0:x1] for k in range(len(masks)))
        resized = [cv2.resize(255 * c.view(np.uint8), size) > 127 for c in crops]
        height_width = size[1], size[0]
        return RleMasks.from_dense(np.stack(resized)) if resized else RleMasks.empty(height_width)

    amodal, visible = cut(host.amodal.rle()), cut(host.visible.rle())
    return replace(
        host,
        size=(size[1], size[0]),
        amodal=amodal,
        visible=visible,
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
    )


def draw_boxes(
    image: np.ndarray, names: Sequence[str], boxes: np.ndarray, text_size: int = 12
) -> None:
    """Draw objects that have no masks, in place.

    Args:
        image: (H, W, 3) uint8 RGB.
        names: N, written beside the boxes.
        boxes: (N, 4) xyxy in its pixels.
        text_size: pixels.
    """
    taken: list[Box] = []
    for k, (name, box) in enumerate(zip(names, np.round(boxes).astype(int).tolist(), strict=True)):
        x0, y0, x1, y1 = box
        cv2.rectangle(image, (x0, y0), (x1, y1), track_colour(k), 1, cv2.LINE_AA)
        lines: list[Words] = [[(name, False, PAPER)]]
        place = _free_place(
            (x0, y0, x1, y1), _chip_size(lines, text_size), taken, image.shape[1], image.shape[0]
        )
        if place is not None:
            _draw_chip(image, lines, place, text_size, track_colour(k), False)
            taken.append(place)


@njit(cache=True, nogil=True)
def _tint(
    out: np.ndarray, crop: np.ndarray, x: int, y: int, colour: np.ndarray, share: float, gap: float
) -> None:
    """Mix a colour into a crop's pixels: `share` of it on diagonal stripes, `gap` between them."""
    on, off = np.int32(share * 256), np.int32(gap * 256)
    for v in range(crop.shape[0]):
        for u in range(crop.shape[1]):
            if crop[v, u]:
                mix = on if (u + x + v + y) % _PERIOD < _STRIPE else off
                for c in range(3):
                    old = np.int32(out[y + v, x + u, c])
                    out[y + v, x + u, c] = old + (((colour[c] - old) * mix) >> 8)


def contours(crop: np.ndarray, at: np.ndarray, *, smooth: bool = False) -> list[np.ndarray]:
    """Closed outlines (M, 2) int32 of a mask's crop, in image coordinates.

    Args:
        crop: (h, w) bool.
        at: (2,) x, y of its top left pixel.
        smooth: within 0.7 pixels of it, of about a tenth of the points.
    """
    if not crop.size:
        return []
    padded = cv2.copyMakeBorder(crop.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    outlines, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Specks of a mask are tinted, but an outline of a few pixels is only noise.
    lines = [c[:, 0] + (at - 1).astype(np.int32) for c in outlines if len(c) >= 8]
    return [cv2.approxPolyDP(line, 0.7, True)[:, 0] for line in lines] if smooth else lines


def _outline(
    out: np.ndarray,
    amodal: np.ndarray,
    amodal_at: np.ndarray,
    visible: np.ndarray,
    visible_at: np.ndarray,
    colour: Colour,
    coasted: bool,
) -> None:
    """A solid line around what is visible, a dashed one where the amodal mask reaches beyond."""
    if not coasted:
        thickness = 2 if amodal.shape[0] >= _THICK_FROM else 1
        # A tenth of the points takes a tenth of the time.
        for line in contours(visible, visible_at, smooth=True):
            cv2.polylines(out, [line], True, colour, thickness, cv2.LINE_AA)
    covered = np.zeros(tuple(np.add(amodal.shape, 6)), np.uint8)
    if visible.size and not coasted:
        dy, dx = int(visible_at[1] - amodal_at[1]) + 3, int(visible_at[0] - amodal_at[0]) + 3
        covered[dy : dy + visible.shape[0], dx : dx + visible.shape[1]] = visible
        covered = cv2.dilate(covered, np.ones((5, 5), np.uint8))
    for contour in contours(amodal, amodal_at):
        local = contour - amodal_at + 3
        free = covered[local[:, 1], local[:, 0]] == 0
        dashes = _dashes(contour, free)
        if dashes:
            cv2.polylines(out, dashes, False, PAPER if coasted else colour, 2, cv2.LINE_AA)
            cv2.polylines(out, dashes, False, colour, 1, cv2.LINE_AA)


def _dashes(contour: np.ndarray, free: np.ndarray) -> list[np.ndarray]:
    """The parts of a closed outline that are free, cut into dashes."""
    on = _dashed(contour, free)
    edges = np.flatnonzero(np.diff(on.astype(np.int8), prepend=0, append=0))
    return [contour[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= 2]


@njit(cache=True, nogil=True)
def _dashed(contour: np.ndarray, free: np.ndarray) -> np.ndarray:
    """(M,) bool, the points of a closed outline that are free and on a dash."""
    n = len(contour)
    along = np.zeros(n + 1)
    for k in range(n):
        x, y = contour[(k + 1) % n] - contour[k]
        along[k + 1] = along[k] + np.hypot(x, y)
    # A whole number of dashes and gaps, so that the ring closes without a seam.
    pairs = max(1, round(along[n] / (1.7 * _DASH)))
    return free & (along[:n] * (pairs / along[n]) % 1.0 < 0.6)


Words = list[tuple[str, bool, Colour]]


def _label_all(
    out: np.ndarray,
    host: Instances,
    ids: np.ndarray,
    coasted: np.ndarray,
    colours: list[Colour],
    classes: Sequence[str],
    style: OverlayStyle,
    near_first: np.ndarray,
) -> None:
    """Labels, nearest object first, each at the free place that lies closest to its object."""
    taken: list[Box] = []
    boxes = [tuple(int(v) for v in np.round(b)) for b in host.amodal_boxes]
    for i in near_first:
        x0, y0, x1, y1 = boxes[i]
        if x1 <= x0 or y1 <= y0:
            continue
        lines: list[Words] = [[(f"{int(ids[i])}", True, PAPER)]]
        if y1 - y0 >= style.min_label_height:
            lines[0].append((f" {classes[int(host.class_ids[i])]}", False, PAPER))
            if host.depths[i] > 0:
                lines[0].append((f" {host.depths[i]:.0f} m", False, _GREY))
            hidden = float(host.occlusion_rates[i])
            if coasted[i]:
                lines.append([("unseen", False, _AMBER)])
            elif hidden >= 0.1:
                lines.append([(f"{hidden:.0%} hidden", False, _AMBER)])
            hiders = np.flatnonzero(host.occluders[i])
            if len(lines) > 1 and len(hiders):
                nearest = hiders[np.argmin(host.depths[hiders])]
                lines[1].append((" behind " if coasted[i] else " by ", False, _AMBER))
                lines[1].append((f"{int(ids[nearest])}", True, colours[nearest]))
        # Where a crowd leaves no room for all, the number alone may still fit.
        for content in (lines, [lines[0][:1]]):
            size = _chip_size(content, style.text_size)
            place = _free_place(boxes[i], size, taken, out.shape[1], out.shape[0])
            if place is not None:
                _draw_chip(out, content, place, style.text_size, colours[i], bool(coasted[i]))
                taken.append(place)
                break


def _chip_size(lines: list[Words], text_size: int) -> tuple[int, int]:
    """(width, height) in pixels."""
    sizes = [_line_size(line, text_size - 2 * k) for k, line in enumerate(lines)]
    return 10 + max(w for w, _ in sizes), 3 + sum(h for _, h in sizes)


def _line_size(line: Words, size: int) -> tuple[int, int]:
    sizes = [text_size(words, size, bold) for words, bold, _ in line]
    return sum(w for w, _ in sizes), max(h for _, h in sizes)


def _touches(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _free_place(
    box: Box, size: tuple[int, int], taken: list[Box], width: int, height: int
) -> Box | None:
    """Where a label of that size fits without covering another; None where there is no room."""
    w, h = size
    x0, y0, x1, y1 = box
    middle = (x0 + x1 - w) // 2
    anchors = [
        (x0, y0 - h - 2),
        (middle, y0 - h - 2),
        (x1 - w, y0 - h - 2),
        (x0, y1 + 2),
        (x1 + 2, y0),
        (x0 - w - 2, y0),
        *((x, y0 - h - 2 - k * (h // 2 + 2)) for k in range(1, 7) for x in (x0, x1 - w)),
        *((x, y1 + 2 + k * (h // 2 + 2)) for k in range(1, 5) for x in (x1 - w, x0)),
    ]
    for x, y in anchors:
        x, y = min(max(x, 0), width - w), min(max(y, 0), height - h)
        place = (x, y, x + w, y + h)
        if x >= 0 and y >= 0 and not any(_touches(place, other) for other in taken):
            return place
    return None


def _draw_chip(
    out: np.ndarray,
    lines: list[Words],
    place: Box,
    text_size: int,
    colour: Colour,
    coasted: bool,
) -> None:
    """A dark plate with the track's colour on its left side; of coasted tracks, around it."""
    x0, y0, x1, y1 = place
    patch = out[y0:y1, x0:x1]
    plate = np.empty_like(patch)
    plate[:] = _INK
    patch[:] = cv2.addWeighted(patch, 0.2, plate, 0.8, 0)
    out[y0:y1, x0 : x0 + 3] = colour
    if coasted:
        cv2.rectangle(out, (x0, y0), (x1 - 1, y1 - 1), colour, 1)
    y = y0 + 1
    for k, line in enumerate(lines):
        x, size = x0 + 6, text_size - 2 * k
        for words, bold, ink in line:
            x += put_text(out, words, x, y, size, ink, bold)
        y += _line_size(line, size)[1]
