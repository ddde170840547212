"""All texture layers by name and as one array."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from amodal_core.synthetic import textures, textures_built
from amodal_core.synthetic.textures import Painter

PAINTERS: dict[str, Painter] = {
    name: getattr(module, name)
    for module, names in (
        (
            textures,
            "white asphalt marking paving grass gravel concrete plaster brick roof wood bark "
            "cloth tarp leaves leaves_b hedge treeline mesh_fence signs glass",
        ),
        (
            textures_built,
            "facade_a facade_b facade_c facade_d shop car_front car_rear car_side rim bus_side "
            "bus_end truck_front truck_rear plates",
        ),
    )
    for name in names.split()
}

# More of what is on every car: the same painters with other random numbers.
for _copy in ("b", "c"):
    for _name in ("car_front", "car_rear", "rim"):
        PAINTERS[f"{_name}_{_copy}"] = PAINTERS[_name]

LAYERS = {name: index for index, name in enumerate(PAINTERS)}
CUTOUTS = ("leaves", "leaves_b", "treeline", "mesh_fence", "signs")


@lru_cache(maxsize=1)
def texture_array(seed: int) -> np.ndarray:
    """(L, S, S, 4) uint8, rows from v = 0 (bottom) up."""
    painted = [
        paint(np.random.default_rng([seed, index]))[::-1]
        for index, paint in enumerate(PAINTERS.values())
    ]
    return np.stack(painted)
