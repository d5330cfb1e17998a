"""A row of the table of operations, and what it may ask for beside its arrays."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from jax import Array


class Layout(Enum):
    """The order of the axes in which a row takes its inputs and answers."""

    MAPS = "maps"
    """Channels last. Kernels of convolutions are [window..., in / groups, out], of transposed ones [window..., in,
    out / groups]."""
    TORCH = "torch"
    """As torch has it."""
    SAME = "same"
    """Any one for all; axes are counted in it. Reductions that keep no axis are for torch's order."""


@dataclass(frozen=True)
class Row:
    """What an operation computes: a function with the parameters of `unet_core.graph.operations`."""

    function: Callable[..., Array]
    layout: Layout

    @cached_property
    def needs_run(self) -> bool:
        """Whether it takes the `Run`."""
        return "run" in inspect.signature(self.function).parameters


@runtime_checkable
class Run(Protocol):
    """One pass through a network."""

    training: bool
    """Whether it runs in training mode."""
    dtype: Any
    """Of numbers that have none of their own."""
    strips: int
    """Equal parts of a map's rows that lie on devices of their own."""

    def track(self, role: str, value: Array) -> None:
        """Take the new value of a tensor of the node, by its role."""

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """Draw random numbers from 0 to 1, 1 left out; the shape is in the row's layout."""


def in_same(**functions: Callable[..., Array]) -> dict[str, Row]:
    """Rows of the layout SAME by their names."""
    return {name: Row(function, Layout.SAME) for name, function in functions.items()}


def in_torchs(**functions: Callable[..., Array]) -> dict[str, Row]:
    """Rows of the layout TORCH by their names."""
    return {name: Row(function, Layout.TORCH) for name, function in functions.items()}


def of_maps(**functions: Callable[..., Array]) -> dict[str, Row]:
    """Rows of the layout MAPS by their names."""
    return {name: Row(function, Layout.MAPS) for name, function in functions.items()}
