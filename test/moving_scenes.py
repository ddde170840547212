"""A textured square moves over textured ground and behind a textured wall, with exact truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from amodal_core.datasets.base import BEGIN, PERIOD
from amodal_core.datasets.truth import make_truth
from amodal_core.frame import Frame, Sample
from amodal_core.masks.mask_set import RleMasks

SIZE = (120, 240)
SIDE = 30
CLASSES = ("car", "truck")


@cache
def texture(height: int, width: int, seed: int) -> np.ndarray:
    """(height, width, 3) uint8: noise of several scales, as surfaces have it."""
    noise = np.random.default_rng(seed).standard_normal((3, height, width, 3))
    parts = [cv2.GaussianBlur(n, (0, 0), s) * s for n, s in zip(noise, (1.5, 4, 8), strict=True)]
    whole = sum(parts)
    return np.clip(128 + 60 * whole / whole.std(), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Scene:
    """What moves how, in pixels a frame.

    Attributes:
        object_speed: of the square, which begins with its left edge at `start`.
        wall: first and last column of the wall, at frame 0.
        wall_speed: of the wall.
        ground_speed: of the ground, as if the camera turned.
        stop: frame from which on the camera does not turn, and the square loses the ground's speed.
    """

    object_speed: float = 4.0
    start: float = 30.0
    wall: tuple[int, int] = (100, 150)
    wall_speed: float = 0.0
    ground_speed: float = 0.0
    stop: int = 1000

    def left(self, turn: int) -> int:
        """The square's left edge."""
        lost = self.ground_speed * max(turn - self.stop, 0)
        return round(self.start + self.object_speed * turn - lost)

    @cache  # noqa: B019 - a few small scenes
    def sample(self, turn: int) -> Sample:
        """A frame with its truth: 0 the square, 1 the wall."""
        height, width = SIZE
        shift = round(self.ground_speed * min(turn, self.stop))
        image = texture(height, width + 400, 1)[:, 200 - shift : 200 - shift + width].copy()
        masks = np.zeros((2, *SIZE), bool)
        for k, (x0, x1, y0, y1, seed) in enumerate(
            (
                (self.left(turn), self.left(turn) + SIDE, 45, 45 + SIDE, 2),
                (*(c + round(self.wall_speed * turn) for c in self.wall), 20, 110, 3),
            )
        ):
            patch = texture(y1 - y0, x1 - x0, seed)
            a, b = max(x0, 0), min(x1, width)
            if a < b:
                image[y0:y1, a:b] = patch[:, a - x0 : b - x0]
                masks[k, y0:y1, a:b] = True
        amodal = RleMasks.from_dense(masks)
        visible = RleMasks.from_dense(np.stack([masks[0] & ~masks[1], masks[1]]))
        truth = make_truth(amodal, visible, [0, 1], [0, 1], depths=np.array([20.0, 10.0]))
        frame = Frame(BEGIN + turn * PERIOD, image=image)
        return Sample(frame, truth, f"drive/{turn:04d}", "drive", turn)

    def samples(self, count: int) -> list[Sample]:
        """The first frames."""
        return [self.sample(turn) for turn in range(count)]
