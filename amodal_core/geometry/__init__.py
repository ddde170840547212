"""Camera model, LiDAR projection, 3D boxes and range-image clustering."""
