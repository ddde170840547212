"""Fixtures that several test files share, real KITTI data first of all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Tests run beside each other on few cores; one thread each is faster than many that wait.
torch.set_num_threads(1)

# The first example of a property test may compile kernels for seconds.
settings.register_profile("amodal", deadline=None)
settings.load_profile("amodal")


def _real_data(relative: str) -> Path:
    base = Path(os.environ.get("AMODAL_TEST_DATA") or ROOT.parent / "shared" / "data")
    place = base / relative
    if not place.exists():
        pytest.skip(
            f"no real KITTI data at {place}; "
            "set AMODAL_TEST_DATA to a folder that holds kitti_raw/ and kitti_object/"
        )
    return place


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def kitti_raw_drive() -> Path:
    """A real KITTI raw drive (36 frames): `<date>/<drive>_sync`; skips where it is absent."""
    return _real_data("kitti_raw/2011_09_26/2011_09_26_drive_0000_sync")


@pytest.fixture(scope="session")
def kitti_object_root() -> Path:
    """The root of real KITTI object data (holds `training/`); skips where it is absent."""
    return _real_data("kitti_object")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20110926)
