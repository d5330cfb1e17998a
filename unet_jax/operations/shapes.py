"""Padding, cutting, joining, and other shapes."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unet_core.graph.operations import Ints, Padding, Pairs
from unet_jax.operations.rows import in_same, in_torchs

_MOST_PARTS = 16
"""Of an axis, to be taken one by one."""


def pad(x: Array, *, amounts: Pairs, mode: Padding = "constant", value: float = 0.0) -> Array:
    if mode == "constant":
        return lax.pad(x, jnp.asarray(value, x.dtype), [(before, after, 0) for before, after in amounts])
    more = [(max(before, 0), max(after, 0)) for before, after in amounts]
    less = [(min(before, 0), min(after, 0), 0) for before, after in amounts]
    zero = jnp.zeros((), x.dtype)
    if mode == "circular":  # torch goes round what is left, in the other modes it cuts at the end
        return jnp.pad(lax.pad(x, zero, less), more, mode="wrap")
    return lax.pad(jnp.pad(x, more, mode="edge" if mode == "replicate" else "reflect"), zero, less)


def slice_(x: Array, *, axis: int, start: int, stop: int, step: int = 1) -> Array:
    return lax.slice_in_dim(x, start, min(stop, x.shape[axis]), step, axis)


def select(x: Array, *, axis: int, index: int) -> Array:
    return lax.index_in_dim(x, index, axis, keepdims=False)


def take(x: Array, *, axis: int, indices: Ints) -> Array:
    steps = set(np.diff(indices).tolist())
    if len(steps) == 1 and min(steps) > 0:
        return lax.slice_in_dim(x, indices[0], indices[-1] + 1, steps.pop(), axis)
    if len(indices) <= _MOST_PARTS:  # a gather is slow on a TPU
        return jnp.concatenate([lax.index_in_dim(x, index, axis) for index in indices], axis)
    return jnp.take(x, np.array(indices), axis)


def concatenate(x: Array, *more: Array, axis: int) -> Array:
    return jnp.concatenate((x, *more), axis)


def stack(x: Array, *more: Array, axis: int) -> Array:
    return jnp.stack((x, *more), axis)


def reshape(x: Array, *, shape: Ints) -> Array:
    return x.reshape(shape)


def permute(x: Array, *, axes: Ints) -> Array:
    return x.transpose(axes)


def expand(x: Array, *, shape: Ints) -> Array:
    return jnp.broadcast_to(x, shape)


def tile(x: Array, *, times: Ints) -> Array:
    return jnp.tile(x, times)


def flip(x: Array, *, axes: Ints) -> Array:
    return jnp.flip(x, axes)


def roll(x: Array, *, shifts: Ints, axes: Ints) -> Array:
    return jnp.roll(x, shifts, axes)


ROWS = in_same(pad=pad, slice=slice_, take=take, concatenate=concatenate, flip=flip, roll=roll) | in_torchs(
    select=select, stack=stack, reshape=reshape, permute=permute, expand=expand, tile=tile
)
