"""Rewrites of a graph that make it faster, each into a graph that computes the same."""

from unet_jax.rewrites.folding import folded
from unet_jax.rewrites.kernels import prepared

__all__ = ["folded", "prepared"]
