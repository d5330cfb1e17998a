"""A row of the table of operations in ONNX: a function of the writer, and of where its answer goes.

Its other parameters are those of `unet_core.graph.operations`; inputs and roles are the names of what was written.
"""

from collections.abc import Callable
from typing import Any

from unet_core.graph.sizes import Shape

To = dict[str, Any]
"""The name and the shape of the answer, for the operator that gives it."""
Row = Callable[..., str]


def named(*rows: Row) -> dict[str, Row]:
    """These rows by the names of their operations."""
    return {row.__name__.rstrip("_"): row for row in rows}


def spatial(shape: Shape) -> tuple[int, ...]:
    """The numbers of the axes of a map behind batch and channels."""
    return tuple(range(2, len(shape)))
