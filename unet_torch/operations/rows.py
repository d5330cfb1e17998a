"""A row of the table of operations, and what it may ask for beside its tensors."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

Number = int | float
Row = Callable[..., Any]
"""What an operation computes: a function with the parameters of `unet_core.graph.operations`."""


@runtime_checkable
class Run(Protocol):
    """One pass through a network."""

    training: bool
    """Whether it runs in training mode."""
    dtype: torch.dtype
    """Of numbers that have none of their own."""

    def track(self, role: str, value: Tensor) -> None:
        """Take the new value of a tensor of the node, by its role."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draw random numbers from 0 to 1, 1 left out."""


def named(*rows: Row) -> dict[str, Row]:
    """These rows by the names of their operations."""
    return {row.__name__.rstrip("_"): row for row in rows}


def of_rank(x: Tensor, *rows: Any) -> Any:
    """The one for maps of one, two or three dimensions."""
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"a map of {x.ndim - 2} dimensions")
    return rows[x.ndim - 3]
