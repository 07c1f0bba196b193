"""What people run from a checkout: `python -m jobs.train` is `blitz train`."""
