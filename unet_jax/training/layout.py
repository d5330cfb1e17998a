"""How the kernels of a state lie in memory."""

from typing import Any

import jax

KERNEL = 4
"""Dimensions of a kernel, or more, and of hardly another array of a state."""


def kernels_first(tree: Any) -> Any:
    """Kernels, [a, b, *window] in torch, as [*window, b, a]: XLA convolves with them so, and makes their gradients so.

    Kept like that from update to update, neither they nor their gradients and moments are ever transposed.
    """
    return jax.tree.map(
        lambda array: array.transpose(*range(2, array.ndim), 1, 0) if _is_kernel(array) else array, tree
    )


def in_torchs_layout(tree: Any) -> Any:
    """The inverse of `kernels_first`; of NumPy arrays, views."""
    return jax.tree.map(
        lambda array: array.transpose(-1, -2, *range(array.ndim - 2)) if _is_kernel(array) else array, tree
    )


def _is_kernel(array: Any) -> bool:
    return bool(array.ndim >= KERNEL)
