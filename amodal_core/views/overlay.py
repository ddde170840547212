"""Tracks drawn on their image: what is seen, what is hidden, by what, and who is who.

The visible part is tinted in the track's colour within a solid outline; the hidden part is hatched
within a dashed one, over whatever hides it. A track that coasts is hatched whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numba import njit
from PIL import Image, ImageDraw, ImageFont

from amodal_core.frame import Instances, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.views.palette import track_colour

Box = tuple[int, int, int, int]

_SEEN = 0.36  # share of the track's colour where it is visible
_STRIPES, _BETWEEN = 0.62, 0.14  # ... on the stripes of its hidden part, and between them
_PERIOD, _STRIPE = 9, 4  # pixels from stripe to stripe, and a stripe's width
_DASH = 9.0  # pixels
_THICK_FROM = 60  # pixels of height from which outlines are two pixels wide
_INK = (18, 20, 26)
_PAPER = (244, 246, 250)
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
    seen, seen_at = visible.crops()
    whole, whole_at = amodal.crops()
    for i in far_first:
        if not coasted[i]:
            x, y = seen_at[i]
            _tint(out, seen[i], x, y, np.asarray(colours[i], np.int32), _SEEN, _SEEN)
    for i in far_first:
        crop, (x, y) = whole[i], whole_at[i]
        if not coasted[i] and seen[i].size:
            dx, dy = seen_at[i] - whole_at[i]
            crop = crop.copy()
            crop[dy : dy + seen[i].shape[0], dx : dx + seen[i].shape[1]] &= ~seen[i]
        _tint(out, crop, x, y, np.asarray(colours[i], np.int32), _STRIPES, _BETWEEN)
    for i in far_first:
        _outline(out, whole[i], whole_at[i], seen[i], seen_at[i], colours[i], bool(coasted[i]))
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


@njit(cache=True, nogil=True)
def _tint(out, crop, x, y, colour, share, gap):  # type: ignore[no-untyped-def]
    """Mix a colour into a crop's pixels: `share` of it on diagonal stripes, `gap` between them."""
    on, off = np.int32(share * 256), np.int32(gap * 256)
    for v in range(crop.shape[0]):
        for u in range(crop.shape[1]):
            if crop[v, u]:
                part = on if (u + x + v + y) % _PERIOD < _STRIPE else off
                for c in range(3):
                    old = np.int32(out[y + v, x + u, c])
                    out[y + v, x + u, c] = old + (((colour[c] - old) * part) >> 8)


def _contours(crop: np.ndarray, at: np.ndarray) -> list[np.ndarray]:
    """Closed outlines (M, 2) int32 in image coordinates."""
    if not crop.size:
        return []
    padded = cv2.copyMakeBorder(crop.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    found, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Specks of a mask are tinted, but an outline of a few pixels is only noise.
    return [c[:, 0] + (at - 1).astype(np.int32) for c in found if len(c) >= 8]


def _outline(
    out: np.ndarray,
    whole: np.ndarray,
    whole_at: np.ndarray,
    seen: np.ndarray,
    seen_at: np.ndarray,
    colour: tuple[int, int, int],
    coasted: bool,
) -> None:
    """A solid line around what is seen, a dashed one where the whole reaches beyond it."""
    if not coasted:
        thickness = 2 if whole.shape[0] >= _THICK_FROM else 1
        for line in _contours(seen, seen_at):
            # Within 0.7 pixels of it, a line of a tenth of the points takes a tenth of the time.
            smooth = cv2.approxPolyDP(line, 0.7, True)
            cv2.polylines(out, [smooth], True, colour, thickness, cv2.LINE_AA)
    covered = np.zeros(tuple(np.add(whole.shape, 6)), np.uint8)
    if seen.size and not coasted:
        dy, dx = int(seen_at[1] - whole_at[1]) + 3, int(seen_at[0] - whole_at[0]) + 3
        covered[dy : dy + seen.shape[0], dx : dx + seen.shape[1]] = seen
        covered = cv2.dilate(covered, np.ones((5, 5), np.uint8))
    for contour in _contours(whole, whole_at):
        local = contour - whole_at + 3
        free = covered[local[:, 1], local[:, 0]] == 0
        dashes = _dashes(contour, free)
        if dashes:
            cv2.polylines(out, dashes, False, _PAPER if coasted else colour, 2, cv2.LINE_AA)
            cv2.polylines(out, dashes, False, colour, 1, cv2.LINE_AA)


def _dashes(contour: np.ndarray, free: np.ndarray) -> list[np.ndarray]:
    """The parts of a closed outline that are free, cut into dashes."""
    step = np.hypot(*np.diff(contour, axis=0, append=contour[:1]).T)
    along = np.concatenate([[0.0], np.cumsum(step)[:-1]])
    # A whole number of dashes and gaps, so that the ring closes without a seam.
    total = float(along[-1] + step[-1])
    pairs = max(1, round(total / (1.7 * _DASH)))
    phase = along * (pairs / total) % 1.0
    on = free & (phase < 0.6)
    edges = np.flatnonzero(np.diff(on.astype(np.int8), prepend=0, append=0))
    return [contour[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= 2]


@lru_cache(maxsize=8)
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(__file__).parent / "fonts" / name), size)


@lru_cache(maxsize=2048)
def _text(words: str, size: int, bold: bool) -> np.ndarray:
    """(H, W) uint8 coverage of a line of text; the height is the same for all words of a size."""
    font = _font(size, bold)
    ascent, descent = font.getmetrics()
    width = max(1, int(np.ceil(font.getlength(words))))
    canvas = Image.new("L", (width, ascent + descent))
    ImageDraw.Draw(canvas).text((0, 0), words, 255, font)
    return np.asarray(canvas)


@njit(cache=True, nogil=True)
def _put_text(out, coverage, x, y, ink):  # type: ignore[no-untyped-def]
    """Mix the ink of a line of text into the image, cut by its borders."""
    for v in range(min(coverage.shape[0], out.shape[0] - y)):
        for u in range(min(coverage.shape[1], out.shape[1] - x)):
            part = np.int32(coverage[v, u])
            if part:
                for c in range(3):
                    old = np.int32(out[y + v, x + u, c])
                    out[y + v, x + u, c] = old + (ink[c] - old) * part // 255


Words = list[tuple[str, bool, tuple[int, int, int]]]


def _label_all(
    out: np.ndarray,
    host: Instances,
    ids: np.ndarray,
    coasted: np.ndarray,
    colours: list[tuple[int, int, int]],
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
        lines: list[Words] = [[(f"{int(ids[i])}", True, _PAPER)]]
        if y1 - y0 >= style.min_label_height:
            lines[0].append((f" {classes[int(host.class_ids[i])]}", False, _PAPER))
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
        for shown in (lines, [lines[0][:1]]):
            size = _chip_size(shown, style.text_size)
            place = _free_place(boxes[i], size, taken, out.shape[1], out.shape[0])
            if place is not None:
                _draw_chip(out, shown, place, style.text_size, colours[i], bool(coasted[i]))
                taken.append(place)
                break


def _chip_size(lines: list[Words], text_size: int) -> tuple[int, int]:
    """(width, height) in pixels."""
    sizes = [_line_size(line, text_size - 2 * k) for k, line in enumerate(lines)]
    return 10 + max(w for w, _ in sizes), 3 + sum(h for _, h in sizes)


def _line_size(line: Words, size: int) -> tuple[int, int]:
    parts = [_text(words, size, bold).shape for words, bold, _ in line]
    return sum(w for _, w in parts), max(h for h, _ in parts)


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
    colour: tuple[int, int, int],
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
            coverage = _text(words, size, bold)
            _put_text(out, coverage, x, y, np.asarray(ink, np.int32))
            x += coverage.shape[1]
        y += _line_size(line, size)[1]
