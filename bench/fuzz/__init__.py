"""Random input and random faults for the commands, against an oracle that knows what was written and damaged."""
