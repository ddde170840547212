"""Every parser against inputs that nobody would write: `make fuzz MINUTES=5`.

`mutations.py` spoils valid files, `targets.py` names the parsers and their valid files,
`campaign.py` runs them in processes with little memory. `cases/` keeps what was found, small.
"""
