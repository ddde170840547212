"""Frames of a synthetic drive a second on one core, and its parts."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

os.environ.setdefault("LP_NUM_THREADS", "1")

import numpy as np
import pytest

from amodal_core.synthetic.camera import CameraOptions
from amodal_core.synthetic.frames import Drive
from amodal_core.synthetic.lidar import LidarOptions, scan
from amodal_core.synthetic.rig import make_rig
from amodal_core.synthetic.world import WorldOptions


@lru_cache(maxsize=1)
def drive(width: int, height: int) -> Drive:
    world = WorldOptions(seed=5, frames=40, kind="urban", weather="sun")
    return Drive(world, 0, make_rig("kitti", (width, height)), CameraOptions(), LidarOptions())


@pytest.mark.parametrize(("width", "height"), [(621, 188), (1242, 375)])
def test_whole_frame(benchmark: Any, width: int, height: int) -> None:
    made = drive(width, height)
    numbers = iter(range(40))
    benchmark.pedantic(lambda: made.frame(next(numbers)), rounds=6, warmup_rounds=1)
    benchmark.extra_info["wanted_s"] = 1 / 1.5 if width == 621 else 1 / 0.7


def test_lidar_two_levels(benchmark: Any) -> None:
    made = drive(621, 188)
    rng = np.random.default_rng(0)
    benchmark(lambda: scan(made._caster, 3, LidarOptions(), rng))


def test_colour_labels_and_amodal_masks_rasterised(benchmark: Any) -> None:
    made = drive(621, 188)
    benchmark(lambda: made._renderer.frame(3))
