"""Columns packed into channels, for a TPU: a narrow map [n, h, w, c] as [n, h, w / g, g c], where g c is 128 at most.

A TPU lays the channels along 128 lanes, so that of a map of 64 channels half is padding, in memory and in time. In a
contiguous array packing is a reshape: between two operations that both pack, the compiler removes it.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

LANES = 128


def group(width: int, *channels: int) -> int:
    """How many columns are packed into the channels of a map so wide: a power of two; 1 where it stays as it is.

    Args:
        width: of the map, in columns; what does not divide it is not packed.
        channels: of the map, or of all maps that have to be packed alike.
    """
    columns = 1
    while 2 * columns * max(channels) <= LANES and width % (2 * columns) == 0:
        columns *= 2
    return columns


def packed(x: Float[Array, "n h w c"], columns: int) -> Float[Array, "n h p gc"]:
    """The map with so many columns, which lie side by side, in its channels."""
    return x.reshape(*x.shape[:2], -1, columns * x.shape[3])


def unpacked(x: Float[Array, "n h p gc"], columns: int) -> Float[Array, "n h w c"]:
    """The inverse of `packed`."""
    return x.reshape(*x.shape[:2], -1, x.shape[3] // columns)


def each(values: Float[Array, " c"], columns: int) -> Float[Array, " gc"]:
    """What is of a channel, for each of the columns that are packed."""
    return jnp.tile(values, columns)


def by_channel(values: Float[Array, " gc"], like: Float[Array, " c"]) -> Float[Array, "g c"]:
    """The inverse."""
    return values.reshape(-1, *like.shape)


def reach(width: int, before: int, columns: int, stride: int = 1) -> tuple[int, int]:
    """How many groups of columns, left and right of its own, a group of a convolution's answer draws on.

    Args:
        width: of the kernel.
        before: columns of padding on the left.
        columns: in a group of the answer; in one of the map there are `stride` times as many.
        stride: of the convolution.
    """
    return -(-before // (stride * columns)), (stride * (columns - 1) + width - 1 - before) // (stride * columns)


def packed_kernel(
    kernel: Float[Array, "k l c d"], columns: int, stride: int = 1, before: int | None = None
) -> Float[Array, "k m sgc gd"]:
    """The kernel that makes of a packed map what `kernel` makes of the map; much of it is zeros.

    Args:
        kernel: of the convolution.
        columns, stride, before: as in `reach`; with the half of the kernel's width before, the map keeps its own.
    """
    height, width, channels, out = kernel.shape
    before = width // 2 if before is None else before
    near, far = reach(width, before, columns, stride)
    size = stride * columns
    length = (near + 1 + far) * size
    parts = []
    for column in range(columns):
        first = near * size + stride * column - before
        amounts = [(0, 0, 0), (first, length - width - first, 0), (0, 0, 0), (0, 0, 0)]
        parts.append(lax.pad(kernel, jnp.zeros((), kernel.dtype), amounts))
    return jnp.stack(parts, 3).reshape(height, near + 1 + far, size * channels, columns * out)
