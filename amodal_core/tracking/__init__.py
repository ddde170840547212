"""Identities that survive occlusion: association, motion, coasting."""

from amodal_core.tracking.tracker import Tracker, TrackerConfig

__all__ = ["Tracker", "TrackerConfig"]
