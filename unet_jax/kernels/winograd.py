"""The 3x3 convolution with fewer multiplications, on a CPU: its answer, and the gradient of its kernel.

Winograd's minimal filtering (Lavin and Gray, arXiv:1509.09308): `m` neighbouring sums of three products each, of the
inputs d and the taps g, take m + 2 multiplications instead of 3 * m, between sums of the inputs and sums of the taps,

    y = outputs @ ((taps @ g) * (inputs @ d)).

Read backwards this is the product of two polynomials, with m and 3 coefficients, of which each is evaluated at m + 2
points, one of them infinity, multiplied there, and interpolated: `taps` and `outputs`, transposed, evaluate, and
`inputs`, transposed, interpolates (Toom and Cook). The gradient by g is of the same kind:

    taps.T @ ((outputs.T @ gradient of y) * (inputs @ d)).

Done along the columns, for four rows at a time, both take half of the multiplications. The maps stay as large, but for
1.5 times as many rows of sums; the kernel takes twice its memory. The points are small and dyadic, so the weights are
neither large nor rounded; a float32 answer still errs by 2.5 times as much as the direct convolution's, so a training
takes it for gradients alone (docs/performance.md).
"""

import math
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from unet_jax.kernels.products import few_together


class Transform(NamedTuple):
    """How `m` outputs come of `n` = m + 2 inputs and 3 taps."""

    inputs: Float[np.ndarray, "n n"]
    taps: Float[np.ndarray, "n 3"]
    outputs: Float[np.ndarray, "m n"]


def transform(*points: float) -> Transform:
    """Of all points but infinity, which are different."""
    count = len(points)
    others = [[other for other in points if other != point] for point in points]
    inputs = np.zeros((count + 1, count + 1))
    for row, roots in enumerate((*others, points)):
        inputs[row, : len(roots) + 1] = np.poly(roots)[::-1]
    scales = np.array([np.prod(point - np.array(rest)) for point, rest in zip(points, others, strict=True)])
    powers = np.vander(points, 3, increasing=True) / scales[:, None]
    taps = np.concatenate((powers, [[0.0, 0.0, 1.0]]))
    outputs = np.zeros((count - 1, count + 1))
    outputs[:, :count] = np.vander(points, count - 1, increasing=True).T
    outputs[-1, -1] = 1
    return Transform(inputs, taps, outputs)


DIRECT = Transform(np.eye(3), np.eye(3), np.ones((1, 3)))
"""One output of three products: nothing is saved, and nothing summed."""
_ONE = Transform(np.eye(1), np.eye(1), np.eye(1))
"""One output of one product, of all three taps' inputs at once."""
FOUR = transform(0.0, 0.75, -0.75, 1.5, -1.5)
"""Four outputs of six products. With the usual points 0, 1, -1, 2 and -2 the network's float32 error was 1.8 times as
large (on random numbers, along both axes)."""
_LEAST = 64
"""Channels that a convolution has in and out, at least, for the sums to cost less than the multiplications saved."""
_WIDER = 128
"""Channels that it has on one side, at least, where its taps are summed at every call."""
_PIXELS = 1024
"""Of the map, at least, for the same: the larger the kernel, the more they have to save."""
_COLUMNS = 16
"""Of a map, at least, for blocks of its rows to be worth taking one by one."""
_BLOCK = 2048
"""Pixels of a block, so that its shifted views lie in a core's cache."""


def saves(channels: int, out_channels: int) -> bool:
    """Whether a convolution of so many channels is faster by `by_rows`, its taps being summed beforehand."""
    return min(channels, out_channels) >= _LEAST


def saves_unprepared(shape: tuple[int, ...], out_channels: int, dtype: DTypeLike) -> bool:
    """Whether it is so for a map of this shape (NHWC), its taps being summed at this call."""
    *points, channels = shape
    wide = saves(channels, out_channels) and max(channels, out_channels) >= _WIDER
    return wide and math.prod(points) >= _PIXELS and is_exact(dtype)


def saves_in_gradient(shape: tuple[int, ...], out_channels: int) -> bool:
    """Whether the gradient of a kernel that convolves a map of this shape (NHWC) is faster by `kernel_gradient`."""
    *points, width, channels = shape
    narrow = few_together(min(channels, out_channels), (3, 3))
    return not narrow and width >= _COLUMNS and math.prod(points) * width > 2 * max(channels, out_channels)


def is_exact(dtype: DTypeLike) -> bool:
    """Whether sums of such numbers are worth having: of float32 and float64."""
    return jnp.dtype(dtype) in (jnp.float32, jnp.float64)


def summed_taps(kernel: Float[Array, "3 3 c d"]) -> list[Float[Array, "1 3 c d"]]:
    """What `by_rows` takes. Six arrays, since XLA would copy each part of a single one at every call."""
    return [taps[None] for taps in _sums(FOUR.taps, list(kernel))]


def by_rows(x: Float[Array, "n h w c"], *kernels: Float[Array, "1 3 c d"]) -> Float[Array, "n h w d"]:
    """`convolve_plain` by four rows at a time: each of six sums of rows is convolved along the row."""
    n, height, width, _ = x.shape
    step = len(FOUR.outputs)
    count = -(-height // step)
    x = jnp.pad(x, ((0, 0), (1, 1 + count * step - height), (0, 0), (0, 0)))
    sums = _sums(FOUR.inputs, [_every(x, first, step, count, 1) for first in range(step + 2)])
    products = [
        lax.conv_general_dilated(rows, taps, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        for rows, taps in zip(sums, kernels, strict=True)
    ]
    y = jnp.stack(_sums(FOUR.outputs, products), 2)
    return y.reshape(n, -1, width, y.shape[-1])[:, :height]


def convolve(x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "n h w d"]:
    """`by_rows` of a kernel as it is."""
    return by_rows(x, *summed_taps(kernel))


def kernel_gradient(x: Float[Array, "n h w c"], gradient: Float[Array, "n h w d"]) -> Float[Array, "3 3 c d"]:
    """The gradient of a 3x3 kernel, as matrix products over blocks of rows.

    `gradient[..., d]` times each shifted view of the input, summed over the pixels. The views that are shifted along
    the row lie side by side in one matrix, [pixels, 3 * c]; of its rows, and of those of `gradient`, the products are
    taken as `FOUR` does it, or as `DIRECT` where there are few channels. Of few channels in, the views that are shifted
    along the column lie beside the others: one product, [pixels, 9 * c], since narrow ones are slow.
    """
    n, height, width, channels = x.shape
    if saves(channels, gradient.shape[-1]):
        kind, beside = FOUR, 1
    else:
        kind, beside = (DIRECT, 1) if channels >= _LEAST else (_ONE, 3)
    step, products = kind.outputs.shape
    count = max(min(_BLOCK // (step * width), -(-height // step)), 1)
    rows = count * step  # of a block
    blocks = -(-height // rows)
    below = blocks * rows - height  # the last block's rows without a gradient
    x = jnp.pad(x, ((0, 0), (1, 1 + below), (1, 1), (0, 0)))
    gradient = jnp.pad(gradient, ((0, 0), (0, below), (0, 0), (0, 0)))

    def add(totals: list[Array], number: Array) -> tuple[list[Array], None]:
        start = (number // blocks, number % blocks * rows, 0, 0)
        part = lax.dynamic_slice(x, start, (1, rows + 2, *x.shape[2:]))[0]
        slopes = lax.dynamic_slice(gradient, start, (1, rows, *gradient.shape[2:]))[0]
        shifts = [(first, first + rows + 3 - beside, shift) for first in range(beside) for shift in range(3)]
        views = jnp.concatenate([part[first:last, shift : shift + width] for first, last, shift in shifts], axis=-1)
        pairs = zip(
            _sums(kind.outputs.T, [_every(slopes, first, step, count, 0) for first in range(step)]),
            _sums(kind.inputs, [_every(views, first, step, count, 0) for first in range(products)]),
            strict=True,
        )
        flat = ([each.reshape(count * width, -1) for each in pair] for pair in pairs)
        return [total + slope.T @ view for total, (slope, view) in zip(totals, flat, strict=True)], None

    zero = jnp.zeros((gradient.shape[-1], 3 * beside * channels), x.dtype)
    totals, _ = lax.scan(add, [zero] * products, jnp.arange(n * blocks))
    taps = jnp.concatenate(_sums(kind.taps.T, totals), axis=-1)
    return taps.reshape(-1, 3, 3, channels).transpose(1, 2, 3, 0)


def _every(x: Array, first: int, step: int, count: int, axis: int) -> Array:
    """So many of an array's rows, from the first on."""
    return lax.slice_in_dim(x, first, first + (count - 1) * step + 1, step, axis)


def _sums(weights: Float[np.ndarray, "l n"], maps: Sequence[Array]) -> list[Array]:
    """For each row of the weights the sum of the maps that it weighs, without those of weight zero."""
    return [
        reduce(add, (float(weight) * each for weight, each in zip(row, maps, strict=True) if weight)) for row in weights
    ]
