"""Trackers by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from amodal_core.errors import InputError
from amodal_core.tracking.coasting import CoastingTracker
from amodal_core.tracking.quasi_dense import PRESETS, QuasiDenseTracker
from amodal_core.tracking.tracker import Tracker, TrackerConfig

# name -> one line for help texts
TRACKERS = {
    "motion": "masks, motion, range, class and looks together",
    "quasi_dense": "looks first; for models with embeddings, thresholds for driving",
    "quasi_dense_sailvos": "the same with the thresholds of SAIL-VOS: every detection is a track",
}


def make_tracker(name: str, **coasting: Any) -> CoastingTracker:
    """A tracker by name.

    Args:
        name: one of `TRACKERS`.
        **coasting: fields of `CoastingConfig` that differ from its defaults.

    Raises:
        InputError: no tracker of that name.
    """
    if name == "motion":
        return Tracker(TrackerConfig(**coasting))
    if name not in TRACKERS:
        raise InputError(f"no tracker '{name}'", "tracker", f"there are: {', '.join(TRACKERS)}")
    preset = PRESETS["sailvos" if name == "quasi_dense_sailvos" else "driving"]
    return QuasiDenseTracker(replace(preset, **coasting))
