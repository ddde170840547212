"""Rosbag2 (MCAP, SQLite) without ROS, messages to core types and back, data set to bag."""
