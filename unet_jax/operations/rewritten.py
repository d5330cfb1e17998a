"""Operations that a rewrite makes of others (`unet_jax.rewrites`), channels last: their shapes and functions."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float

from unet_core.graph.operations import (
    OPERATIONS,
    Amounts,
    Dims,
    Ints,
    Mode,
    Pairs,
    Role,
    made_by_rewriting,
)
from unet_core.graph.resampled import interpolated
from unet_core.graph.resampling import Resampling
from unet_core.graph.sizes import Shape
from unet_jax.kernels.affine import affine
from unet_jax.kernels.convolution import dilated
from unet_jax.kernels.upsampled import convolve_upsampled
from unet_jax.kernels.winograd import by_rows
from unet_jax.operations.convolutions import convolution
from unet_jax.operations.interpolation import interpolate
from unet_jax.operations.rows import Run, of_maps
from unet_jax.operations.shapes import pad


def _shape_of_upsampled(
    x: Shape,
    *,
    weight: Role,
    bias: Role | None = None,
    rows: Role | None = None,
    columns: Role | None = None,
    mode: Mode,
    size: Dims | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
    border: Amounts = ((0, 0), (0, 0)),
) -> Shape:
    """The 3x3 convolution, zero beyond the ends, of what `interpolate` makes, which is then padded."""
    raised = OPERATIONS["interpolate"].shape(x, mode=mode, size=size, scale=scale)
    return (
        x[0],
        weight[0],
        *(length + before + after for length, (before, after) in zip(raised[2:], border, strict=True)),
    )


def _shape_of_summed(
    x: Shape,
    *,
    taps0: Role,
    taps1: Role,
    taps2: Role,
    taps3: Role,
    taps4: Role,
    taps5: Role,
    bias: Role | None = None,
    far: int = 1,
) -> Shape:
    """A 3x3 convolution, zero beyond the ends, whose taps lie so far apart, and are summed as
    `unet_jax.kernels.winograd` does.
    """
    return (x[0], taps0[3], *x[2:])


def upsampled_convolution(
    x: Array,
    *,
    weight: Array,
    bias: Array | None = None,
    rows: Array | None = None,
    columns: Array | None = None,
    mode: Mode,
    size: Ints | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
    border: Pairs = ((0, 0), (0, 0)),
    run: Run,
) -> Array:
    lengths = x.shape[1:-1]
    if size is None:
        size = tuple(math.floor(length * factor) for length, factor in zip(lengths, scale or (), strict=True))
    taps: list[Array | np.ndarray | None] = [rows, columns]
    if rows is None or columns is None:
        factors = scale or (None,) * len(size)
        double = weight.dtype == np.float64
        taps = [
            _taps(Resampling(mode, length, target, factor, align_corners and mode == "linear", double=double), ends)
            for length, target, factor, ends in zip(lengths, size, factors, border, strict=True)
        ]
    high, wide = (part if part is not None and part.shape[1:] == (2, 3) else None for part in taps)
    if high is None or wide is None:
        way: dict[str, Any] = {"mode": mode, "size": size, "scale": scale, "align_corners": align_corners}
        y = interpolate(x, rows=rows, columns=columns, **way)
        y = pad(y, amounts=((0, 0), *border, (0, 0)))
        once = (1,) * len(size)
        return convolution(y, weight=weight, bias=bias, stride=once, padding=((1, 1),) * 2, dilation=once, groups=1)
    height, width = (target + sum(ends) for target, ends in zip(size, border, strict=True))
    y = convolve_upsampled(x.astype(weight.dtype), weight, high, wide, run.strips)[:, :height, :width]
    return affine(y, None, bias)


def summed_convolution(x: Array, *, bias: Array | None = None, far: int = 1, **taps: Array) -> Array:
    y = dilated(x.astype(taps["taps0"].dtype), lambda x: by_rows(x, *taps.values()), far)
    return affine(y, None, bias)


@lru_cache(256)
def _taps(how: Resampling, border: tuple[int, int]) -> Float[np.ndarray, "_ 2 3"] | None:
    """How each point makes two new ones, out of itself and its neighbours; None where it does not.

    As `unet_jax.kernels.upsampled` takes them; the new points are as many as there are with the border, or one more.
    """
    before, after = border
    total = how.target + after
    if before or after < 0 or not 2 * how.length <= how.target <= total <= 2 * how.length + 1:
        return None
    table, count = interpolated(how, 2), -(-total // 2)
    if not table.factor or table.radius != 1:
        return None
    return table.cut((0, 2 * count), (0, count))


for _name, _shape in (("upsampled_convolution", _shape_of_upsampled), ("summed_convolution", _shape_of_summed)):
    _shape.__name__ = _name
    made_by_rewriting(_shape)

ROWS = of_maps(upsampled_convolution=upsampled_convolution, summed_convolution=summed_convolution)
