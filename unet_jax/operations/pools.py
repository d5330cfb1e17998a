"""Pools, channels last, along one axis after the other."""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unet_core.graph.operations import Ints, windows
from unet_jax.kernels.pooling import max_pool_of_two
from unet_jax.operations.reductions import largest
from unet_jax.operations.rows import of_maps


def max_pool(x: Array, *, window: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool = False) -> Array:
    if window == stride == (2, 2) and not any(padding) and set(dilation) == {1} and not ceil:
        return max_pool_of_two(x)
    for axis, (size, step, pad, far) in _last_first(window, stride, padding, dilation):
        taps = _taps(x, axis, size, step, pad, far, ceil=ceil, value=-jnp.inf)
        x = taps[0]
        for tap in taps[1:]:  # the first of equal ones stays, and takes the gradient; and so does NaN
            x = jnp.where((tap > x) | (tap != tap), tap, x)
    return x


def average_pool(
    x: Array,
    *,
    window: Ints,
    stride: Ints,
    padding: Ints,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Array:
    dtype = x.dtype
    x = x.astype(jnp.promote_types(dtype, jnp.float32))
    for axis, (size, step, pad) in _last_first(window, stride, padding):
        length = x.shape[axis]
        x = reduce(add, _taps(x, axis, size, step, pad, 1, ceil=ceil, value=0.0))
        if divisor is None:
            first = np.arange(x.shape[axis]) * step - pad
            low, high = (-pad, length + pad) if count_padding else (0, length)
            counts = np.minimum(first + size, high) - np.maximum(first, low)
            x = x * _along(1 / counts, axis, x)
    return (x if divisor is None else x / divisor).astype(dtype)


def adaptive_average_pool(x: Array, *, size: Ints) -> Array:
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return _adapted(exact, size, lambda part, axis: part.mean(axis, keepdims=True)).astype(x.dtype)


def adaptive_max_pool(x: Array, *, size: Ints) -> Array:
    return _adapted(x, size, lambda part, axis: largest(part, axis=axis, keep=True))


def _adapted(x: Array, size: Ints, reduced: Callable[[Array, int], Array]) -> Array:
    """Windows that cover the map as evenly as they can."""
    for axis, (count,) in _last_first(size):
        length = x.shape[axis]
        if length % count == 0:
            parts = x.reshape(*x.shape[:axis], count, length // count, *x.shape[axis + 1 :])
            x = reduced(parts, axis + 1).squeeze(axis + 1)
        else:
            ends = [(place * length // count, -(-(place + 1) * length // count)) for place in range(count)]
            x = jnp.concatenate([reduced(lax.slice_in_dim(x, *end, axis=axis), axis) for end in ends], axis)
    return x


def _last_first(*attributes: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    """Each spatial axis with its attributes; from the last one, so that the first of equal numbers is torch's."""
    return list(enumerate(zip(*attributes, strict=True), 1))[::-1]


def _taps(x: Array, axis: int, size: int, step: int, pad: int, far: int, *, ceil: bool, value: float) -> list[Array]:
    """The first elements of all windows along an axis, the second ones, and so on."""
    length = x.shape[axis]
    count = windows(length, size, step, pad, pad, far, ceil=ceil)
    assert isinstance(count, int)
    after = max((count - 1) * step + far * (size - 1) + 1 - length - pad, 0)
    if pad or after:
        x = jnp.pad(x, [(pad, after) if at == axis else (0, 0) for at in range(x.ndim)], constant_values=value)
    firsts = range(0, far * size, far)
    return [lax.slice_in_dim(x, first, first + (count - 1) * step + 1, step, axis) for first in firsts]


def _along(numbers: np.ndarray, axis: int, x: Array) -> Array:
    return jnp.asarray(numbers, x.dtype).reshape([-1 if at == axis else 1 for at in range(x.ndim)])


ROWS = of_maps(
    max_pool=max_pool,
    average_pool=average_pool,
    adaptive_average_pool=adaptive_average_pool,
    adaptive_max_pool=adaptive_max_pool,
)
