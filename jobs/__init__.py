"""What people run: `python -m jobs.train`, `python -m jobs.evaluate`."""
