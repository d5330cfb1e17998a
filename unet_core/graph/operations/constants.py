"""Tensors without an input."""

from unet_core.graph.operations.table import Dims, Dtype, Ints, Number, Role, operation
from unet_core.graph.sizes import Shape


@operation
def constant(*, values: tuple[float, ...], shape: Ints, dtype: Dtype | None = None) -> Shape:
    """These numbers; without a dtype, in that of the network."""
    return shape


@operation
def full(*, shape: Dims, value: Number, dtype: Dtype | None = None) -> Shape:
    """One number everywhere; without a dtype, in that of the network."""
    return shape


@operation
def parameter(*, value: Role) -> Shape:
    """A tensor of the network by itself, such as a position embedding or a learned factor."""
    return tuple(value)
