"""A job on Ray: the only package that imports ray.train and ray.data."""
