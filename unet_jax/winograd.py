"""The 3x3 convolution with fewer multiplications, for predicting on a CPU.

Winograd's minimal filtering (Lavin and Gray, arXiv:1509.09308): `m` neighbouring sums of three products each, of the
inputs d and the taps g, take m + 2 multiplications instead of 3 * m, between sums of the inputs and sums of the taps,

    y = outputs @ ((taps @ g) * (inputs @ d)).

Read backwards this is the product of two polynomials, with m and 3 coefficients, of which each is evaluated at m + 2
points, one of them infinity, multiplied there, and interpolated: `taps` and `outputs`, transposed, evaluate, and
`inputs`, transposed, interpolates (Toom and Cook). The taps' sums are taken once, when the kernel is prepared.

Done along both axes, m = 2 needs 16/36 of the multiplications and 16/9 of the kernel's memory; along one axis, m = 4
needs half of them and twice the memory. Float32 answers are as exact as the direct convolution's (docs/performance.md):
the points are small and dyadic, so the weights of the inputs and the outputs are neither large nor rounded.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from unet_jax.convolution import convolve_plain


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


TWO = transform(0.0, 1.0, -1.0)
"""The two sums of Lavin and Gray's F(2x2, 3x3)."""
FOUR = transform(0.0, 0.75, -0.75, 1.5, -1.5)
"""Four sums. With the usual points 0, 1, -1, 2 and -2 the network's float32 error was 1.8 times as large (on random
numbers, along both axes)."""
_LEAST = 64
"""Channels that a convolution has in and out, at least, for the sums to cost less than the multiplications saved."""
_MANY = 512
"""From so many on the maps are small and the kernels large: 16x16 pixels of 1024 channels take by rows 2.8 times as
long as by tiles."""
Prepared = tuple[Callable[[Array, Array], Array], Array]
"""A convolution, as a function of input and kernel, and this kernel."""


def prepared(kernel: Float[Array, "k k c d"]) -> Prepared | None:
    """The faster way on a CPU, and the kernel for it, in the same dtype; None where that is the direct convolution.

    The kernel alone decides, so that it need not be kept in two forms: by tiles from 512 channels on, by rows from 64
    on. By rows is up to 1.7 times as fast as the direct convolution, and faster than by tiles on maps of 64x64 and
    more; on the smaller ones that so many channels mostly have it spends its time on the kernel (docs/performance.md).
    """
    size, _, before, after = kernel.shape
    if size != 3 or min(before, after) < _LEAST:
        return None
    if min(before, after) < _MANY:
        return by_rows, jnp.einsum("py,yxcd->pxcd", FOUR.taps.astype(kernel.dtype), kernel, precision="highest")
    taps = TWO.taps.astype(kernel.dtype)
    return by_tiles, jnp.einsum("py,qx,yxcd->pqcd", taps, taps, kernel, precision="highest")


def by_rows(x: Float[Array, "n h w c"], kernel: Float[Array, "6 3 c d"]) -> Float[Array, "n h w d"]:
    """`convolve_plain` by four rows at a time: each of six sums of rows is convolved along the row."""
    n, height, width, _ = x.shape
    x, count = _padded(x, FOUR, 1)
    sums = _sums(FOUR.inputs, _views(x, FOUR, 1, count))
    products = [convolve_plain(rows, taps[None]) for rows, taps in zip(sums, kernel, strict=True)]
    y = jnp.stack(_sums(FOUR.outputs, products), 2)
    return y.reshape(n, -1, width, kernel.shape[-1])[:, :height]


def by_tiles(x: Float[Array, "n h w c"], kernel: Float[Array, "4 4 c d"]) -> Float[Array, "n h w d"]:
    """`convolve_plain` by tiles of 2x2 pixels: 16 sums of their surroundings are mixed, each by its own matrix."""
    n, height, width, channels = x.shape
    x, rows = _padded(x, TWO, 1)
    x, columns = _padded(x, TWO, 2)
    across = _sums(TWO.inputs, _views(x, TWO, 1, rows))
    sums = [part for each in across for part in _sums(TWO.inputs, _views(each, TWO, 2, columns))]
    tiles = jnp.stack([part.reshape(-1, channels) for part in sums])
    mixed = jnp.einsum("ptc,pcd->ptd", tiles, kernel.reshape(16, channels, -1))
    mixed = mixed.reshape(4, 4, n, rows, columns, -1)
    lines = _sums(TWO.outputs, list(mixed))
    y = jnp.stack([jnp.stack(_sums(TWO.outputs, list(line)), 3) for line in lines], 2)
    return y.reshape(n, 2 * rows, 2 * columns, -1)[:, :height, :width]


def _padded(x: Array, kind: Transform, axis: int) -> tuple[Array, int]:
    """With zeros around it, as many as whole groups of `m` outputs need; and the number of these groups."""
    outputs = len(kind.outputs)
    count = -(-x.shape[axis] // outputs)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (1, 1 + count * outputs - x.shape[axis])
    return jnp.pad(x, widths), count


def _views(x: Array, kind: Transform, axis: int, count: int) -> list[Array]:
    """The first input of each group, the second, and so on."""
    step = len(kind.outputs)
    last = (count - 1) * step + 1
    return [lax.slice_in_dim(x, place, place + last, step, axis) for place in range(len(kind.inputs))]


def _sums(weights: Float[np.ndarray, "l n"], maps: Sequence[Array]) -> list[Array]:
    """For each row of the weights the sum of the maps that it weighs, without those of weight zero."""
    return [
        reduce(add, (float(weight) * each for weight, each in zip(row, maps, strict=True) if weight)) for row in weights
    ]
