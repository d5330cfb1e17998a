"""A row of the table of ONNX operations, and the attributes that it reads."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from conversion.sources.onnx_graph.values import Constant, Map, UnreadableError, Value, Writer

Row = Callable[..., Value | tuple[Value, ...]]
F = TypeVar("F", bound=Row)

ROWS: dict[str, Row] = {}
"""By the name of the operation in ONNX."""


def row(*names: str) -> Callable[[F], F]:
    """Add a row for these operations."""

    def added(function: F) -> F:
        ROWS.update(dict.fromkeys(names, function))
        return function

    return added


class Attributes:
    """The attributes of one operation; one that its row does not read is refused.

    Args:
        operation: its name in ONNX.
        values: by name.
        opset: the version of the operations.
        outputs: how many outputs are used, up to the last.
    """

    def __init__(self, operation: str, values: Mapping[str, Any], opset: int, outputs: int = 1) -> None:
        self.operation, self.opset, self.outputs = operation, opset, outputs
        self._values = dict(values)

    def __call__(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        value = self._values.pop(name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def ints(self, name: str, default: Any = None) -> tuple[int, ...] | None:
        """A row of whole numbers."""
        value = self(name, default)
        return None if value is None else tuple(value)

    def only(self, **wanted: Any) -> None:
        """Raise where attributes have other values than these.

        Raises:
            UnreadableError: one has.
        """
        for name, value in wanted.items():
            found = self(name, value)
            if found != value and list(found if isinstance(found, list | tuple) else [found]) != value:
                raise UnreadableError(f"with {name}={found}")

    def axes(self, given: Value | None = None) -> tuple[int, ...] | None:
        """The axes of an operation, which are an attribute in older versions, and an input in newer ones."""
        if given is None:
            return self.ints("axes")
        return whole(given)

    def finish(self) -> None:
        """Raise where the row has not read them all.

        Raises:
            UnreadableError: it has not.
        """
        if self._values:
            name, value = next(iter(self._values.items()))
            raise UnreadableError(f"with {name}={value}")


def whole(value: Value) -> tuple[int, ...]:
    """Whole numbers that the file has.

    Raises:
        UnreadableError: they are computed.
    """
    sizes = value.sizes if isinstance(value, Constant) else (None,)
    if not all(isinstance(size, int) for size in sizes):
        raise UnreadableError("its axes or indices are computed from the picture")
    return sizes  # type: ignore[return-value]


def constant(value: Value | None) -> Constant:
    """A value that is known when the file is read.

    Raises:
        UnreadableError: it is computed from the picture's numbers.
    """
    if not isinstance(value, Constant):
        raise UnreadableError("what should be a constant is computed from the picture")
    return value


def rank(x: Value) -> int:
    """How many axes it has."""
    return len(x.shape)


__all__ = [
    "ROWS",
    "Attributes",
    "Constant",
    "Map",
    "UnreadableError",
    "Value",
    "Writer",
    "constant",
    "rank",
    "row",
    "whole",
]
