"""Training: the loop, the optimizer, checkpoints, evaluation and prediction."""
