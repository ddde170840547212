"""The parsers, each with valid inputs of our own making and how they are spoilt.

`base.py` says what a target is; each other file adds those of one kind.
"""

from . import bags, binaries, data_sets, masks, messages, settings, texts, wire
from .base import TARGETS, Target

__all__ = ["TARGETS", "Target", "bags", "binaries", "data_sets", "masks", "messages", "settings"]
__all__ += ["texts", "wire"]
