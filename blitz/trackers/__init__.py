"""Trackers follow a run: its metrics and what it came to, sent to MLflow, W&B, Trackio or Comet.

The run directory is the truth. A tracker reads what is new in it and sends that from a thread of the driver, each step
exactly once; it never holds up training. Each tracker is an adapter of one small file over the tracker's own client,
which is imported only if it is asked for.
"""
