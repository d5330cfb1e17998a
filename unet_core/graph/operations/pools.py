"""Pools: the largest number, or the mean, of each window."""

from unet_core.graph.operations.table import Dims, Ints, operation, spatial, windows
from unet_core.graph.sizes import Shape


@operation
def max_pool(x: Shape, *, window: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool = False) -> Shape:
    """Pads with minus infinity."""
    sizes = zip(spatial(x), window, stride, padding, dilation, strict=True)
    return (*x[:2], *(windows(size, k, step, pad, pad, far, ceil=ceil) for size, k, step, pad, far in sizes))


@operation
def average_pool(
    x: Shape,
    *,
    window: Ints,
    stride: Ints,
    padding: Ints,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Shape:
    """Divides by `divisor`, or by the window's size, of which `count_padding` says whether the padding counts."""
    sizes = zip(spatial(x), window, stride, padding, strict=True)
    return (*x[:2], *(windows(size, k, step, pad, pad, ceil=ceil) for size, k, step, pad in sizes))


@operation
def adaptive_average_pool(x: Shape, *, size: Dims) -> Shape:
    """Means of `size` windows that cover the map as evenly as they can."""
    return (*x[:2], *size)


@operation
def adaptive_max_pool(x: Shape, *, size: Dims) -> Shape:
    """Largest values of `size` windows that cover the map as evenly as they can."""
    return (*x[:2], *size)
