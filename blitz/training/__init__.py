"""What a run does: the loop, the optimizer, checkpoints, evaluation and the run directory."""
