"""Reductions over axes."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from unet_core.graph.operations import Ints
from unet_jax.operations.activations import absolute
from unet_jax.operations.rows import in_same


def mean(x: Array, *, axes: Ints, keep: bool = False) -> Array:
    return x.mean(axes, keepdims=keep)


def sum_(x: Array, *, axes: Ints, keep: bool = False) -> Array:
    return x.sum(axes, keepdims=keep)


def amax(x: Array, *, axes: Ints, keep: bool = False) -> Array:
    return x.max(axes, keepdims=keep)


def amin(x: Array, *, axes: Ints, keep: bool = False) -> Array:
    return x.min(axes, keepdims=keep)


def largest(x: Array, *, axis: int, keep: bool = False) -> Array:
    y = _largest(x, axis % x.ndim)
    return y if keep else y.squeeze(axis)


def smallest(x: Array, *, axis: int, keep: bool = False) -> Array:
    return -largest(-x, axis=axis, keep=keep)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _largest(x: Array, axis: int) -> Array:
    return x.max(axis, keepdims=True)


@_largest.defjvp
def _of_the_first(axis: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """The first of equal numbers alone counts."""
    (x,), (change,) = primals, tangents
    first = jnp.argmax(x, axis, keepdims=True) == lax.broadcasted_iota(int, x.shape, axis)
    return _largest(x, axis), jnp.where(first, change, 0).sum(axis, keepdims=True)


def variance(x: Array, *, axes: Ints, keep: bool = False, correction: float = 1.0) -> Array:
    return jnp.var(x, axes, correction=correction, keepdims=keep)


def vector_norm(x: Array, *, axes: Ints, keep: bool = False, order: float = 2.0) -> Array:
    size = absolute(x)
    if order == 0:
        return (x != 0).sum(axes, keepdims=keep).astype(x.dtype)
    if math.isinf(order):
        return size.max(axes, keepdims=keep) if order > 0 else size.min(axes, keepdims=keep)
    zero = x == 0  # there the gradient is 0, as that of a norm which is zero
    powers = jnp.square(x) if order == 2 else jnp.where(zero, 0, jnp.where(zero, 1, size) ** order)
    total = powers.sum(axes, keepdims=keep)
    return jnp.where(total == 0, 0, jnp.where(total == 0, 1, total) ** (1 / order))


ROWS = in_same(
    mean=mean,
    sum=sum_,
    amax=amax,
    amin=amin,
    largest=largest,
    smallest=smallest,
    variance=variance,
    vector_norm=vector_norm,
)
