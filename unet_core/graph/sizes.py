"""Sizes of maps as integer expressions of the input's sizes: `height // 2 + 1`.

A sum of products of atoms, in one form only, so that equal sizes compare equal: a constant that the divisor divides
comes out of a floor division, common factors are cancelled, and two floor divisions one in the other become one.
"""

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any

AXES = ("batch", "depth", "height", "width")
"""The sizes of an input that an expression may name; pixels, but for `batch`."""

_LONGEST = 2000
"""Characters of an expression."""

_MOST_PARTS = 1000
"""Names and numbers of an expression, those of its parts among them; networks in use have some ten."""

_LARGEST = 2**62
"""A number in an expression."""

Atom = Any
"""A name of `AXES`, or a function of sizes: ("//", numerator, divisor), ("max", one, other), ("min", one, other)."""
Monomial = tuple[Atom, ...]


class Size:
    """An integer that depends on the input's sizes. One that does not is a plain `int`: so are the results below.

    Raises:
        ValueError: it is longer than that of any network, as a file's that nobody vouches for may be.
    """

    __slots__ = ("parts", "terms")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.parts = sum(1 + sum(map(_parts, key)) for key in terms)
        if self.parts > _MOST_PARTS or any(abs(value) > _LARGEST for value in terms.values()):
            raise ValueError(f"a size of more than {_MOST_PARTS} parts, or with numbers above {_LARGEST}")
        self.terms: tuple[tuple[Monomial, int], ...] = tuple(
            sorted(
                ((key, value) for key, value in terms.items() if value), key=lambda term: (-len(term[0]), repr(term[0]))
            )
        )

    @staticmethod
    def from_text(text: str) -> "Dim":
        """The inverse of `str`.

        Raises:
            ValueError: it is no such expression.
        """
        if len(text) > _LONGEST:
            raise ValueError(f"a size of {len(text)} characters")
        try:
            return _parsed(ast.parse(text, mode="eval").body)
        except (SyntaxError, RecursionError, ZeroDivisionError, MemoryError) as error:
            raise ValueError(f"no size: {text[:80]!r}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def __add__(self, other: "Dim") -> "Dim":
        return _sum(((self, 1), (other, 1)))

    __radd__ = __add__

    def __sub__(self, other: "Dim") -> "Dim":
        return _sum(((self, 1), (other, -1)))

    def __rsub__(self, other: "Dim") -> "Dim":
        return _sum(((other, 1), (self, -1)))

    def __neg__(self) -> "Dim":
        return _sum(((self, -1),))

    def __mul__(self, other: "Dim") -> "Dim":
        if len(self.terms) * len(_terms(other)) > _MOST_PARTS:
            raise ValueError(f"a size of more than {_MOST_PARTS} parts")
        product: dict[Monomial, int] = {}
        for key, value in self.terms:
            for more, times in _terms(other):
                joined = tuple(sorted((*key, *more), key=repr))
                product[joined] = product.get(joined, 0) + value * times
        return _made(product)

    __rmul__ = __mul__

    def __floordiv__(self, other: "Dim") -> "Dim":
        return _divided(self, other)

    def __rfloordiv__(self, other: "Dim") -> "Dim":
        return _divided(other, self)

    def __mod__(self, other: "Dim") -> "Dim":
        return self - other * (self // other)

    def __rmod__(self, other: "Dim") -> "Dim":
        return other - self * (other // self)

    def __repr__(self) -> str:
        parts = []
        for number, (atoms, times) in enumerate(self.terms):
            sign = "-" if times < 0 else "+" if number else ""
            factors = [_written(atom) for atom in atoms]
            if abs(times) != 1 or not factors:
                factors.insert(0, str(abs(times)))
            product = " * ".join(factors)
            parts.append(f" {sign} {product}" if number else f"{sign}{product}")
        return "".join(parts)


Dim = int | Size
Shape = tuple[Dim, ...]


def named(axis: str) -> Size:
    """The size of the input along an axis of `AXES`."""
    return Size({(axis,): 1})


def largest(one: Dim, other: Dim) -> Dim:
    """The larger of the two."""
    return _extreme("max", one, other)


def smallest(one: Dim, other: Dim) -> Dim:
    """The smaller of the two."""
    return _extreme("min", one, other)


def divided(product: Iterable[Dim], by: Iterable[Dim]) -> Dim:
    """The quotient of two products, of which the second divides the first."""
    above, below = list(product), []
    for size in by:
        if size in above:
            above.remove(size)
        else:
            below.append(size)
    numerator, denominator = math.prod(above), math.prod(below)
    return numerator // denominator


def evaluate(size: Dim, sizes: Mapping[str, int]) -> int:
    """The number, where the input has these sizes, by the names of `AXES`."""
    if isinstance(size, int):
        return size
    return sum(times * math.prod(_value(atom, sizes) for atom in atoms) for atoms, times in size.terms)


def _parsed(node: ast.expr) -> Dim:
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name) if name in AXES:
            return named(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_parsed(operand)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return _OPERATORS[type(operator)](_parsed(left), _parsed(right))
        case ast.Call(func=ast.Name(id=("max" | "min") as name), args=[one, other], keywords=[]):
            return _extreme(name, _parsed(one), _parsed(other))
    raise ValueError(f"no part of a size: {ast.unparse(node)[:80]}")


_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Dim]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}


def _terms(size: Dim) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Size) else (((), size),)


def _made(terms: Mapping[Monomial, int]) -> Dim:
    left = {key: value for key, value in terms.items() if value}
    if not left:
        return 0
    return left[()] if set(left) == {()} else Size(left)


def _sum(parts: tuple[tuple[Dim, int], ...]) -> Dim:
    total: dict[Monomial, int] = {}
    for size, sign in parts:
        for key, value in _terms(size):
            total[key] = total.get(key, 0) + sign * value
    return _made(total)


def _divided(one: Dim, other: Dim) -> Dim:
    """The floor division, in the one form that it has."""
    if isinstance(other, Size):
        exact = _exactly(one, other)
        return Size({(("//", one, other),): 1}) if exact is None else exact
    if other < 1:
        raise ValueError(f"a size divided by {other}")
    if other == 1:
        return one
    if isinstance(one, int):
        return one // other
    whole = _made({key: value // other for key, value in one.terms})
    rest = {key: value % other for key, value in one.terms}
    constant = rest.pop((), 0)
    rest = {key: value for key, value in rest.items() if value}
    if not rest:
        return whole  # what is left of the constant is less than the divisor
    common = reduce(math.gcd, rest.values(), other)
    rest = {key: value // common for key, value in rest.items()}
    constant, divisor = constant // common, other // common
    if divisor == 1:
        return whole + _made({**rest, (): constant})
    match next(iter(rest.items())), len(rest):
        case ((((("//", inner, int() as below),), 1)), 1):
            return whole + _divided(inner + constant * below, below * divisor)
    return whole + Size({(("//", _made({**rest, (): constant}), divisor),): 1})


def _exactly(one: Dim, other: Size) -> Dim | None:
    """The quotient where every term of `one` has the only term of `other` in it."""
    if one == other:
        return 1
    if len(other.terms) != 1:
        return None
    (atoms, times), quotient = other.terms[0], {}
    for key, value in _terms(one):
        left = list(key)
        for atom in atoms:
            if atom not in left:
                return None
            left.remove(atom)
        if value % times:
            return None
        quotient[tuple(left)] = value // times
    return _made(quotient)


def _extreme(name: str, one: Dim, other: Dim) -> Dim:
    apart = one - other
    if isinstance(apart, int):
        return one if (apart >= 0) == (name == "max") else other
    first, second = sorted((one, other), key=repr)
    return Size({((name, first, second),): 1})


def _value(atom: Atom, sizes: Mapping[str, int]) -> int:
    if isinstance(atom, str):
        return sizes[atom]
    name, one, other = atom
    a, b = evaluate(one, sizes), evaluate(other, sizes)
    return a // b if name == "//" else max(a, b) if name == "max" else min(a, b)


def _parts(atom: Atom) -> int:
    if isinstance(atom, str):
        return 1
    return 1 + sum(part.parts if isinstance(part, Size) else 1 for part in atom[1:])


def _written(atom: Atom) -> str:
    if isinstance(atom, str):
        return atom
    name, one, other = atom
    if name != "//":
        return f"{name}({one}, {other})"
    numerator, divisor = (
        f"({part})" if isinstance(part, Size) and not _is_name(part) else str(part) for part in (one, other)
    )
    return f"({numerator} // {divisor})"


def _is_name(size: Size) -> bool:
    return (
        len(size.terms) == 1
        and size.terms[0][1] == 1
        and len(size.terms[0][0]) == 1
        and isinstance(size.terms[0][0][0], str)
    )
