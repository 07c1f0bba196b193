"""Rows in, batches out: the global order, its shares, and the data sets they are fetched from."""
