"""Trackers by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from amodal_core.errors import InputError
from amodal_core.settings import checked
from amodal_core.tracking.coasting import CoastingTracker
from amodal_core.tracking.quasi_dense import PRESETS, QuasiDenseTracker, QuasiDenseTrackerConfig
from amodal_core.tracking.tracker import Tracker, TrackerConfig

# name -> one line for help texts
TRACKERS = {
    "motion": "masks, motion, range, class and embeddings together",
    "quasi_dense": "embeddings first; for models with embeddings, thresholds for driving",
    "quasi_dense_sailvos": "the same with the thresholds of SAIL-VOS: every detection is a track",
    "quasi_dense_published": "as VATrack has it: no gate by motion or appearance, no coasting",
}


def make_tracker(
    name: str, values: Mapping[str, Any] | None = None, where: str = "tracker settings"
) -> CoastingTracker:
    """A tracker by name.

    Args:
        name: one of `TRACKERS`.
        values: settings that differ from its defaults, of `TrackerConfig` for `motion`, else of
            `QuasiDenseTrackerConfig`.
        where: who gave them, for the error.

    Raises:
        InputError: no tracker of that name, or it has no such setting, or not with such a value.
    """
    if name == "motion":
        return Tracker(checked(TrackerConfig, values or {}, where))
    if name not in TRACKERS:
        raise InputError(f"no tracker '{name}'", "tracker", f"there are: {', '.join(TRACKERS)}")
    preset = asdict(PRESETS[name.removeprefix("quasi_dense").removeprefix("_") or "driving"])
    return QuasiDenseTracker(checked(QuasiDenseTrackerConfig, preset | dict(values or {}), where))
