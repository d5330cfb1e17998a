"""Arithmetic, comparisons and casts of ONNX; of numbers and sizes that are known, their results."""

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversion.sources.onnx_graph.rows import (
    Attributes,
    Constant,
    Map,
    UnreadableError,
    Value,
    Writer,
    constant,
    rank,
    row,
)
from conversion.sources.onnx_graph.values import MOST_NUMBERS, Numbers
from unet_core.graph.sizes import Dim, Size, largest, smallest

_LARGEST_DIVISOR = 2**20


@dataclass(frozen=True)
class Ratio:
    """A size as a number that need not be whole."""

    size: Dim
    by: int = 1

    def __mul__(self, factor: Any) -> "Ratio":
        above, below = _fraction(factor)
        return Ratio(self.size * above, self.by * below)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "Ratio":
        above, below = _fraction(divisor)
        return Ratio(self.size * below, self.by * above)

    def whole(self, *, up: bool = False) -> Dim:
        """Rounded down, or up."""
        return -((-self.size) // self.by) if up else self.size // self.by


def _fraction(factor: Any) -> tuple[int, int]:
    above, below = (0, 0) if isinstance(factor, Ratio | Size) else float(factor).as_integer_ratio()
    if not 0 < above <= _LARGEST_DIVISOR or below > _LARGEST_DIVISOR:
        raise UnreadableError(f"a size times {factor}")
    return above, below


def _quotient(one: Any, other: Any) -> Any:
    """As ONNX divides: whole numbers toward zero; sizes are above zero."""
    if isinstance(one, float | Ratio) or isinstance(other, float):
        return one / other
    if isinstance(one, Size) or isinstance(other, Size):
        return one // other
    return int(one / other) if abs(one) < 2**50 else one // other


def each(function: Callable[..., Any], *given: Constant) -> Constant:
    """A function of each number.

    Raises:
        UnreadableError: there are too many.
    """
    arrays = [value.array for value in given]
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    if int(np.prod(shape, dtype=object)) > max(MOST_NUMBERS, *(array.size for array in arrays)):
        raise UnreadableError(f"a constant of {shape}")
    if all(array.dtype.kind == "f" for array in arrays):
        with np.errstate(all="ignore"):
            return Constant(np.asarray(function(*arrays), arrays[0].dtype))
    rows = np.broadcast_arrays(*(array.astype(object) for array in arrays))
    items = [function(*row) for row in zip(*(one.reshape(-1) for one in rows), strict=True)]
    symbolic = any(isinstance(item, Size | Ratio) for item in items)
    made = np.array(items, object) if symbolic or not items else np.array(items)
    return Constant(made.reshape(shape))


_BINARY: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "Add": ("add", operator.add),
    "Sub": ("subtract", operator.sub),
    "Mul": ("multiply", operator.mul),
    "Div": ("divide", _quotient),
    "Pow": ("power", operator.pow),
}
_EXTREME: Mapping[str, tuple[str, Callable[..., Any]]] = {"Max": ("maximum", largest), "Min": ("minimum", smallest)}


def _pair(w: Writer, operation: str, function: Callable[..., Any], x: Value, y: Value) -> Value:
    if isinstance(x, Constant) and isinstance(y, Constant):
        if function is _quotient and x.numbers == y.numbers == "float":
            function = operator.truediv
        if function in (largest, smallest) and x.numbers == "float":
            function = np.maximum if function is largest else np.minimum
        return each(function, x, y)
    for side, one, other in (("right", x, y), ("left", y, x)):
        if isinstance(other, Constant) and other.array.size == 1 and rank(other) <= rank(one):
            number = other.number
            if isinstance(number, Ratio):
                number = number.whole() if number.by == 1 else None
            if number is None:
                raise UnreadableError("a part of a size as a number")
            number = float(number) if one.numbers == "float" and not isinstance(number, Size) else number
            attributes: dict[str, Any] = {side: number}
            return w.add(operation, one, **attributes)
    return w.add(operation, x, y)


@row(*_BINARY)
def binary(w: Writer, at: Attributes, x: Value, y: Value) -> Value:
    """Of two maps, or of one and a number."""
    return _pair(w, *_BINARY[at.operation], x, y)


@row(*_EXTREME)
def extreme(w: Writer, at: Attributes, *xs: Value) -> Value:
    """The largest, or the smallest, of several."""
    return functools.reduce(lambda x, y: _pair(w, *_EXTREME[at.operation], x, y), xs)


@row("Sum", "Mean")
def total(w: Writer, at: Attributes, *xs: Value) -> Value:
    """Of several maps."""
    made = functools.reduce(lambda x, y: _pair(w, *_BINARY["Add"], x, y), xs)
    return made if at.operation == "Sum" else w.add("divide", made, right=float(len(xs)))


_RELATIONS: Mapping[str, tuple[str, Callable[..., bool]]] = {
    "Equal": ("==", operator.eq),
    "Greater": (">", operator.gt),
    "GreaterOrEqual": (">=", operator.ge),
    "Less": ("<", operator.lt),
    "LessOrEqual": ("<=", operator.le),
}


@row(*_RELATIONS)
def relation(w: Writer, at: Attributes, x: Value, y: Value) -> Value:
    """Of sizes as where the file was made, but that none is any one number."""
    name, function = _RELATIONS[at.operation]
    if isinstance(x, Constant) and isinstance(y, Constant):
        if function is operator.eq:
            return each(function, x, y)
        return each(lambda one, other: function(_hinted(w, one), _hinted(w, other)), x, y)
    if isinstance(y, Constant) and y.array.size == 1 and rank(y) <= rank(x):
        return w.add("compare", x, relation=name, right=y.number, numbers="bool")
    return w.add("compare", x, y, relation=name, numbers="bool")


def _hinted(w: Writer, size: Any) -> Any:
    return w.hint(size) if isinstance(size, Size) else size


_LOGIC: Mapping[str, Callable[..., Any]] = {
    "Not": operator.not_,
    "And": lambda one, other: bool(one and other),
    "Or": lambda one, other: bool(one or other),
    "Xor": lambda one, other: bool(one) != bool(other),
    "Mod": operator.mod,
}


@row(*_LOGIC)
def logic(w: Writer, at: Attributes, *xs: Value) -> Value:
    """Of what is known when the file is read."""
    at.only(fmod=0)
    return each(_LOGIC[at.operation], *map(constant, xs))


@row("Where")
def where(w: Writer, at: Attributes, condition: Value, x: Value, y: Value) -> Value:
    """One or the other."""
    if isinstance(condition, Constant) and isinstance(x, Constant) and isinstance(y, Constant):
        return each(lambda this, one, other: one if this else other, condition, x, y)
    made = w.add("where", condition, x, y)
    return Map(made.node, made.shape, x.numbers)


_CASTS: Mapping[int, tuple[Numbers, str | None]] = {
    **dict.fromkeys((1, 10, 11, 16), ("float", None)),
    **dict.fromkeys((2, 3, 4, 5, 6, 7, 12, 13), ("int", "int64")),
    9: ("bool", "bool"),
}
"""By ONNX's numbers of dtypes: all floats are in the network's dtype."""


@row("Cast")
def cast(w: Writer, at: Attributes, x: Value) -> Value:
    """To other numbers."""
    at("saturate")
    to = at("to")
    if to not in _CASTS:
        raise UnreadableError(f"to={to}")
    numbers, dtype = _CASTS[to]
    if isinstance(x, Map):
        return x if x.numbers == numbers else w.add("cast", x, dtype=dtype, numbers=numbers)
    if x.array.dtype.kind != "O":
        kinds: dict[Numbers, type[Any]] = {
            "float": np.float64 if to == 11 else np.float32,
            "int": np.int64,
            "bool": np.bool_,
        }
        same = x.numbers == numbers == "float"
        return x if same else Constant(x.array.astype(kinds[numbers]))
    if numbers == "float":
        return each(lambda size: size if isinstance(size, Ratio) else Ratio(size), x)
    return each(lambda size: size.whole() if isinstance(size, Ratio) else size, x)


@row("CastLike")
def cast_like(w: Writer, at: Attributes, x: Value, like: Value) -> Value:
    """To the numbers of another."""
    to = {"float": 1, "int": 7, "bool": 9}[like.numbers]
    return cast(w, Attributes("Cast", {"to": to}, at.opset), x)
