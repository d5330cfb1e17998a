"""Arithmetic of two maps, or of a map and a number."""

from typing import Any

from unet_core.graph.sizes import Size
from unet_torch.reading.aten.numbers import Quotient
from unet_torch.reading.aten.rows import Number, row
from unet_torch.reading.program import Array, Constant, Map, Program, UnreadableError

_NUMBERS = (int, float, Size)


def two(p: Program, operation: str, x: Any, y: Any, **attributes: Any) -> Map:
    """An operation of two operands, of which one may be a number."""
    x, y = _number(x), _number(y)
    if isinstance(y, _NUMBERS):
        return p.add(operation, x, right=y, **attributes)
    if isinstance(x, _NUMBERS):
        return p.add(operation, y, left=x, **attributes)
    return p.add(operation, x, y, **attributes)


def _number(value: Any) -> Any:
    """A constant without axes as a number."""
    if isinstance(value, Constant) and not value.shape:
        return value.tensor.item()
    return value


def times(p: Program, x: Any, factor: Any) -> Any:
    """The product, by a quotient of sizes too."""
    if isinstance(factor, Quotient):
        return two(p, "divide", two(p, "multiply", x, factor.numerator), factor.divisor)
    return two(p, "multiply", x, factor)


def _scaled(p: Program, y: Any, alpha: Any) -> Any:
    if alpha == 1:
        return y
    y = _number(y)
    return y * alpha if isinstance(y, int | float) else two(p, "multiply", y, alpha)


@row("add")
def add(p: Program, x: Any, y: Any, alpha: Any = 1) -> Map:
    """The second one times `alpha`."""
    return two(p, "add", x, _scaled(p, y, alpha))


@row("sub", "subtract")
def subtract(p: Program, x: Any, y: Any, alpha: Any = 1) -> Map:
    """The second one times `alpha`."""
    return two(p, "subtract", x, _scaled(p, y, alpha))


@row("rsub")
def subtract_from(p: Program, x: Any, y: Any, alpha: Any = 1) -> Map:
    """The first one, times `alpha`, from the second."""
    return two(p, "subtract", y, _scaled(p, x, alpha))


@row("mul", "multiply")
def multiply(p: Program, x: Any, y: Any) -> Map:
    """The product."""
    return times(p, y, x) if isinstance(x, Quotient) else times(p, x, y)


@row("div", "divide", "true_divide")
def divide(p: Program, x: Any, y: Any, rounding_mode: str | None = None) -> Map:
    """The quotient, or its floor."""
    inverse = Quotient(y.divisor, y.numerator) if isinstance(y, Quotient) else None
    answer = two(p, "divide", x, y) if inverse is None else times(p, x, inverse)
    if rounding_mode is None:
        return answer
    if rounding_mode != "floor":
        raise UnreadableError(f"{p.place}: a division rounded by {rounding_mode}")
    return p.add("floor", answer)


@row("pow", "float_power")
def power(p: Program, x: Any, exponent: Any) -> Map:
    """Of a map, a number, or to a map."""
    return two(p, "power", x, exponent)


@row("square")
def square(p: Program, x: Array) -> Map:
    """The second power."""
    return p.add("power", x, right=2)


@row("addcmul")
def add_product(p: Program, x: Array, tensor1: Array, tensor2: Array, value: Number = 1) -> Map:
    """A map, and the product of two others."""
    return p.add("add", x, _scaled(p, p.add("multiply", tensor1, tensor2), value))


@row("lerp")
def between(p: Program, x: Array, end: Array, weight: Any) -> Map:
    """From one map to another, by a part of the way."""
    return p.add("add", x, times(p, p.add("subtract", end, x), weight))


@row("maximum")
def maximum(p: Program, x: Any, y: Any) -> Map:
    """The larger."""
    return two(p, "maximum", x, y)


@row("minimum")
def minimum(p: Program, x: Any, y: Any) -> Map:
    """The smaller."""
    return two(p, "minimum", x, y)


def _comparison(name: str, relation: str) -> None:
    @row(name)
    def compare(p: Program, x: Any, y: Any) -> Map:
        return two(p, "compare", x, y, relation=relation)


for _name, _relation in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}.items():
    _comparison(_name, _relation)


@row("where")
def where(p: Program, condition: Array, x: Any, y: Any) -> Map:
    """One of two, by a condition."""
    return p.add("where", condition, p.map(_number(x)), p.map(_number(y)))


@row("masked_fill")
def masked_fill(p: Program, x: Array, mask: Array, value: Any) -> Map:
    """A number where the mask is true."""
    return p.add("where", mask, p.map(_number(value)), x)
