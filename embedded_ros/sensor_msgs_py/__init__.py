"""Helpers for sensor_msgs."""
