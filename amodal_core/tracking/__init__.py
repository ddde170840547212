"""Identities that survive occlusion: association, motion, coasting."""

from amodal_core.tracking.coasting import CoastingConfig, CoastingTracker
from amodal_core.tracking.quasi_dense import QuasiDenseTracker, QuasiDenseTrackerConfig
from amodal_core.tracking.registry import TRACKERS, make_tracker
from amodal_core.tracking.tracker import Tracker, TrackerConfig

__all__ = [
    "TRACKERS",
    "CoastingConfig",
    "CoastingTracker",
    "QuasiDenseTracker",
    "QuasiDenseTrackerConfig",
    "Tracker",
    "TrackerConfig",
    "make_tracker",
]
