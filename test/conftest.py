"""Fixtures that several test files share, real KITTI data first of all."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from kitti_scenes import write_raw

from amodal_core.datasets.kitti_to_bag import convert_raw
from amodal_ros.domains import in_use, own_domain

ROOT = Path(__file__).resolve().parents[1]

# Tests run beside each other on few cores; one thread each is faster than many that wait.
torch.set_num_threads(1)

# The first example of a property test may compile kernels for seconds. The examples are the same in
# every run: what is red was red before; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("amodal", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "amodal"))


def real_data(relative: str) -> Path:
    """A folder of the real data; skips where it is absent."""
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
    return real_data("kitti_raw/2011_09_26/2011_09_26_drive_0000_sync")


@pytest.fixture(scope="session")
def kitti_object_root() -> Path:
    """The root of real KITTI object data (holds `training/`); skips where it is absent."""
    return real_data("kitti_object")


def end_strays(test: str, domain: int) -> None:
    """Kill what a test left in its domain: a launch that is killed leaves its nodes behind."""
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            variables = file.read_bytes().split(b"\0")
            own = f"PYTEST_CURRENT_TEST={test} ".encode()
            if f"ROS_DOMAIN_ID={domain}".encode() in variables and any(
                variable.startswith(own) for variable in variables
            ):
                os.kill(int(file.parent.name), signal.SIGKILL)


@pytest.fixture
def domain(request: pytest.FixtureRequest) -> Iterator[int]:
    """A DDS domain for this test and the processes that it starts; all must leave it with it."""
    with own_domain() as number:
        try:
            yield number
            end = time.monotonic() + 60
            while in_use(number):
                assert time.monotonic() < end, f"someone stays in DDS domain {number}"
                # Under a real rclpy a participant stays until its context is collected, which a
                # thread that ends late may still hold.
                gc.collect()
                time.sleep(0.01)
        finally:
            end_strays(request.node.nodeid, number)


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20110926)


@pytest.fixture
def mini_kitti_raw(tmp_path: Path) -> Path:
    """A hand-made KITTI raw drive of five images; scan 3 was dropped. See `kitti_scenes`."""
    return write_raw(tmp_path, "2011_09_26_drive_0042_sync")


@pytest.fixture
def mini_bag(mini_kitti_raw: Path, tmp_path: Path) -> Path:
    """`mini_kitti_raw` as an MCAP bag."""
    convert_raw(mini_kitti_raw, tmp_path / "mini")
    return tmp_path / "mini"
