"""A row of the table of operations, the kinds of its attributes, and the sizes that several rows compute."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from unet_core.graph.sizes import Dim, Shape, Size, smallest


class Role(tuple[int, ...]):
    """The shape of a tensor that an operation has under this role."""


Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
"""For each spatial axis, before and after."""
Dims = tuple[Dim, ...]
Amounts = tuple[tuple[Dim, Dim], ...]
"""For each axis, before and after; below zero, what is cut off."""
Number = int | float | Size
"""A constant, or a size taken as a number."""
Mode = Literal["nearest", "nearest-exact", "linear", "cubic"]
Padding = Literal["constant", "reflect", "replicate", "circular"]
Relation = Literal["<", "<=", ">", ">=", "==", "!="]
Dtype = Literal["float64", "float32", "bfloat16", "float16", "int64", "int32", "bool"]
DropoutKind = Literal["elements", "maps", "examples"]
"""What is dropped at once: single numbers, whole maps (channels), or all of an example."""

Row = Callable[..., Shape]


@dataclass(frozen=True)
class Operation:
    """One row of the table."""

    name: str
    inputs: tuple[int, int | None]
    """How many inputs at least and at most; None: any number."""
    roles: Mapping[str, bool]
    """The roles of its tensors, and whether each is needed."""
    attributes: Mapping[str, tuple[Any, Any]]
    """Kind and default of each attribute; `inspect.Parameter.empty` where there is none."""
    shape: Row
    stored: bool = True
    """Whether a file's graph may have it; others are made by rewriting, for one framework."""


OPERATIONS: dict[str, Operation] = {}
"""Every operation that a graph may have, by its name."""

F = TypeVar("F", bound=Row)


def made_by_rewriting(row: F) -> F:
    """Add the row of an operation that no network has before its graph is rewritten."""
    operation(row)
    OPERATIONS[row.__name__] = dataclasses.replace(OPERATIONS[row.__name__], stored=False)
    return row


def operation(row: F, name: str = "") -> F:
    """Add a row under this name, or under that of the function."""
    parameters, hints = inspect.signature(row).parameters, get_type_hints(row)
    least: int = 0
    most: int | None = 0
    roles, attributes = {}, {}
    for key, parameter in parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = None
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            least += parameter.default is parameter.empty
            most = None if most is None else most + 1
        elif Role in (hints[key], *get_args(hints[key])):
            roles[key] = parameter.default is parameter.empty
        else:
            attributes[key] = hints[key], parameter.default
    name = name or row.__name__
    OPERATIONS[name] = Operation(name, (least, most), roles, attributes, row)
    return row


def spatial(x: Shape) -> Shape:
    """The sizes of a map without batch and channels."""
    return x[2:]


def windows(
    size: Dim, window: int, stride: int, before: int, after: int, dilation: int = 1, *, ceil: bool = False
) -> Dim:
    """How many windows lie along an axis."""
    reach = dilation * (window - 1) + 1
    if not ceil:
        return (size + before + after - reach) // stride + 1
    count = (size + before + after - reach + stride - 1) // stride + 1
    # A window that would start behind the map is left out.
    return smallest(count, (size + before - 1) // stride + 1)


def broadcast(*shapes: Shape) -> Shape:
    """The common shape.

    Of two sizes that are not the same expression the first counts: networks that add such maps take only inputs for
    which they are equal.
    """
    rank = max(map(len, shapes))
    grown = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*grown, strict=True))
