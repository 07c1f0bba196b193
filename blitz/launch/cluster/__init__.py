"""A job on Ray: the only package that imports ray.train and ray.data."""

import time

IMPORTED_AT = time.time()
"""When this process began to import what runs on Ray, with torch; in seconds since 1970."""
