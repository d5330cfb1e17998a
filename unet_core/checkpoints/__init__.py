"""Checkpoints: what is in a file, whose it is, and whether it is sound. NumPy only."""
