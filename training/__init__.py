"""Offline training of every trainable model, on one device or many."""
