"""Constants, parameters and chance."""

import torch
from torch import Tensor

from unet_core.graph.operations import DropoutKind, Dtype, Ints
from unet_torch.operations.rows import Number, Run, named


def constant(*, values: tuple[float, ...], shape: Ints, dtype: Dtype | None = None, run: Run) -> Tensor:
    return torch.tensor(values, dtype=_dtype(dtype, run)).reshape(shape)


def full(*, shape: Ints, value: Number, dtype: Dtype | None = None, run: Run) -> Tensor:
    return torch.full(shape, value, dtype=_dtype(dtype, run))


def _dtype(name: Dtype | None, run: Run) -> torch.dtype:
    return run.dtype if name is None else getattr(torch, name)


def parameter(*, value: Tensor) -> Tensor:
    return value


def dropout(x: Tensor, *, rate: float, kind: DropoutKind = "elements", always: bool = False, run: Run) -> Tensor:
    if not rate or not (run.training or always):
        return x
    axes = {"elements": x.ndim, "maps": 2, "examples": 1}[kind]
    return dropped(x, (*x.shape[:axes], *(1,) * (x.ndim - axes)), rate, run)


def dropped(x: Tensor, shape: tuple[int, ...], rate: float, run: Run) -> Tensor:
    """Zero with the probability `rate`, by draws of this shape, else divided by 1 - rate."""
    kept = (run.uniform(tuple(shape)) >= rate).to(x.dtype)
    return x * (kept / (1 - rate) if rate < 1 else kept)


def chance(*, shape: Ints, probability: float | None = None, run: Run) -> Tensor:
    draws = run.uniform(shape)
    return draws if probability is None else (draws >= 1 - probability).to(draws.dtype)


ROWS = named(constant, full, parameter, dropout, chance)
