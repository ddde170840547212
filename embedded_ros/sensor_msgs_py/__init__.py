"""Helpers for sensor_msgs."""

from embedded_ros.importer import absent_attribute

__getattr__ = absent_attribute(__name__)
