"""Lines of text on images, in the font that ships (DejaVu Sans, its licence lies beside it)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numba import njit
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]


def put_text(
    out: np.ndarray, words: str, x: int, y: int, size: int, ink: Colour, bold: bool = False
) -> int:
    """Write a line, cut by the image's borders; its width in pixels.

    Args:
        out: (H, W, 3) uint8, changed in place.
        words: a line.
        x: left edge; may be outside the image, as may be y.
        y: upper edge.
        size: of the font in pixels.
        ink: colour of the text.
        bold: which of the two fonts.
    """
    coverage = _coverage(words, size, bold)
    _mix(out, coverage, x, y, np.asarray(ink, np.int32))
    return int(coverage.shape[1])


def text_size(words: str, size: int, bold: bool = False) -> tuple[int, int]:
    """(width, height) in pixels; the height is the same for all words of a size."""
    height, width = _coverage(words, size, bold).shape
    return width, height


@lru_cache(maxsize=8)
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(__file__).parent / "fonts" / name), size)


@lru_cache(maxsize=2048)
def _coverage(words: str, size: int, bold: bool) -> np.ndarray:
    """(H, W) uint8 coverage of a line of text."""
    font = _font(size, bold)
    ascent, descent = font.getmetrics()
    width = max(1, int(np.ceil(font.getlength(words))))
    canvas = Image.new("L", (width, ascent + descent))
    ImageDraw.Draw(canvas).text((0, 0), words, 255, font)
    return np.asarray(canvas)


@njit(cache=True, nogil=True)
def _mix(out: np.ndarray, coverage: np.ndarray, x: int, y: int, ink: np.ndarray) -> None:
    """Mix the ink of a line of text into the image, cut by its borders."""
    for v in range(max(0, -y), min(coverage.shape[0], out.shape[0] - y)):
        for u in range(max(0, -x), min(coverage.shape[1], out.shape[1] - x)):
            alpha = np.int32(coverage[v, u])
            if alpha:
                for c in range(3):
                    old = np.int32(out[y + v, x + u, c])
                    out[y + v, x + u, c] = old + (ink[c] - old) * alpha // 255
