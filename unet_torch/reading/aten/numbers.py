"""Numbers that code makes from the picture's sizes: integers, and quotients of which it takes the floor."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from unet_core.graph.sizes import Dim, Size, largest, smallest

_LARGEST_DIVISOR = 2**20


@dataclass(frozen=True)
class Quotient:
    """A size divided by another, both whole; what a float is in code that counts pixels."""

    numerator: Dim
    divisor: Dim


class _Unknown:
    """What a comparison of sizes says; code that went on has asked for it already."""


UNKNOWN = _Unknown()

Number = int | float | Size | Quotient


def _quotient(value: Any) -> Quotient:
    if isinstance(value, Quotient):
        return value
    if isinstance(value, int | Size):
        return Quotient(value, 1)
    numerator, divisor = float(value).as_integer_ratio()
    if divisor > _LARGEST_DIVISOR:
        raise ValueError(f"a size times {value}, which is no simple fraction")
    return Quotient(numerator, divisor)


def _shortened(value: Quotient) -> Number:
    if isinstance(value.numerator, int) and isinstance(value.divisor, int):
        return value.numerator / value.divisor
    return value


def _add(one: Any, other: Any) -> Number:
    if _whole(one, other):
        return one + other
    a, b = _quotient(one), _quotient(other)
    if a.divisor == b.divisor:
        return _shortened(Quotient(a.numerator + b.numerator, a.divisor))
    return _shortened(Quotient(a.numerator * b.divisor + b.numerator * a.divisor, a.divisor * b.divisor))


def _multiply(one: Any, other: Any) -> Number:
    if _whole(one, other):
        return one * other
    a, b = _quotient(one), _quotient(other)
    return _shortened(Quotient(a.numerator * b.numerator, a.divisor * b.divisor))


def _divide(one: Any, other: Any) -> Number:
    a, b = _quotient(one), _quotient(other)
    return _shortened(Quotient(a.numerator * b.divisor, a.divisor * b.numerator))


def _negative(one: Any) -> Number:
    return _multiply(one, -1)


def _floor_divide(one: Any, other: Any) -> Dim:
    if _whole(one, other):
        return one // other
    return floor(_divide(one, other))


def _power(one: Any, other: Any) -> Number:
    if not isinstance(other, int) or not 0 <= other <= 8:
        raise ValueError("a power of a size")
    return math.prod([one] * other)


def floor(value: Any) -> Dim:
    """The whole part; sizes are not below zero, so it is what `int` takes as well."""
    quotient = _quotient(value)
    return quotient.numerator // quotient.divisor


def _ceil(value: Any) -> Dim:
    quotient = _quotient(value)
    return (quotient.numerator + quotient.divisor - 1) // quotient.divisor


def _whole(*values: Any) -> bool:
    return all(isinstance(value, int | Size) for value in values)


def _extreme(function: Callable[[Dim, Dim], Dim]) -> Callable[[Any, Any], Number]:
    def of_two(one: Any, other: Any) -> Number:
        if not _whole(one, other):
            raise ValueError("the larger or smaller of two quotients")
        return function(one, other)

    return of_two


def _itself(value: Any) -> Any:
    return value


def _comparison(*_: Any) -> _Unknown:
    return UNKNOWN


_FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    operator.add: _add,
    operator.sub: lambda one, other: _add(one, _negative(other)),
    operator.mul: _multiply,
    operator.floordiv: _floor_divide,
    operator.truediv: _divide,
    operator.mod: lambda one, other: one % other,
    operator.neg: _negative,
    operator.pow: _power,
    math.floor: floor,
    math.trunc: floor,
    math.ceil: _ceil,
    torch.sym_int: floor,
    torch.sym_float: _itself,
    torch.sym_max: _extreme(largest),
    torch.sym_min: _extreme(smallest),
    torch.sym_sum: sum,
    **dict.fromkeys((operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne), _comparison),
    **dict.fromkeys((operator.and_, operator.or_, torch.sym_not), _comparison),
}


def known(function: Any) -> bool:
    """Whether code may call this function with sizes."""
    return function in _FUNCTIONS


def computed(function: Any, arguments: tuple[Any, ...]) -> Any:
    """What a function that code calls with sizes returns.

    Raises:
        ValueError: it is no expression of whole numbers.
    """
    if any(argument is UNKNOWN for argument in arguments):
        return UNKNOWN
    return _FUNCTIONS[function](*arguments)
