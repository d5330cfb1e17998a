"""Tiles, their stitching, masks and their quality. NumPy only."""
