"""Convolutions with columns packed into channels, and transposes of some, for a TPU."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unet_core.graph.operations import Ints
from unet_jax.kernels.general import convolved
from unet_jax.kernels.packing import LANES, group, packed, packed_kernel, reach, unpacked
from unet_jax.kernels.products import Geometry


def columns_of(width: int, kernel: Ints, plan: Geometry) -> int:
    """How many columns of the answer are packed, of a map so wide; 0 where nothing is.

    Args:
        width: of the map, in columns.
        kernel: its shape.
        plan: how it goes over the map.
    """
    _, size, channels, out = kernel
    _, stride = plan.stride
    made = (width + sum(plan.padding[1]) - size) // stride + 1
    if plan.groups > 1 or plan.dilation[1] > 1 or made * stride != width:
        return 0
    columns = group(made, stride * channels, out)
    return columns if columns * stride > 1 and columns * stride * channels <= LANES else 0


def convolved_packed(x: Float[Array, "n h w c"], kernel: Float[Array, "k l c d"], plan: Geometry) -> Array:
    """`convolved` with packed columns, where `columns_of` finds some."""
    columns = columns_of(x.shape[2], kernel.shape, plan)
    (down, stride), (ends, (before, _)) = plan.stride, plan.padding
    still = plan._replace(stride=(down, 1), padding=(ends, reach(kernel.shape[1], before, columns, stride)))
    y = convolved(packed(x, stride * columns), packed_kernel(kernel, columns, stride, before), still)
    return unpacked(y, columns)


def raised_packed(x: Float[Array, "n h w c"], kernel: Float[Array, "k l d c"]) -> Array:
    """The transpose of a convolution no two windows of which overlap, with packed columns, as many as fit.

    Along the columns it is a product for each group of them; along the rows the compiler moves the answers apart.
    """
    high, wide, out, channels = kernel.shape
    columns = group(x.shape[2], channels, wide * out)
    parts = []
    for column in range(columns):
        amounts = [(0, 0, 0), (column * wide, (columns - 1 - column) * wide, 0), (0, 0, 0), (0, 0, 0)]
        parts.append(lax.pad(kernel.mT, jnp.zeros((), kernel.dtype), amounts))
    packs = jnp.stack(parts, 1).swapaxes(2, 3).reshape(high, 1, columns * channels, columns * wide * out)
    plan = Geometry((1, 1), ((high - 1, high - 1), (0, 0)), (1, 1), 1)
    y = convolved(packed(x, columns), packs[::-1], plan, (high, 1))
    return unpacked(y, columns * wide)
