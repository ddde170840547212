"""Amodal instance segmentation, fusion and tracking; needs no ROS."""

__version__ = "0.2.0"
