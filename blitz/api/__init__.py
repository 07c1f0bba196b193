"""The Python API: train, tune, open a run and use it. The command line calls the same functions."""
