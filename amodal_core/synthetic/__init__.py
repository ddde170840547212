"""Synthetic drives: procedural streets rendered with exact truth."""
