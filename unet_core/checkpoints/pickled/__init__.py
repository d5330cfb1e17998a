"""Reads what Python's pickle wrote, the files of torch among them, without running it; needs neither torch nor JAX."""
