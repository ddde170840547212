"""Colours of tracks: one for each id, the same in video, report and rviz."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

PAPER = (244, 246, 250)  # of texts and lines on dark
# Turning the hue by the golden angle keeps any run of consecutive ids far apart on the circle.
_GOLDEN_ANGLE = 137.508
# Four lightnesses (Oklab) tell apart the hues that come close again after 13 and 21 ids.
_LIGHTNESS = (0.74, 0.66, 0.82, 0.7)
_CHROMA = 0.175


@lru_cache(maxsize=4096)
def track_colour(track_id: int) -> tuple[int, int, int]:
    """The sRGB colour (0-255) of a track, always the same for an id."""
    hue = np.radians(25.0 + _GOLDEN_ANGLE * track_id)
    lightness = _LIGHTNESS[track_id % 4]
    # Colours outside of sRGB lose chroma, not hue.
    for chroma in np.arange(_CHROMA, 0, -0.005):
        rgb = _oklab_to_srgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
        if rgb.min() >= 0 and rgb.max() <= 1:
            break
    r, g, b = (int(v) for v in np.round(np.clip(rgb, 0, 1) * 255))
    return r, g, b


def hex_colour(track_id: int) -> str:
    """The same as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*track_colour(track_id))


def _oklab_to_srgb(lightness: float, a: float, b: float) -> np.ndarray:
    """Ottosson 2020, "A perceptual color space for image processing"; sRGB transfer curve."""
    cube_roots = np.array(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    matrix = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = matrix @ cube_roots**3
    curve = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve)
