"""Images, masks and windows that originals and tests prepare alike; see `record_images.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

FIXTURE = Path(__file__).parent / "fixtures" / "images.npz"
SAMPLES = 24  # rows and columns of a resized image that are kept

# How -> (height, width, short side, long side) of images: larger, smaller, at the limit of the
# longer side, upright, to the half of a pixel, as they are.
RESIZED = {
    "pil": [
        (375, 1242, 400, 3000), (375, 1242, 400, 666), (540, 960, 400, 666),
        (320, 213, 400, 666), (333, 501, 250, 0), (64, 80, 64, 90),
    ],
    "opencv": [
        (375, 1242, 400, 666), (540, 960, 400, 640), (200, 320, 200, 320),
        (320, 213, 400, 666), (333, 501, 250, 400),
    ],
    "sam": [(375, 1242, 0, 512), (540, 960, 0, 512), (150, 97, 0, 256)],
}  # fmt: skip
PASTED = (120, 300)  # height and width of the image that masks are pasted into
SHRUNK = (80, 200)  # and of what the network saw of it
POINTS = np.array([[0.0, 0.0], [10.0, 20.0], [1241.0, 374.0]])
# Rows, columns of windows that EoRaS' code makes a crop of 128 x 128 of.
CROPS = [(64, 48), (200, 150), (129, 300), (128, 128), (1, 7), (375, 41)]


def picture(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: waves, edges and noise."""
    draw = np.random.default_rng(height * 10_000 + width)
    v, u = np.mgrid[:height, :width]
    waves = np.stack([np.sin(u / 7 + v / 23), np.cos(v / 5), np.sin(u * v / 900)], 2)
    edges = ((u // 31 + v // 17) % 2)[:, :, None] * 40
    noise = draw.integers(-30, 31, (height, width, 3))
    return np.clip(110 + 60 * waves + edges + noise, 0, 255).astype(np.uint8)


def sampled(image: np.ndarray) -> np.ndarray:
    """Some rows and columns of an image, its first and last ones among them."""
    rows, columns = (np.linspace(0, n - 1, min(n, SAMPLES)).astype(int) for n in image.shape[:2])
    return image[rows][:, columns]


def masks() -> tuple[torch.Tensor, torch.Tensor]:
    """(12, 28, 28) float32 logits, and (12, 4) boxes in `SHRUNK`, also thin ones."""
    draw = np.random.default_rng(5)
    v, u = np.mgrid[:28, :28] / 27 * 2 - 1
    radii = draw.uniform(0.5, 1.6, (12, 1, 1))
    logits = 6 * (radii - np.hypot(u, v)) + draw.standard_normal((12, 28, 28))
    low = draw.uniform(0, 0.7, (12, 2)) * [200, 80]
    boxes = np.concatenate([low, low + draw.uniform(3, 70, (12, 2))], 1)
    boxes[0], boxes[1], boxes[2] = [0, 0, 200, 80], [0, 10.3, 4.7, 80], [50.2, 20.7, 51.9, 60]
    boxes = boxes.clip(0, [200, 80, 200, 80])
    return torch.from_numpy(logits).float(), torch.from_numpy(boxes).float()


def low_masks() -> torch.Tensor:
    """(2, 1, 64, 64) float32 logits, as SAM draws them of an input of 256 pixels."""
    draw = np.random.default_rng(6)
    v, u = np.mgrid[:64, :64]
    waves = np.sin(u / 9 + v / 5) * 4 + draw.standard_normal((2, 1, 64, 64))
    return torch.from_numpy(waves).float()


def grids() -> list[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """Probabilities (121, 121) of EoRaS, and its windows (r0, r1, c0, c1) in a (90, 140) image.

    Windows at the lower and right border reach one pixel beyond the image.
    """
    draw = np.random.default_rng(8)
    v, u = np.mgrid[:121, :121] / 60 - 1
    windows = [(10, 51, 20, 97), (0, 90, 0, 140), (60, 90, 100, 140), (3, 8, 5, 12)]
    result = []
    for window in windows:
        grid = 0.5 + 0.6 * (draw.uniform(0.6, 1.1) - np.hypot(u, v))
        grid += 0.05 * draw.standard_normal((121, 121))
        result.append((grid.clip(0, 1).astype(np.float32), window))
    return result
