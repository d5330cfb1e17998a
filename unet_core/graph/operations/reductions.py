"""One number for many: along some axes, or all."""

from unet_core.graph.operations.table import Ints, operation
from unet_core.graph.sizes import Shape


def _reduced(x: Shape, axes: Ints, *, keep: bool) -> Shape:
    gone = {axis % len(x) for axis in axes}
    if keep:
        return tuple(1 if axis in gone else size for axis, size in enumerate(x))
    return tuple(size for axis, size in enumerate(x) if axis not in gone)


def _reduction(x: Shape, *, axes: Ints, keep: bool = False) -> Shape:
    return _reduced(x, axes, keep=keep)


def _extremum(x: Shape, *, axis: int, keep: bool = False) -> Shape:
    return _reduced(x, (axis,), keep=keep)


for _name in ("mean", "sum", "amax", "amin"):
    operation(_reduction, _name)
for _name in ("largest", "smallest"):  # of equal numbers the first takes the gradient; in amax and amin they share it
    operation(_extremum, _name)


@operation
def variance(x: Shape, *, axes: Ints, keep: bool = False, correction: float = 1.0) -> Shape:
    """The sum of squared deviations divided by their number less `correction`."""
    return _reduced(x, axes, keep=keep)


@operation
def vector_norm(x: Shape, *, axes: Ints, keep: bool = False, order: float = 2.0) -> Shape:
    """The norm of this order."""
    return _reduced(x, axes, keep=keep)
