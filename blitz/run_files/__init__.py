"""The files of a run and of a sweep, on any storage."""
