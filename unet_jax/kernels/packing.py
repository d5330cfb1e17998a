"""Columns packed into channels, for a TPU: a narrow map [n, h, w, c] as [n, h, w / g, g c], where g c is 128 at most.

A TPU lays the channels along 128 lanes, so that of a map of 64 channels half is padding, in memory and in time. In a
contiguous array packing is a reshape: between two operations that both pack, the compiler removes it.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

_LANES = 128


def group(width: int, *channels: int) -> int:
    """How many columns are packed into the channels of a map so wide: a power of two; 1 where it stays as it is.

    Args:
        width: of the map, in columns; what does not divide it is not packed.
        channels: of the map, or of all maps that have to be packed alike.
    """
    columns = 1
    while 2 * columns * max(channels) <= _LANES and width % (2 * columns) == 0:
        columns *= 2
    return columns


def packed(x: Float[Array, "n h w c"], columns: int) -> Float[Array, "n h p gc"]:
    """The map with so many columns, which lie side by side, in its channels."""
    return x.reshape(*x.shape[:2], -1, columns * x.shape[3])


def unpacked(x: Float[Array, "n h p gc"], columns: int) -> Float[Array, "n h w c"]:
    """The inverse of `packed`."""
    return x.reshape(*x.shape[:2], -1, x.shape[3] // columns)


def packed_kernel(kernel: Float[Array, "k l c d"], columns: int) -> Float[Array, "k m gc gd"]:
    """The kernel that makes of a packed map what `kernel`, of odd width, makes of the map; much of it is zeros."""
    height, width, channels, out = kernel.shape
    far = -(-(width // 2) // columns)  # groups of columns on either side
    length = (2 * far + 1) * columns
    parts = []
    for column in range(columns):
        before = far * columns + column - width // 2
        amounts = [(0, 0, 0), (before, length - width - before, 0), (0, 0, 0), (0, 0, 0)]
        parts.append(lax.pad(kernel, jnp.zeros((), kernel.dtype), amounts))
    return jnp.stack(parts, 3).reshape(height, 2 * far + 1, columns * channels, columns * out)
