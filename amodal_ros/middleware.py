"""Settings of DDS with which images and scans arrive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The present name and the former one.
FAST_DDS = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
CYCLONE = "CYCLONEDDS_URI"


def settings(config: Path) -> dict[str, str]:
    """Variables for the processes of nodes; none where the user has set one of them.

    Args:
        config: folder of fastdds.xml and cyclonedds.xml.
    """
    values = dict.fromkeys(FAST_DDS, str(config / "fastdds.xml"))
    if os.environ.get("RMW_IMPLEMENTATION") == "rmw_cyclonedds_cpp":
        values[CYCLONE] = (config / "cyclonedds.xml").as_uri()
    return {} if any(os.environ.get(name) for name in values) else values


@contextmanager
def applied(config: Path) -> Iterator[None]:
    """Give this process and those that it starts the settings; before its first participant."""
    values = settings(config)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
