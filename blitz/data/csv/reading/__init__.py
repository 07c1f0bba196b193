"""Reading CSV files of any size: dialect, column types, bad rows, and a memory-mapped index in one streaming pass."""
