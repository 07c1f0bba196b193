"""Reports, made from run directories alone. Nothing here imports torch or ray, which take seconds."""
