"""Exporting a run as one file that holds weights and preprocessing and does not need blitz."""
