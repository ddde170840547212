"""Data sets: one file a format; `registry` recognises which format a path holds."""
