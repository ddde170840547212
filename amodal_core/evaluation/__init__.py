"""Every number that the field quotes, each under its own name with its protocol beside it."""
