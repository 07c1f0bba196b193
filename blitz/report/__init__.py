"""What people look at: a page made of run directories alone. Nothing here imports torch or ray, which take seconds."""
