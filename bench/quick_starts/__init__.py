"""The programs that bench/quick_start.py times."""
