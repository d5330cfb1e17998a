"""Interpolation, channels last: along each axis a product with a constant matrix, or sums of shifted maps."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int

from unet_core.graph.operations import Ints, Mode
from unet_jax.operations.rows import of_maps

_MOST_SHIFTS = 32
"""With more, a product with a matrix costs less."""
_SMALL = 128
"""The height and width, together, up to which torch has another kernel for two dimensions."""


class Resampling(NamedTuple):
    """From so many points along an axis to how many others, and how."""

    mode: Mode
    length: int
    target: int
    factor: float | None = None
    """Gives the coordinates in place of the two lengths."""
    align_corners: bool = False
    antialias: bool = False
    double: bool = True
    """Whether the map is in float64, in which torch then rounds the coordinates of the nearest points."""
    small: bool = False
    """Whether the map is one for torch's other kernel of the nearest points."""


def interpolate(
    x: Array,
    *,
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
    rounded = {"double": exact == jnp.float64, "small": len(size) == 2 and sum(size) <= _SMALL}
    options = rounded if mode.startswith("nearest") else {"align_corners": align_corners, "antialias": antialias}
    y = x.astype(exact)
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


@lru_cache(256)
def weights(how: Resampling) -> Float[np.ndarray, "target length"]:
    """What each target takes of each point, in float64; beyond the ends lie copies of the points there."""
    first, shares = _nearest(how) if how.mode.startswith("nearest") else _weighted(how)
    matrix = np.zeros((how.target, how.length))
    columns = np.clip(first[:, None] + np.arange(shares.shape[1]), 0, how.length - 1)
    np.add.at(matrix, (np.arange(how.target)[:, None], columns), shares)
    return matrix


_Taps = tuple[Int[np.ndarray, " target"], Float[np.ndarray, "target taps"]]
"""The first point that each target takes something of, and how much of it and those behind."""


def _nearest(how: Resampling) -> _Taps:
    """The index that torch has, rounding included: in the dtype of the map or float32, and down in float32."""
    number: Any = np.float64 if how.double and not how.small else np.float32
    step = number(1 / how.factor) if how.factor else number(how.length) / number(how.target)
    places: Any = np.arange(how.target)
    half = (places + 0.5) * float(step)
    if how.mode == "nearest" and how.small and how.target in (how.length, 2 * how.length):
        source = places // (how.target // how.length)
    elif how.mode == "nearest":
        source = places.astype(number) * step
    elif how.small:
        source = half
    else:
        source = np.maximum((half - 0.5).astype(number), 0).astype(np.float64) + 0.5
    index = np.floor(source.astype(np.float32)).astype(np.int64)
    return np.minimum(index, how.length - 1), np.ones((how.target, 1))


def _weighted(how: Resampling) -> _Taps:
    """The source coordinates and weights of torch (aten/src/ATen/native/UpSample.h and cpu/UpSampleKernel.cpp)."""
    places = np.arange(how.target)
    if how.align_corners:
        step = (how.length - 1) / (how.target - 1) if how.target > 1 else 0.0
    else:
        step = 1 / how.factor if how.factor else how.length / how.target
    if how.length == how.target and (how.antialias or how.mode == "linear"):  # nothing changes, whatever the factor
        return places, np.ones((how.target, 1))
    if how.antialias:
        return _smoothed(how, step, (places + 0.5) * step)
    source = places * step if how.align_corners else (places + 0.5) * step - 0.5
    low = np.minimum(np.floor(source), how.length - 1.0)
    share = np.minimum(source - low, 1.0)[:, None]
    if how.mode == "linear":
        return low.astype(np.int64), np.concatenate((1 - share, share), 1)
    return low.astype(np.int64) - 1, _cubic(np.array([-1.0, 0.0, 1.0, 2.0]) - share, -0.75)


def _smoothed(how: Resampling, step: float, centres: Float[np.ndarray, " target"]) -> _Taps:
    """Where the map shrinks, the kernel is wider by as much; cut off at the ends, its weights sum to 1."""
    wider = max(step, 1.0)
    reach = (1 if how.mode == "linear" else 2) * wider
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    stop = np.minimum((centres + reach + 0.5).astype(np.int64), how.length)
    columns = first[:, None] + np.arange((stop - first).max())
    distance = (columns - centres[:, None] + 0.5) / wider
    shares = np.maximum(1 - abs(distance), 0) if how.mode == "linear" else _cubic(distance, -0.5)
    shares = np.where(columns < stop[:, None], shares, 0.0)
    return first, shares / shares.sum(1, keepdims=True)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = abs(distance)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    return np.where(x <= 1, near, np.where(x < 2, ((x - 5) * x + 8) * x * a - 4 * a, 0.0))


def pixel_shuffle(x: Array, *, factor: int) -> Array:
    n, height, width, channels = x.shape
    y = x.reshape(n, height, width, channels // factor**2, factor, factor).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, height * factor, width * factor, -1)


def pixel_unshuffle(x: Array, *, factor: int) -> Array:
    n, height, width, channels = x.shape
    y = x.reshape(n, height // factor, factor, width // factor, factor, channels).transpose(0, 1, 3, 5, 2, 4)
    return y.reshape(n, height // factor, width // factor, -1)


ROWS = of_maps(interpolate=interpolate, pixel_shuffle=pixel_shuffle, pixel_unshuffle=pixel_unshuffle)
