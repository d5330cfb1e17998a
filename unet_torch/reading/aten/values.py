"""The same numbers under another name or in another dtype, and maps of one number."""

from collections.abc import Sequence
from typing import Any

import torch

from unet_core.graph.sizes import Dim, Size
from unet_torch.reading.aten.rows import row
from unet_torch.reading.aten.shapes import expand
from unet_torch.reading.program import Array, Constant, Program, UnreadableError, named_dtype


@row("clone", "contiguous", "alias", "lift_fresh", "lift_fresh_copy", "positive")
def same(p: Program, x: Array) -> Array:
    """Nothing."""
    return x


@row("detach")
def detach(p: Program, x: Array) -> Array:
    """Nothing for the output; the gradient ends there."""
    if p.training and p.is_trained(x):
        raise UnreadableError(f"{p.place}: it detaches a map from its gradient")
    return x


@row("to", "_to_copy", "type_as")
def cast(p: Program, x: Array, dtype: torch.dtype | None = None, y: Array | None = None) -> Array:
    """In another dtype, or in that of another tensor."""
    wanted = dtype if y is None else y.dtype
    return x if wanted in (None, x.dtype) else p.add("cast", x, dtype=named_dtype(wanted))


@row("copy")
def copy(p: Program, x: Array, src: Any) -> Array:
    """Another map, in the shape and dtype of this one."""
    source = p.map(src)
    return cast(p, expand(p, source, x.shape), x.dtype)


@row("fill")
def fill(p: Program, x: Array, value: Any) -> Array:
    """One number everywhere."""
    number = value.tensor.item() if isinstance(value, Constant) and not value.shape else value
    if not isinstance(number, int | float):
        return copy(p, x, value)
    return made(p, x.shape, number, x.dtype)


@row("zero")
def zero(p: Program, x: Array) -> Array:
    """Zero everywhere."""
    return made(p, x.shape, 0.0, x.dtype)


def made(p: Program, shape: Sequence[Dim], value: Any, dtype: torch.dtype | None = None) -> Array:
    """One number everywhere, in torch's default dtype, which is the network's where it is read."""
    kept = torch.float64 if dtype is None else dtype
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) == len(shape) and not isinstance(value, Size):
        return Constant(torch.full(sizes, value, dtype=kept))
    return p.add("full", shape=tuple(shape), value=value, dtype=named_dtype(kept))


@row("zeros", "empty", "new_zeros", "new_empty")
def zeros(p: Program, x: Array | None = None, size: Sequence[Dim] = (), dtype: torch.dtype | None = None) -> Array:
    """Zeros; what nothing has written to as well."""
    return made(p, size, 0.0, dtype or (None if x is None else x.dtype))


@row("ones", "new_ones")
def ones(p: Program, x: Array | None = None, size: Sequence[Dim] = (), dtype: torch.dtype | None = None) -> Array:
    """Ones."""
    return made(p, size, 1.0, dtype or (None if x is None else x.dtype))


@row("full", "new_full")
def full(
    p: Program,
    x: Array | None = None,
    size: Sequence[Dim] = (),
    fill_value: Any = 0.0,
    dtype: torch.dtype | None = None,
) -> Array:
    """One number."""
    return made(p, size, fill_value, dtype or (None if x is None else x.dtype))


@row("zeros_like", "empty_like")
def zeros_like(p: Program, x: Array, dtype: torch.dtype | None = None) -> Array:
    """Zeros in the shape of a map."""
    return made(p, x.shape, 0.0, dtype or x.dtype)


@row("ones_like")
def ones_like(p: Program, x: Array, dtype: torch.dtype | None = None) -> Array:
    """Ones in the shape of a map."""
    return made(p, x.shape, 1.0, dtype or x.dtype)


@row("full_like")
def full_like(p: Program, x: Array, fill_value: Any, dtype: torch.dtype | None = None) -> Array:
    """One number in the shape of a map."""
    return made(p, x.shape, fill_value, dtype or x.dtype)
