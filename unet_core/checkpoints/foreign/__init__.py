"""Checkpoints that other programs write, each kind read in a file of its own; none of them runs anything."""
