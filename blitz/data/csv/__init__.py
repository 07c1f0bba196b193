"""CSV files as memory-mapped tables: how they are written, what they hold, and which of their rows are bad."""
