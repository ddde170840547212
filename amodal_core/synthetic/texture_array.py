"""All texture layers in one array, with mip levels that keep the coverage of cut-outs."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from amodal_core.synthetic import textures, textures_built
from amodal_core.synthetic.textures import Painter

PAINTERS: dict[str, Painter] = {
    name: getattr(module, name)
    for module, names in (
        (
            textures,
            "white asphalt marking paving grass gravel concrete plaster brick roof wood bark cloth tarp "
            "leaves leaves_b hedge treeline mesh_fence signs glass",
        ),
        (
            textures_built,
            "facade_a facade_b facade_c facade_d shop car_front car_rear car_side rim bus_side bus_end "
            "truck_front truck_rear plates",
        ),
    )
    for name in names.split()
}

LAYERS = {name: index for index, name in enumerate(PAINTERS)}
CUTOUTS = ("leaves", "leaves_b", "treeline", "mesh_fence", "signs")


@lru_cache(maxsize=1)
def texture_array(seed: int) -> tuple[np.ndarray, ...]:
    """Mip levels of all layers, each (L, S, S, 4) uint8, rows from v = 0 (bottom) up.

    The alpha of a cut-out layer is rescaled on every level so that the share of texels over one half
    stays that of the first: leaves do not vanish with distance.
    """
    painted = [
        np.ascontiguousarray(paint(np.random.default_rng([seed, index]))[::-1])
        for index, paint in enumerate(PAINTERS.values())
    ]
    levels = [np.stack(painted)]
    coverage = {LAYERS[n]: (levels[0][LAYERS[n], ..., 3] > 127).mean() for n in CUTOUTS}
    while levels[-1].shape[1] > 1:
        size = levels[-1].shape[1] // 2
        level = np.stack([_halved(image, size) for image in levels[-1]])
        levels.append(level)
    for level in levels[1:]:
        for index, share in coverage.items():
            alpha = level[index, ..., 3].astype(np.float32)
            if share < 1 and alpha.size > 4:
                threshold = max(float(np.quantile(alpha, 1 - share)), 1.0)
                level[index, ..., 3] = np.clip(alpha * (127.5 / threshold), 0, 255).astype(np.uint8)
    return tuple(levels)


def _halved(image: np.ndarray, size: int) -> np.ndarray:
    """Half the size; colours weighted by alpha are not needed, painters fill under holes."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).reshape(size, size, 4)
