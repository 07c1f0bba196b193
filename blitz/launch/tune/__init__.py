"""Sweeps: many runs of one recipe that differ in some settings, and which of them is the best."""
