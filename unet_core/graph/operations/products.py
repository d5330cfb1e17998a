"""Products of matrices, sums of products, and attention."""

from unet_core.graph.operations.table import broadcast, operation
from unet_core.graph.sizes import Dim, Shape


@operation
def matmul(x: Shape, y: Shape) -> Shape:
    """Matrix products over the last two axes, broadcast over the others."""
    return (*broadcast(x[:-2], y[:-2]), x[-2], y[-1])


@operation
def einsum(x: Shape, *more: Shape, equation: str) -> Shape:
    """A sum of products, by the letters of the axes: `nhqd,nhkd->nhqk`."""
    inputs, arrow, answer = equation.replace(" ", "").partition("->")
    axes = inputs.split(",")
    if not arrow or len(axes) != 1 + len(more) or not inputs.replace(",", "").isalpha():
        raise ValueError(f"no equation of {1 + len(more)} arrays: {equation[:80]!r}")
    letters: dict[str, Dim] = {}
    for names, shape in zip(axes, (x, *more), strict=True):
        letters |= {name: size for name, size in zip(names, shape, strict=True) if letters.get(name, 1) == 1}
    return tuple(letters[name] for name in answer)


@operation
def attention(
    query: Shape,
    key: Shape,
    value: Shape,
    mask: Shape | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    rate: float = 0.0,
) -> Shape:
    """softmax(query key^T * scale + mask) value; by default the scale is 1 / sqrt(width), `rate` drops weights."""
    return (*query[:-1], value[-1])
