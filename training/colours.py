"""Colours changed at random, to the byte as torchvision does it, without its many passes."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numba import njit

from .config import Augment

_BYTES = torch.arange(256, dtype=torch.uint8)
# Of torchvision: ITU-R 601's luma, and what it brings bytes to 0-1 and back with.
_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)
_TO_UNIT, _TO_BYTE = np.float32(1 / 255), np.float32(256 - 1e-3)
_ZERO, _ONE, _TWO, _FOUR, _SIX, _MOST = (np.float32(n) for n in (0, 1, 2, 4, 6, 255))
_SIXTH = np.float32(1 / 6)


def recoloured(image: np.ndarray, options: Augment, draw: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue, in this order.

    Args:
        image: (H, W, 3) uint8 RGB.
        options: how much of each.
        draw: decides.
    """
    amounts = options.brightness, options.contrast, options.saturation
    if not any(amounts) and not options.hue:
        return image
    brightness, contrast, saturation = (
        float(draw.uniform(1 - amount, 1 + amount)) if amount else None for amount in amounts
    )
    hue = float(draw.uniform(-options.hue, options.hue)) if options.hue else None
    image = np.ascontiguousarray(image)
    # Brightness and contrast depend on a byte alone: a table.
    table = _BYTES
    if brightness is not None:
        table = _as_bytes(table.mul(brightness))
    if contrast is not None:
        grey = torch.from_numpy(_luma_of(cv2.LUT(image, table.numpy())))
        table = _as_bytes(table.mul(contrast).add_(grey.mean(), alpha=1 - contrast))
    image = cv2.LUT(image, table.numpy())
    if saturation is not None:
        image = _saturated(image, np.float32(saturation), np.float32(1 - saturation))
    return image if hue is None else np.asarray(_turned(image, np.float32(hue)))


def _as_bytes(values: torch.Tensor) -> torch.Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


@njit(cache=True, nogil=True)
def _luma(red: int, green: int, blue: int) -> float:
    """Rounded down. Sums of products are rounded once each, as processors do at once (FMA)."""
    grey = np.float32(np.float32(red) * _RED)
    grey = np.float32(np.float64(green) * np.float64(_GREEN) + np.float64(grey))
    grey = np.float32(np.float64(blue) * np.float64(_BLUE) + np.float64(grey))
    return np.floor(grey)


@njit(cache=True, nogil=True)
def _luma_of(image: np.ndarray) -> np.ndarray:
    """(H, W) float32."""
    height, width = image.shape[:2]
    out = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            out[y, x] = _luma(image[y, x, 0], image[y, x, 1], image[y, x, 2])
    return out


@njit(cache=True, nogil=True)
def _saturated(image: np.ndarray, own: float, grey: float) -> np.ndarray:
    """Shares of the image and of its luma, added."""
    out = np.empty_like(image)
    height, width = image.shape[:2]
    for y in range(height):
        for x in range(width):
            luma = _luma(image[y, x, 0], image[y, x, 1], image[y, x, 2])
            other = np.float64(luma) * np.float64(grey)
            for c in range(3):
                mixed = np.float32(other + np.float64(np.float32(image[y, x, c]) * own))
                out[y, x, c] = np.uint8(min(max(mixed, _ZERO), _MOST))
    return out


@njit(cache=True, nogil=True)
def _unit(value: float) -> int:
    return np.uint8(min(max(value, _ZERO), _ONE) * _TO_BYTE)


@njit(cache=True, nogil=True)
def _turned(image: np.ndarray, turn: float) -> np.ndarray:
    """Hue turned by a share of the circle: to HSV and back, in the order of torchvision's sums."""
    out = np.empty_like(image)
    height, width = image.shape[:2]
    for y in range(height):
        for x in range(width):
            r = np.float32(image[y, x, 0]) * _TO_UNIT
            g = np.float32(image[y, x, 1]) * _TO_UNIT
            b = np.float32(image[y, x, 2]) * _TO_UNIT
            most, least = max(r, max(g, b)), min(r, min(g, b))
            reach = most - least
            s = reach / (_ONE if reach == _ZERO else most)
            divisor = _ONE if reach == _ZERO else reach
            if most == r:
                h = (most - b) / divisor - (most - g) / divisor
            elif most == g:
                h = ((most - r) / divisor + _TWO) - (most - b) / divisor
            else:
                h = ((most - g) / divisor + _FOUR) - (most - r) / divisor
            h = h * _SIXTH + _ONE
            if h >= _ONE:
                h -= _ONE
            h += turn
            if h >= _ONE:
                h -= _ONE
            elif h < _ZERO:
                h += _ONE
            sixths = h * _SIX
            sector = np.floor(sixths)
            f = sixths - sector
            sf, rest = s * f, _ONE - s
            v, p = _unit(most), _unit(rest * most)
            q, t = _unit((_ONE - sf) * most), _unit((sf + rest) * most)
            n = int(sector) % 6
            if n == 0:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = v, t, p
            elif n == 1:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = q, v, p
            elif n == 2:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = p, v, t
            elif n == 3:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = p, q, v
            elif n == 4:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = t, p, v
            else:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = v, p, q
    return out
