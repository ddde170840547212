"""Points on visible masks that tell SAM which object is meant.

`random` is S-AModal's; the others are those of SAMAug (Dai et al. 2023) that it compares with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

_PATCH = 9  # pixels along a patch whose entropy is measured
_MARGIN = 10  # pixels around a box in which saliency is measured
_SALIENT = 3.0  # times the mean (Hou and Zhang 2007)
_SPECTRUM = 64  # pixels along the longer side at which the spectral residual is measured

Crop = tuple[np.ndarray, tuple[int, int]]
"""A mask: the bool array (h, w) of its box, and x, y of its top left pixel."""


def prompt_points(
    kind: str,
    masks: Sequence[Crop],
    image: np.ndarray,
    draw: np.random.Generator,
    *,
    erode: int = 7,
    count: int = 1,
) -> np.ndarray:
    """(N, count, 2) float32 x, y of pixels on each mask; the same for the same generator.

    The first point is of the given kind; further ones are uniform in the mask.

    Args:
        kind: one of `KINDS`.
        masks: N masks, none empty.
        image: (H, W, 3) uint8 RGB.
        draw: where chance comes from.
        erode: pixels along the square by which a mask is eroded before a point is drawn in it, as
            far as something is left; 0 or 1 for none.
        count: points a mask.
    """
    points = np.zeros((len(masks), count, 2), np.float32)
    for n, (mask, offset) in enumerate(masks):
        first = _uniform(_eroded(mask, erode), draw)
        chosen = KINDS[kind](mask, offset, first, image, draw)
        more = [_uniform(mask, draw) for _ in range(count - 1)]
        points[n] = np.array([chosen, *more]) + offset
    return points


def crop_of(mask: np.ndarray) -> Crop:
    """The crop of a (H, W) bool mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y, x = int(rows[0]), int(columns[0])
    return mask[y : rows[-1] + 1, x : columns[-1] + 1], (x, y)


def _uniform(mask: np.ndarray, draw: np.random.Generator) -> tuple[int, int]:
    """x, y of a pixel of the mask."""
    places = np.flatnonzero(mask)
    y, x = divmod(int(places[draw.integers(len(places))]), mask.shape[1])
    return x, y


def _eroded(mask: np.ndarray, side: int) -> np.ndarray:
    """The mask without its rim; the mask itself where nothing else is left."""
    if side < 2:
        return mask
    # The crop is cut at the mask's box: beyond it there is no mask.
    padded = np.pad(mask.astype(np.uint8), side)
    inner = cv2.erode(padded, np.ones((side, side), np.uint8))[side:-side, side:-side] > 0
    return inner if inner.any() else mask


def _first(
    mask: np.ndarray, offset: tuple[int, int], first: tuple[int, int], *_: object
) -> tuple[int, int]:
    """The drawn point."""
    return first


def _farthest(
    mask: np.ndarray, offset: tuple[int, int], first: tuple[int, int], *_: object
) -> tuple[int, int]:
    """The pixel of the mask that is farthest from the drawn point."""
    y, x = np.nonzero(mask)
    k = int(((x - first[0]) ** 2 + (y - first[1]) ** 2).argmax())
    return int(x[k]), int(y[k])


def _most_different(
    mask: np.ndarray,
    offset: tuple[int, int],
    first: tuple[int, int],
    image: np.ndarray,
    draw: np.random.Generator,
) -> tuple[int, int]:
    """The pixel whose patch differs most in entropy from that of the drawn point."""
    patch, (x0, y0) = _around(image, mask, offset, _PATCH // 2)
    entropy = patch_entropy(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY))
    entropy = entropy[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]]
    difference = np.where(mask, np.abs(entropy - entropy[first[1], first[0]]), -1.0)
    y, x = divmod(int(difference.argmax()), mask.shape[1])
    return x, y


def _salient(
    mask: np.ndarray,
    offset: tuple[int, int],
    first: tuple[int, int],
    image: np.ndarray,
    draw: np.random.Generator,
) -> tuple[int, int]:
    """A salient pixel of the mask, the most salient one where none is salient enough."""
    patch, (x0, y0) = _around(image, mask, offset, _MARGIN)
    saliency = spectral_residual(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY))
    values = saliency[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]]
    wanted = mask & (values > _SALIENT * saliency.mean())
    if wanted.any():
        return _uniform(wanted, draw)
    y, x = divmod(int(np.where(mask, values, -1.0).argmax()), mask.shape[1])
    return x, y


def _around(
    image: np.ndarray, mask: np.ndarray, offset: tuple[int, int], margin: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """The image around a mask's box, and x, y of the box in it."""
    x, y = offset
    left, top = max(x - margin, 0), max(y - margin, 0)
    bottom, right = y + mask.shape[0] + margin, x + mask.shape[1] + margin
    return np.ascontiguousarray(image[top:bottom, left:right]), (x - left, y - top)


def patch_entropy(grey: np.ndarray, side: int = _PATCH) -> np.ndarray:
    """(H, W) float32 bits: entropy of the values in the square around each pixel.

    At the rim only the pixels inside count. With counts c of n pixels, log2 n - sum c log2 c / n.

    Args:
        grey: (H, W) uint8.
        side: pixels along the square, odd.
    """

    def counted(weights: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(
            weights.astype(np.float32),
            -1,
            (side, side),
            normalize=False,
            borderType=cv2.BORDER_CONSTANT,
        )

    total = counted(np.ones_like(grey))
    weighted = np.zeros(grey.shape, np.float32)
    for value in np.unique(grey):
        count = np.rint(counted(grey == value))
        weighted += count * np.log2(np.maximum(count, 1))
    return np.log2(total) - weighted / total


def spectral_residual(grey: np.ndarray) -> np.ndarray:
    """(H, W) float32 saliency of at most 1: what a smooth log spectrum does not explain.

    Hou and Zhang: Saliency Detection: A Spectral Residual Approach, CVPR 2007. It stands in for the
    trained network of the original.

    Args:
        grey: (H, W) uint8.
    """
    height, width = grey.shape
    scale = min(1.0, _SPECTRUM / max(height, width))
    small = max(1, round(width * scale)), max(1, round(height * scale))
    values = cv2.resize(grey.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    spectrum = np.fft.fft2(values)
    amplitude = np.log(np.abs(spectrum) + 1e-6).astype(np.float32)
    residual = amplitude - cv2.blur(amplitude, (3, 3), borderType=cv2.BORDER_REFLECT)
    saliency = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    saliency = cv2.GaussianBlur(saliency.astype(np.float32), (0, 0), 2.5)
    saliency = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)
    return saliency / max(float(saliency.max()), 1e-12)


KINDS: dict[str, Callable[..., tuple[int, int]]] = {
    "random": _first,
    "maxdis": _farthest,
    "maxent": _most_different,
    "saliency": _salient,
}
