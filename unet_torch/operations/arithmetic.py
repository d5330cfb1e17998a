"""Arithmetic of two tensors, or of one and a number on its left or right."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from unet_core.graph.operations import Relation
from unet_torch.operations.rows import Number, Row, named


def _arithmetic(function: Any) -> Row:
    def row(x: Tensor, y: Tensor | None = None, *, left: Number | None = None, right: Number | None = None) -> Tensor:
        return function(*_operands(x, y, left, right))

    return row


def _operands(x: Tensor, y: Tensor | None, left: Number | None, right: Number | None) -> tuple[Any, Any]:
    """The two, one of which may be a number."""
    if y is not None:
        return x, y
    return (x, right) if left is None else (left, x)


def _of_tensors(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Any], Tensor]:
    """For numbers too."""

    def either(x: Any, y: Any) -> Tensor:
        like = x if isinstance(x, Tensor) else y
        dtype = torch.result_type(x, y)
        return function(*(torch.as_tensor(part, dtype=dtype, device=like.device) for part in (x, y)))

    return either


_RELATIONS: Mapping[Relation, Callable[[Any, Any], Tensor]] = {
    "<": torch.lt,
    "<=": torch.le,
    ">": torch.gt,
    ">=": torch.ge,
    "==": torch.eq,
    "!=": torch.ne,
}


def compare(
    x: Tensor, y: Tensor | None = None, *, relation: Relation, left: Number | None = None, right: Number | None = None
) -> Tensor:
    return _of_tensors(_RELATIONS[relation])(*_operands(x, y, left, right))


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


ROWS = named(compare, where) | {
    name: _arithmetic(function)
    for name, function in {
        "add": torch.add,
        "subtract": torch.sub,
        "multiply": torch.mul,
        "divide": torch.div,
        "power": torch.pow,
        "maximum": _of_tensors(torch.maximum),
        "minimum": _of_tensors(torch.minimum),
    }.items()
}
