"""Interpolation, and what else changes the size of a map by a factor."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unet_core.graph.operations import Ints, Mode
from unet_torch.operations.rows import named, of_rank

_ATEN = torch.ops.aten
_INTERPOLATIONS: Mapping[tuple[Mode, bool], tuple[Any, ...]] = {
    ("nearest", False): (_ATEN.upsample_nearest1d, _ATEN.upsample_nearest2d, _ATEN.upsample_nearest3d),
    ("nearest-exact", False): (
        _ATEN._upsample_nearest_exact1d,
        _ATEN._upsample_nearest_exact2d,
        _ATEN._upsample_nearest_exact3d,
    ),
    ("linear", False): (_ATEN.upsample_linear1d, _ATEN.upsample_bilinear2d, _ATEN.upsample_trilinear3d),
    ("linear", True): (None, _ATEN._upsample_bilinear2d_aa, None),
    ("cubic", False): (None, _ATEN.upsample_bicubic2d, None),
    ("cubic", True): (None, _ATEN._upsample_bicubic2d_aa, None),
}


def interpolate(
    x: Tensor,
    *,
    slices: Tensor | None = None,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    mode: Mode,
    size: Ints | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> Tensor:
    if columns is not None:
        for axis, part in enumerate((part for part in (slices, rows, columns) if part is not None), 2):
            x = _resampled(x, axis, part)
        return x
    # `F.interpolate` takes a size or factors; the operators below it take factors for the coordinates beside a size.
    known = _INTERPOLATIONS.get((mode, antialias))
    row = None if known is None else of_rank(x, *known)
    if row is None:
        raise ValueError(f"no interpolation {mode}{' with antialias' if antialias else ''} of {x.ndim - 2} dimensions")
    if size is None:
        if scale is None:
            raise ValueError("neither a size nor a scale")
        size = tuple(math.floor(length * factor) for length, factor in zip(x.shape[2:], scale, strict=True))
    corners = () if mode.startswith("nearest") else (align_corners,)
    return row(x, size, *corners, *(scale or (None,) * len(size)))


def _resampled(x: Tensor, axis: int, weights: Tensor) -> Tensor:
    """By one of the forms of the table."""
    if weights.ndim == 1:
        return x.index_select(axis, weights)
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    if weights.ndim == 3:
        return stretched(exact, axis, weights.to(exact)).to(x.dtype)
    return torch.tensordot(exact, weights.to(exact), ([axis], [1])).movedim(-1, axis).to(x.dtype)


def stretched(x: Tensor, axis: int, taps: Tensor) -> Tensor:
    """Each point makes several new ones, out of itself and its neighbours."""
    size, _, count = taps.shape
    whole = x.movedim(1, -1).unsqueeze(axis)  # with the channels last, as convolutions return it on a CPU
    shares = taps.reshape(*taps.shape, *(1,) * (whole.ndim - axis - 1)).unbind(2)
    y = shares[count // 2] * whole
    for share, offset in zip(shares, range(-(count // 2), count // 2 + 1), strict=True):
        to, of, length = max(-offset, 0), max(offset, 0), size - abs(offset)
        if offset and length > 0:
            y.narrow(axis - 1, to, length).addcmul_(share[to : to + length], whole.narrow(axis - 1, of, length))
    return y.flatten(axis - 1, axis).movedim(-1, 1)


def inside(
    x: Tensor,
    *,
    slices: Tensor | None = None,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    value: float = 0.0,
) -> Tensor:
    whole = x
    for axis, ends in zip(range(-3, 0), (slices, rows, columns), strict=True):
        first, last = (0, x.shape[axis]) if ends is None else ends.tolist()
        if first > 0 or last < x.shape[axis]:
            x = x.clone() if x is whole else x
            y = x.movedim(axis, 0)
            y[: max(first, 0)] = y[max(last, 0) :] = value
    return x


def pixel_shuffle(x: Tensor, *, factor: int) -> Tensor:
    return F.pixel_shuffle(x, factor)


def pixel_unshuffle(x: Tensor, *, factor: int) -> Tensor:
    return F.pixel_unshuffle(x, factor)


ROWS = named(interpolate, inside, pixel_shuffle, pixel_unshuffle)
