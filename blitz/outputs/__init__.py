"""What models say, how it is judged, and how it is shown: metrics, examples, plots."""
