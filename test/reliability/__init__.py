"""A drive through live nodes while faults are injected: `make faults` writes docs/reliability.md.

`faults.py` names the faults with what is promised, `play.py` plays them and counts what was lost.
"""
