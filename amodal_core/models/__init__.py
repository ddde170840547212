"""Models: one file a system, found by name; layers/ holds what two of them share."""
