"""How a network is trained, its run, and its history. NumPy only."""
