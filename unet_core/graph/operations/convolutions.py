"""Convolutions, transposed ones, and the linear layer."""

from unet_core.graph.operations.table import Ints, Pairs, Role, operation, spatial, windows
from unet_core.graph.sizes import Shape


@operation
def convolution(
    x: Shape, *, weight: Role, bias: Role | None = None, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Shape:
    """Pads with zeros; the kernel is [out, in / groups, ...]."""
    sizes = zip(spatial(x), weight[2:], stride, padding, dilation, strict=True)
    return (x[0], weight[0], *(windows(size, window, step, *pad, far) for size, window, step, pad, far in sizes))


@operation
def transposed_convolution(
    x: Shape,
    *,
    weight: Role,
    bias: Role | None = None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
) -> Shape:
    """The kernel is [in, out / groups, ...]."""
    sizes = zip(spatial(x), weight[2:], stride, padding, output_padding, dilation, strict=True)
    grown = (
        (size - 1) * step - 2 * pad + far * (window - 1) + more + 1 for size, window, step, pad, more, far in sizes
    )
    return (x[0], weight[1] * groups, *grown)


@operation
def linear(x: Shape, *, weight: Role, bias: Role | None = None) -> Shape:
    """Along the last axis."""
    return (*x[:-1], weight[0])
