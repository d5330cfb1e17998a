"""What a map becomes when a view of it is written to."""

from collections.abc import Sequence
from typing import Any

from unet_core.graph.sizes import Dim
from unet_torch.reading.aten.shapes import cut, permute, place, reshaped
from unet_torch.reading.program import Array, Program, UnreadableError

_SAME = ("alias", "detach", "contiguous", "to", "dropout", "feature_dropout", "type_as", "expand_as", "expand")
_RESHAPES = ("view", "_unsafe_view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "view_as")


def unviewed(p: Program, view: str, base: Any, arguments: Sequence[Any], value: Any) -> Any:
    """The new value of what a view shows a part of.

    Args:
        p: the program.
        view: the operator that made the view.
        base: what it was made of.
        arguments: of the operator, behind `base`.
        value: what is written to the view.

    Raises:
        UnreadableError: a view of another kind.
    """
    if view == "getitem":
        return tuple(value if number == arguments[0] else item for number, item in enumerate(base))
    if view in _SAME and value.shape == base.shape:
        return value
    if view in _RESHAPES:
        return reshaped(p, value, base.shape)
    rank = len(base.shape)
    match view, arguments:
        case "slice", [dim, *more]:
            size = base.shape[dim]
            start, end, step = (*more, None, None, None)[:3]
            if step in (None, 1):
                return _replaced(p, base, dim, place(p, size, start, 0), place(p, size, end, size), value)
        case "select", [dim, index]:
            start = index + base.shape[dim] if p.hint(index) < 0 else index
            shape = list(base.shape)
            shape[dim] = 1
            return _replaced(p, base, dim, start, start + 1, reshaped(p, value, shape))
        case "permute", [dims]:
            axes = [axis % rank for axis in dims]
            return permute(p, value, [axes.index(axis) for axis in range(rank)])
        case "transpose", [one, other]:
            axes = list(range(rank))
            axes[one], axes[other] = axes[other], axes[one]
            return permute(p, value, axes)
        case (("split" | "split_with_sizes" | "chunk"), [_, *more]):
            return p.add("concatenate", *value, axis=(more[0] if more else 0) % rank)
        case "unbind", more:
            return p.add("stack", *value, axis=(more[0] if more else 0) % rank)
    raise UnreadableError(f"{p.place}: it writes to a view of a map by {view}")


def _replaced(p: Program, base: Array, dim: int, start: Dim, stop: Dim, value: Array) -> Array:
    """A map with other numbers from one place on an axis to another."""
    size, axis = base.shape[dim], dim % len(base.shape)
    before = [] if start == 0 else [cut(p, base, axis, 0, start)]
    after = [] if stop == size else [cut(p, base, axis, stop, size)]
    parts = [*before, value, *after]
    return value if len(parts) == 1 else p.add("concatenate", *parts, axis=axis)
