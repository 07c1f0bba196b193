"""Runs that leave: one file that holds weights and preprocessing and needs nothing of this project."""
