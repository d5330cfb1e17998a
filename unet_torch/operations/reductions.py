"""Reductions over axes."""

from typing import Any

import torch
from torch import Tensor

from unet_core.graph.operations import Ints
from unet_torch.operations.rows import Row, named


def _reduction(function: Any) -> Row:
    def row(x: Tensor, *, axes: Ints, keep: bool = False) -> Tensor:
        return function(x, axes, keepdim=keep)

    return row


def _extremum(function: Any) -> Row:
    def row(x: Tensor, *, axis: int, keep: bool = False) -> Tensor:
        return function(x, axis, keepdim=keep).values

    return row


def variance(x: Tensor, *, axes: Ints, keep: bool = False, correction: float = 1.0) -> Tensor:
    return torch.var(x, axes, correction=correction, keepdim=keep)


def vector_norm(x: Tensor, *, axes: Ints, keep: bool = False, order: float = 2.0) -> Tensor:
    return torch.linalg.vector_norm(x, order, axes, keepdim=keep)


ROWS = named(variance, vector_norm) | {
    "mean": _reduction(torch.mean),
    "sum": _reduction(torch.sum),
    "amax": _reduction(torch.amax),
    "amin": _reduction(torch.amin),
    "largest": _extremum(torch.max),
    "smallest": _extremum(torch.min),
}
