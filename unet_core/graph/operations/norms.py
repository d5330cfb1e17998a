"""Normalisation."""

from unet_core.graph.operations.table import Role, operation
from unet_core.graph.sizes import Shape


@operation
def batch_norm(
    x: Shape,
    *,
    weight: Role | None = None,
    bias: Role | None = None,
    mean: Role | None = None,
    variance: Role | None = None,
    count: Role | None = None,
    epsilon: float,
    momentum: float | None,
    frozen: bool = False,
) -> Shape:
    """In training, or without running statistics, by those of the batch; `frozen`: always by the running ones.

    The momentum is the weight of the new batch; None: a cumulative average, by `count`.
    """
    return x


@operation
def instance_norm(
    x: Shape,
    *,
    weight: Role | None = None,
    bias: Role | None = None,
    mean: Role | None = None,
    variance: Role | None = None,
    count: Role | None = None,
    epsilon: float,
    momentum: float | None = None,
) -> Shape:
    """Each map of each example by its own statistics; with running ones, by these in eval mode."""
    return x


@operation
def group_norm(x: Shape, *, weight: Role | None = None, bias: Role | None = None, groups: int, epsilon: float) -> Shape:
    """Each group of channels of each example by its own statistics."""
    return x


@operation
def layer_norm(x: Shape, *, weight: Role | None = None, bias: Role | None = None, axes: int, epsilon: float) -> Shape:
    """Over the last so many axes."""
    return x
