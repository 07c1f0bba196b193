"""What people call: train, tune, open a run and ask it for more. The command line calls the same functions."""
