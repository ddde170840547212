"""From linear light to the bytes of a camera: glare, motion blur, lens, noise, tone curve."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from amodal_core.synthetic.light import Light


@dataclass(frozen=True)
class CameraOptions:
    """How the camera sees; all relative to what KITTI's cameras do.

    Attributes:
        noise: factor on the sensor's noise, 0 for none.
        exposure: factor on the exposure.
        shutter: seconds that a picture is exposed; 0 for no motion blur.
        sharpness: of the in-camera sharpening.
    """

    noise: float = 1.0
    exposure: float = 1.0
    shutter: float = 0.004
    sharpness: float = 0.5


_CURVE_X = np.array([0.0, 0.01, 0.03, 0.08, 0.18, 0.35, 0.6, 0.85, 1.0])
_CURVE_Y = np.array([0.012, 0.05, 0.105, 0.215, 0.395, 0.6, 0.83, 0.965, 1.0])


class CameraResponse:
    """Develops pictures of one drive.

    Args:
        light: gives the exposure.
        options: of the camera.
    """

    def __init__(self, light: Light, options: CameraOptions = CameraOptions()) -> None:
        self.light = light
        self.options = options
        x = np.linspace(0, 1, 4096)
        self._curve = (np.interp(x, _CURVE_X, _CURVE_Y) * 255).astype(np.float32)

    def develop(
        self, radiance: np.ndarray, motion: np.ndarray | None, rng: np.random.Generator
    ) -> np.ndarray:
        """(H, W, 3) uint8 RGB of linear light (H, W, 3).

        Args:
            radiance: float32 linear light.
            motion: (H, W, 2) float32 pixels moved while the shutter is open, or None.
            rng: of this frame's noise.
        """
        options = self.options
        height, width = radiance.shape[:2]
        drift = 1 + 0.02 * rng.standard_normal()
        light = radiance * np.float32(self.light.exposure * options.exposure * drift)
        small = cv2.resize(
            np.minimum(light, 4.0),
            (max(width // 8, 1), max(height // 8, 1)),
            interpolation=cv2.INTER_AREA,
        )
        veil = cv2.GaussianBlur(small, (0, 0), max(width / 8 / 18, 1.0))
        glow = cv2.GaussianBlur(small, (0, 0), max(width / 8 / 90, 0.6))
        veil = cv2.resize(
            0.028 * veil + 0.02 * glow, (width, height), interpolation=cv2.INTER_LINEAR
        )
        light = 0.96 * light + veil
        if motion is not None and np.abs(motion).max() > 0.4:
            light = motion_blur(
                np.ascontiguousarray(light, np.float32), np.ascontiguousarray(motion, np.float32)
            )
        light *= self._vignette(width, height)[..., None]
        light = cv2.GaussianBlur(np.clip(light, 0, 1.6), (0, 0), 0.42)
        if options.noise > 0:
            gain = np.float32(options.noise * (0.5 + 0.5 * self.light.exposure) * 0.011)
            grain = rng.standard_normal(light.shape, np.float32)
            grain = cv2.GaussianBlur(grain, (0, 0), 0.45) * 1.35  # demosaicing joins neighbours
            light += grain * gain * np.sqrt(np.clip(light, 0, 1) + np.float32(0.006))
        index = np.clip(light, 0, 1) * 4095
        picture = self._curve[index.astype(np.int32)]
        if options.sharpness > 0:
            picture = cv2.addWeighted(
                picture,
                1 + options.sharpness,
                cv2.GaussianBlur(picture, (0, 0), 0.9),
                -options.sharpness,
                0,
            )
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    @staticmethod
    def _vignette(width: int, height: int) -> np.ndarray:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        r = ((x - width / 2) ** 2 + (y - height / 2) ** 2) / (width / 2) ** 2
        return 1 - 0.14 * r


@njit(cache=True, nogil=True)
def motion_blur(light: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Mean of 5 samples along each pixel's motion."""
    height, width = light.shape[:2]
    out = np.empty_like(light)
    for v in range(height):
        for u in range(width):
            dx, dy = motion[v, u, 0], motion[v, u, 1]
            if dx * dx + dy * dy < 0.16:
                out[v, u] = light[v, u]
                continue
            r, g, b = np.float32(0), np.float32(0), np.float32(0)
            for k in range(5):
                share = (k - 2) * 0.25
                x = min(max(int(u + dx * share + 0.5), 0), width - 1)
                y = min(max(int(v + dy * share + 0.5), 0), height - 1)
                r += light[y, x, 0]
                g += light[y, x, 1]
                b += light[y, x, 2]
            out[v, u, 0], out[v, u, 1], out[v, u, 2] = (
                r * np.float32(0.2),
                g * np.float32(0.2),
                b * np.float32(0.2),
            )
    return out


@njit(cache=True, nogil=True)
def pixel_motion(
    depth: np.ndarray, labels: np.ndarray, K: np.ndarray, moves: np.ndarray, share: float
) -> np.ndarray:
    """(H, W, 2) pixels that each point moves in `share` of a frame.

    Args:
        depth: (H, W) metres, 0 for sky.
        labels: (H, W) actor ids.
        K: (3, 3).
        moves: (A + 1, 4, 4) camera_next_from_camera_now of each actor id's points.
        share: of the time between two frames.
    """
    height, width = depth.shape
    out = np.zeros((height, width, 2), np.float32)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    for v in range(height):
        for u in range(width):
            z = depth[v, u] if depth[v, u] > 0 else np.float32(500.0)
            x, y = (u - cx) / fx * z, (v - cy) / fy * z
            m = moves[labels[v, u]]
            a = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
            b = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
            c = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
            if c > 0.2:
                out[v, u, 0] = (fx * a / c + cx - u) * share
                out[v, u, 1] = (fy * b / c + cy - v) * share
    return out
