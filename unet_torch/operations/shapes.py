"""Padding, cutting, joining, and other shapes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from unet_core.graph.operations import Ints, Padding, Pairs
from unet_torch.operations.rows import named


def pad(x: Tensor, *, amounts: Pairs, mode: Padding = "constant", value: float = 0.0) -> Tensor:
    if mode == "constant":
        return F.pad(x, _flat(amounts), value=value)
    if any(amount for pair in amounts[:2] for amount in pair):
        raise ValueError(f"padding {mode} is for the spatial axes")
    return F.pad(x, _flat(amounts[2:]), mode)


def _flat(amounts: Pairs) -> list[int]:
    """As torch takes them: of the last axis first."""
    return [amount for pair in reversed(amounts) for amount in pair]


def slice_(x: Tensor, *, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    return x[(slice(None),) * (axis % x.ndim) + (slice(start, stop, step),)]


def select(x: Tensor, *, axis: int, index: int) -> Tensor:
    return x.select(axis, index)


def take(x: Tensor, *, axis: int, indices: Ints) -> Tensor:
    return x.index_select(axis, torch.tensor(indices, device=x.device))


def concatenate(x: Tensor, *more: Tensor, axis: int) -> Tensor:
    return torch.cat((x, *more), axis)


def stack(x: Tensor, *more: Tensor, axis: int) -> Tensor:
    return torch.stack((x, *more), axis)


def reshape(x: Tensor, *, shape: Ints) -> Tensor:
    return x.reshape(shape)


def permute(x: Tensor, *, axes: Ints) -> Tensor:
    return x.permute(axes)


def expand(x: Tensor, *, shape: Ints) -> Tensor:
    return x.expand(shape)


def tile(x: Tensor, *, times: Ints) -> Tensor:
    return x.tile(times)


def flip(x: Tensor, *, axes: Ints) -> Tensor:
    return x.flip(axes)


def roll(x: Tensor, *, shifts: Ints, axes: Ints) -> Tensor:
    return x.roll(shifts, axes)


ROWS = named(pad, slice_, select, take, concatenate, stack, reshape, permute, expand, tile, flip, roll)
