"""Identities that survive occlusion: association, motion, coasting."""

from amodal_core.tracking.coasting import CoastingConfig, CoastingTracker
from amodal_core.tracking.quasi_dense import QuasiDenseConfig, QuasiDenseTracker
from amodal_core.tracking.registry import TRACKERS, make_tracker
from amodal_core.tracking.tracker import Tracker, TrackerConfig

__all__ = [
    "TRACKERS",
    "CoastingConfig",
    "CoastingTracker",
    "QuasiDenseConfig",
    "QuasiDenseTracker",
    "Tracker",
    "TrackerConfig",
    "make_tracker",
]
