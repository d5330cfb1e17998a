"""Arithmetic: of two maps, or of one and a number on its left or right."""

from unet_core.graph.operations.table import Number, Relation, broadcast, operation
from unet_core.graph.sizes import Shape


def _binary(x: Shape, y: Shape | None = None, *, left: Number | None = None, right: Number | None = None) -> Shape:
    if sum(part is not None for part in (y, left, right)) != 1:
        raise ValueError("two operands are needed")
    return x if y is None else broadcast(x, y)


for _name in ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum"):
    operation(_binary, _name)


@operation
def compare(
    x: Shape, y: Shape | None = None, *, relation: Relation, left: Number | None = None, right: Number | None = None
) -> Shape:
    """Whether the relation holds."""
    return x if y is None else broadcast(x, y)


@operation
def where(condition: Shape, x: Shape, y: Shape) -> Shape:
    """`x` where the condition holds, else `y`."""
    return broadcast(condition, x, y)
