"""Interpolation, channels last: along each axis a product with a constant matrix, or sums of shifted maps."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unet_core.graph.operations import Ints, Mode
from unet_core.graph.resampling import SMALL, Resampling, weights
from unet_jax.operations.rows import of_maps

_MOST_SHIFTS = 32
"""With more, a product with a matrix costs less."""


def interpolate(
    x: Array,
    *,
    slices: Array | None = None,
    rows: Array | None = None,
    columns: Array | None = None,
    mode: Mode,
    size: Ints | None = None,
    scale: tuple[float, ...] | None = None,
    align_corners: bool = False,
    antialias: bool = False,
) -> Array:
    lengths = x.shape[1:-1]
    if size is None:
        if scale is None:
            raise ValueError("neither a size nor a scale")
        size = tuple(math.floor(length * factor) for length, factor in zip(lengths, scale, strict=True))
    exact = jnp.promote_types(x.dtype, jnp.float32)
    small = mode.startswith("nearest") and len(size) == 2 and sum(size) <= SMALL
    options = {"align_corners": align_corners, "antialias": antialias, "double": exact == jnp.float64, "small": small}
    y = x.astype(exact)
    if columns is not None:
        for axis, part in enumerate((part for part in (slices, rows, columns) if part is not None), 1):
            y = _given(y, axis, part)
        return y.astype(x.dtype)
    for axis, (length, target) in enumerate(zip(lengths, size, strict=True), 1):
        factor = None if scale is None else scale[axis - 1]
        y = _resampled(y, axis, Resampling(mode, length, target, factor, **options), False)
    return y.astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _resampled(x: Array, axis: int, how: Resampling, back: bool) -> Array:
    """The product of the matrix along an axis, or of the transposed one. Has no forward-mode derivative."""
    length, target = (how.target, how.length) if back else (how.length, how.target)
    if length == 1 and not back:
        return jnp.broadcast_to(x, (*x.shape[:axis], target, *x.shape[axis + 1 :]))
    common = math.gcd(length, target)
    shifts = _shifts(how, back)
    if sum(map(len, shifts)) <= _MOST_SHIFTS:
        return _shifted(x, axis, common, shifts)
    matrix = jnp.asarray(weights(how).T if back else weights(how), x.dtype)
    y = jnp.tensordot(matrix, x, ((1,), (axis,)), precision=lax.Precision.HIGHEST)  # the weights are not rounded
    return jnp.moveaxis(y, 0, axis)


def _forward(x: Array, axis: int, how: Resampling, back: bool) -> tuple[Array, None]:
    return _resampled(x, axis, how, back), None


def _backward(axis: int, how: Resampling, back: bool, _: None, gradient: Array) -> tuple[Array]:
    return (_resampled(gradient, axis, how, not back),)


_resampled.defvjp(_forward, _backward)

_Shifts = Mapping[int, np.ndarray]
"""By an offset along the axis, what each target multiplies the element there by."""


@lru_cache(256)
def _shifts(how: Resampling, back: bool) -> Sequence[_Shifts]:
    """Of the first of each group of targets, of the second, and so on: there are as many groups as in the source."""
    matrix = weights(how).T if back else weights(how)
    count = math.gcd(*matrix.shape)
    phases, step = len(matrix) // count, matrix.shape[1] // count
    found: list[dict[int, np.ndarray]] = [{} for _ in range(phases)]
    for target, source in zip(*np.nonzero(matrix), strict=True):
        place, phase = divmod(int(target), phases)
        row = found[phase].setdefault(int(source) - place * step, np.zeros(count))
        row[place] = matrix[target, source]
    return found


def _shifted(x: Array, axis: int, count: int, shifts: Sequence[_Shifts]) -> Array:
    step = x.shape[axis] // count
    offsets = [0, *(offset for phase in shifts for offset in phase)]
    before, after = max(-min(offsets), 0), max(max(offsets) - step + 1, 0)
    x = jnp.pad(x, [(before, after) if at == axis else (0, 0) for at in range(x.ndim)])
    phases = []
    for phase in shifts:
        y = jnp.zeros((), x.dtype)
        for offset, row in phase.items():
            first = offset + before
            part = lax.slice_in_dim(x, first, first + (count - 1) * step + 1, step, axis)
            if (row != 1).any():
                part = part * jnp.asarray(row, x.dtype).reshape([-1 if at == axis else 1 for at in range(x.ndim)])
            y = y + part
        phases.append(jnp.broadcast_to(y, (*x.shape[:axis], count, *x.shape[axis + 1 :])))
    if len(phases) == 1:
        return phases[0]
    y = jnp.stack(phases, axis + 1)
    return y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])


def _given(x: Array, axis: int, weights: Array) -> Array:
    """By one of the forms of the table."""
    if weights.ndim == 1:
        return jnp.take(x, weights, axis)
    weights = weights.astype(x.dtype)
    if weights.ndim == 3:
        return stretched(x, axis, weights)
    y = jnp.tensordot(weights, x, ((1,), (axis,)), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(y, 0, axis)


def stretched(x: Array, axis: int, taps: Array) -> Array:
    """Each point makes several new ones, out of itself and its neighbours.

    Elementwise, with no gather and no product of matrices, whose weights a backend may round.
    """
    count = taps.shape[2]
    y = jnp.zeros((), x.dtype)
    for number, offset in enumerate(range(-(count // 2), count // 2 + 1)):
        share = taps[:, :, number].reshape(*taps.shape[:2], *(1,) * (x.ndim - axis - 1))
        y = y + share * jnp.expand_dims(_moved(x, axis, offset), axis + 1)
    return y.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])


def _moved(x: Array, axis: int, offset: int) -> Array:
    """At each point the one so much further on; zero beyond the ends."""
    if not offset:
        return x
    ends = [(max(-offset, 0), max(offset, 0)) if at == axis else (0, 0) for at in range(x.ndim)]
    size = x.shape[axis]
    return lax.slice_in_dim(jnp.pad(x, ends), max(offset, 0), max(offset, 0) + size, axis=axis)


def inside(
    x: Array,
    *,
    slices: Array | None = None,
    rows: Array | None = None,
    columns: Array | None = None,
    value: float = 0.0,
) -> Array:
    for axis, ends in zip(range(x.ndim - 4, x.ndim - 1), (slices, rows, columns), strict=True):
        if ends is not None:
            places = jnp.arange(x.shape[axis]).reshape(-1, *(1,) * (x.ndim - axis - 1))
            x = jnp.where((places >= ends[0]) & (places < ends[1]), x, jnp.asarray(value, x.dtype))
    return x


def pixel_shuffle(x: Array, *, factor: int) -> Array:
    n, height, width, channels = x.shape
    y = x.reshape(n, height, width, channels // factor**2, factor, factor).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, height * factor, width * factor, -1)


def pixel_unshuffle(x: Array, *, factor: int) -> Array:
    n, height, width, channels = x.shape
    y = x.reshape(n, height // factor, factor, width // factor, factor, channels).transpose(0, 1, 3, 5, 2, 4)
    return y.reshape(n, height // factor, width // factor, -1)


ROWS = of_maps(interpolate=interpolate, inside=inside, pixel_shuffle=pixel_shuffle, pixel_unshuffle=pixel_unshuffle)
