"""Convolutions and their gradients as products of matrices, channels last; a CPU is faster at them than at XLA's own.

XLA's gradient of a kernel is a convolution with a window as large as the map; that of the map multiplies zeros where
there is a stride. Where the kernel is larger than the map, reading it takes the time: a product reads it once.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from unet_core.graph.operations import Ints, Pairs

_FEW = 64
"""Channels of all taps together, at most, that are laid side by side whatever the map's size."""
_FEWEST = 16
"""Pixels of a batch's maps, up to which XLA's convolution of them is slow as well."""


class Geometry(NamedTuple):
    """How a kernel goes over a map."""

    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int


def few_together(channels: int, window: Sequence[int]) -> bool:
    """Whether the taps of such a kernel are better laid side by side, whatever the map's size."""
    return channels * math.prod(window) <= _FEW


def has_few_pixels(y: Array) -> bool:
    """Whether maps have no more pixels than channels: a kernel that makes them is larger than they and all its taps."""
    return math.prod(y.shape[:-1]) <= y.shape[-1]


def are_tiny(x: Array) -> bool:
    """Whether XLA takes many times as long as need be to convolve these maps."""
    return math.prod(x.shape[:-1]) <= _FEWEST


def convolved_as_product(x: Array, kernel: Array, plan: Geometry) -> Array:
    """The convolution of a map of few pixels, not in groups: a product of its taps, side by side, with the kernel."""
    taps = taps_of(x, kernel.shape[:-2], plan)
    return jnp.matmul(jnp.concatenate(taps, -1), kernel.reshape(-1, kernel.shape[-1]))


def input_gradient(gradient: Array, kernel: Array, plan: Geometry, size: Ints) -> Array:
    """The gradient by a map of this size, not in groups: one product, whose parts go where their taps lie."""
    *window, channels, out = kernel.shape
    # Without the barriers XLA reads the kernel, the larger one by far, column by column.
    flat = lax.optimization_barrier(gradient.reshape(-1, out).T)
    parts = lax.optimization_barrier(kernel.reshape(-1, out) @ flat)
    parts = parts.reshape(-1, channels, *gradient.shape[:-1])
    zero = jnp.zeros((), gradient.dtype)
    total = jnp.zeros((len(gradient), *size, channels), gradient.dtype)
    for part, place in zip(parts, product(*map(range, window)), strict=True):
        amounts = [(0, 0, 0)]
        for at, n, length, step, (pad, _), far in zip(
            place, gradient.shape[1:-1], size, plan.stride, plan.padding, plan.dilation, strict=True
        ):
            before = at * far - pad
            amounts.append((before, length - before - (n - 1) * step - 1, step - 1))
        total += lax.pad(jnp.moveaxis(part, 0, -1), zero, [*amounts, (0, 0, 0)])
    return total


def kernel_gradient(x: Array, gradient: Array, window: Sequence[int], plan: Geometry) -> Array:
    """The gradient by the kernel: one product for each tap; or, of a small or narrow map, one for all."""
    channels, out = x.shape[-1], gradient.shape[-1]
    still = plan.groups == 1 and set(plan.stride) == set(plan.dilation) == {1}
    if still and few_together(out, window) and not few_together(channels, window):  # each tap of the narrower map
        amounts = tuple(
            (k - 1 - before, k - 1 - after) for k, (before, after) in zip(window, plan.padding, strict=True)
        )
        mirrored = kernel_gradient(gradient, x, window, plan._replace(padding=amounts))
        return jnp.flip(mirrored, range(len(window))).mT
    flat = gradient.reshape(-1, out)
    taps = taps_of(x, window, plan)
    if plan.groups == 1:
        together = has_few_pixels(gradient) or few_together(channels, window)
        rows = [jnp.concatenate(taps, -1)] if together else taps
        columns = (lax.optimization_barrier(each.reshape(-1, each.shape[-1]).T) for each in rows)
        return jnp.concatenate([each @ flat for each in columns]).reshape(*window, channels, out)
    if channels == out == plan.groups:
        exact = jnp.promote_types(x.dtype, jnp.float32)
        flat = flat.astype(exact)
        products = [(tap.reshape(flat.shape).astype(exact) * flat).sum(0).astype(x.dtype) for tap in taps]
    else:
        grouped = flat.reshape(len(flat), plan.groups, -1)
        parts = [tap.reshape(len(flat), plan.groups, -1) for tap in taps]
        products = [jnp.einsum("pgi,pgo->igo", part, grouped) for part in parts]
    return jnp.stack(products).reshape(*window, -1, out)


@jax.custom_vjp
def moved_apart(x: Array, kernel: Array) -> Array:
    """The transpose of a convolution no two windows of which overlap: one product for each pixel.

    Has no forward-mode derivative.

    Args:
        x: a map, [n, *size, in].
        kernel: [*window, out, in].
    """
    *window, _, channels = kernel.shape
    columns, rows = x.reshape(-1, channels), kernel.reshape(-1, channels)
    if len(columns) <= len(rows):  # the kernel is the larger one, and read in order
        y = lax.optimization_barrier(rows @ lax.optimization_barrier(columns.T)).T
    else:
        y = columns @ rows.T
    return interleaved(y.reshape(*x.shape[:-1], -1), window)


def interleaved(y: Array, window: Sequence[int]) -> Array:
    """Maps whose points each hold a window of new ones, [n, *size, window * c], with these in their places."""
    places, count = y.shape[1:-1], len(window)
    y = y.reshape(len(y), *places, *window, -1)
    y = y.transpose(0, *(axis for at in range(1, count + 1) for axis in (at, at + count)), 2 * count + 1)
    return y.reshape(len(y), *(n * k for n, k in zip(places, window, strict=True)), -1)


def _moved_apart_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return moved_apart(x, kernel), (x, kernel)


def _moved_apart_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    *window, out, channels = kernel.shape
    rows, count = kernel.reshape(-1, channels), len(window)
    pairs = [part for pair in zip(x.shape[1:-1], window, strict=True) for part in pair]
    parts = gradient.reshape(len(x), *pairs, out)
    parts = parts.transpose(0, *range(1, 2 * count, 2), *range(2, 2 * count + 1, 2), 2 * count + 1)
    parts = parts.reshape(-1, len(rows))
    of_x = parts @ rows
    of_kernel = lax.optimization_barrier(parts.T) @ x.reshape(-1, channels)
    return of_x.reshape(x.shape), of_kernel.reshape(kernel.shape)


moved_apart.defvjp(_moved_apart_forward, _moved_apart_backward)


def taps_of(x: Array, window: Sequence[int], plan: Geometry, apart: Ints | None = None) -> list[Array]:
    """What each tap of a kernel is multiplied by; `x` has zeros between its elements, which lie so far `apart`."""
    between = [step - 1 for step in apart or (1,) * len(window)]
    amounts = [(*pad, zeros) for pad, zeros in zip(plan.padding, between, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *amounts, (0, 0, 0)])
    lengths = [
        (n - far * (k - 1) - 1) // step + 1
        for n, k, step, far in zip(x.shape[1:-1], window, plan.stride, plan.dilation, strict=True)
    ]
    stops = [(n - 1) * step + 1 for n, step in zip(lengths, plan.stride, strict=True)]

    def part(place: Ints) -> Array:
        firsts = [at * far for at, far in zip(place, plan.dilation, strict=True)]
        ends = [first + stop for first, stop in zip(firsts, stops, strict=True)]
        return lax.slice(x, (0, *firsts, 0), (len(x), *ends, x.shape[-1]), (1, *plan.stride, 1))

    return [part(place) for place in product(*map(range, window))]
