"""The same numbers in another order or shape, padding, and what lies side by side."""

from unet_core.graph.operations.table import Amounts, Dims, Ints, Padding, operation
from unet_core.graph.sizes import Dim, Shape


@operation
def pad(x: Shape, *, amounts: Amounts, mode: Padding = "constant", value: float = 0.0) -> Shape:
    """By so many along each axis; cut off where below zero."""
    return tuple(size + before + after for size, (before, after) in zip(x, amounts, strict=True))


@operation
def slice(x: Shape, *, axis: int, start: Dim, stop: Dim, step: int = 1) -> Shape:
    """From `start` to before `stop`, both from the beginning of the axis."""
    axis %= len(x)
    return (*x[:axis], (stop - start + step - 1) // step, *x[axis + 1 :])


@operation
def select(x: Shape, *, axis: int, index: Dim) -> Shape:
    """One of an axis, which is gone then."""
    axis %= len(x)
    return (*x[:axis], *x[axis + 1 :])


@operation
def take(x: Shape, *, axis: int, indices: Ints) -> Shape:
    """Those of these indices along an axis."""
    axis %= len(x)
    return (*x[:axis], len(indices), *x[axis + 1 :])


@operation
def concatenate(x: Shape, *more: Shape, axis: int) -> Shape:
    """Side by side along an axis."""
    axis %= len(x)
    return (*x[:axis], sum((shape[axis] for shape in more), x[axis]), *x[axis + 1 :])


@operation
def stack(x: Shape, *more: Shape, axis: int) -> Shape:
    """Along a new axis."""
    axis %= len(x) + 1
    return (*x[:axis], 1 + len(more), *x[axis:])


@operation
def reshape(x: Shape, *, shape: Dims) -> Shape:
    """The same numbers in another shape."""
    return shape


@operation
def permute(x: Shape, *, axes: Ints) -> Shape:
    """The axes in another order."""
    return tuple(x[axis] for axis in axes)


@operation
def expand(x: Shape, *, shape: Dims) -> Shape:
    """Repeated along axes of one; new ones come first."""
    return shape


@operation
def tile(x: Shape, *, times: Dims) -> Shape:
    """So many copies side by side along each of the last axes."""
    rank = max(len(x), len(times))
    sizes, counts = (1,) * (rank - len(x)) + x, (1,) * (rank - len(times)) + times
    return tuple(size * count for size, count in zip(sizes, counts, strict=True))


@operation
def flip(x: Shape, *, axes: Ints) -> Shape:
    """Backward along these axes."""
    return x


@operation
def roll(x: Shape, *, shifts: Dims, axes: Ints) -> Shape:
    """Moved along these axes; what leaves at one end comes in at the other."""
    return x
