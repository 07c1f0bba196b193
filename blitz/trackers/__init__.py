"""Trackers: the metrics, the outcome and the report of a run are sent to MLflow, W&B, Trackio or Comet.

The run directory is the source of truth. A thread of the driver reads what is new in it and sends each step exactly
once, so training never waits. Each tracker is one small adapter over the tracker's own client, which is imported only
if it is requested.
"""
