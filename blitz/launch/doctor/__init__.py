"""What stands in the way of a run, found before it starts: each finding is one line, with its mend."""
