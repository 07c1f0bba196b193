"""A job in this process: no Ray, no daemon, one device."""
