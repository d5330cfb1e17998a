"""The register of ATen's operators that become operations of a graph."""

from collections.abc import Callable
from typing import Any

Number = int | float
"""What code may write for a float."""

Row = Callable[..., Any]
"""Takes the program, then the operator's arguments, those at their defaults left out, and returns its output."""

ROWS: dict[str, Row] = {}
"""By the name of the operator, without overload and without the underscore of those that work in place."""


def row(*names: str) -> Callable[[Row], Row]:
    """Register a row under these names."""

    def registered(function: Row) -> Row:
        for name in names:
            ROWS[name] = function
        return function

    return registered


def of_rank(values: Any, rank: int) -> tuple[Any, ...]:
    """One for each spatial axis."""
    values = tuple(values) if isinstance(values, list | tuple) else (values,)
    return values * rank if len(values) == 1 else values
