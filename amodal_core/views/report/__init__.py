"""The report of a replay: numbers gathered on the way, and one self-contained page."""
