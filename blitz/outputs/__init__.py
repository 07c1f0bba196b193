"""Model outputs: metrics, predictions, examples, plots."""
