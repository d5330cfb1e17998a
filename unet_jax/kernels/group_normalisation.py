"""GroupNorm, and InstanceNorm, whose groups are single channels: of each example by itself."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unet_jax.kernels.normalisation import inverse_deviation, variance_of
from unet_jax.kernels.packing import each, group, packed, unpacked


class Normalised(NamedTuple):
    """What is made of a batch; the moments have no gradient."""

    y: Float[Array, "n *size c"]
    mean: Float[Array, "n c"]
    variance: Float[Array, "n c"]
    """The biased one."""


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise_groups(
    x: Float[Array, "n *size c"], scale: Float[Array, " c"], bias: Float[Array, " c"], groups: int, epsilon: float
) -> Normalised:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, by the moments of each example's groups of channels.

    Computed in the dtype of `scale`. The moments are told for each channel. Has no forward-mode derivative.
    """
    forms: dict[str, Any] = {"default": partial(_normalised, 0, groups, epsilon)}
    if x.ndim == 4:
        forms["tpu"] = partial(_normalised, group(*x.shape[2:]), groups, epsilon)
    made: Normalised = lax.platform_dependent(x, scale, bias, **forms)
    return made


def _normalised(columns: int, groups: int, epsilon: float, x: Array, scale: Array, bias: Array) -> Normalised:
    """With so many columns packed into the channels; the moments as `two_pass` takes them."""
    x = (packed(x, columns) if columns else x).astype(scale.dtype)
    shift = _mean(x, groups, columns)
    residual = x - _everywhere(shift, x)
    correction = _mean(residual, groups, columns)
    variance = variance_of(_mean(jnp.square(residual), groups, columns), correction)
    mean, factor = shift + correction, scale * inverse_deviation(variance, epsilon)
    y = (x - _everywhere(mean, x)) * _everywhere(factor, x) + each(bias, columns or 1)
    return Normalised(unpacked(y, columns) if columns else y, mean, variance)


_Saved = tuple[Array, Array, Array, Array]


def _forward(x: Array, scale: Array, bias: Array, groups: int, epsilon: float) -> tuple[Normalised, _Saved]:
    made = normalise_groups(x, scale, bias, groups, epsilon)
    return made, (x, scale, made.mean, made.variance)


def _backward(groups: int, epsilon: float, saved: _Saved, gradient: Normalised) -> tuple[Array, Array, Array]:
    forms: dict[str, Any] = {"default": partial(_gradients, 0, groups, epsilon)}
    if saved[0].ndim == 4:
        forms["tpu"] = partial(_gradients, group(*saved[0].shape[2:]), groups, epsilon)
    of_x, of_scale, of_bias = lax.platform_dependent(saved, gradient.y, **forms)
    return of_x, of_scale, of_bias


def _gradients(columns: int, groups: int, epsilon: float, saved: _Saved, gradient: Array) -> tuple[Array, Array, Array]:
    """By `x`, `scale` and `bias`, with so many columns packed into the channels."""
    x, scale, mean, variance = saved
    kind, number = x.dtype, x.size // (mean.size or 1)
    if columns:
        x, gradient = packed(x, columns), packed(gradient, columns)
    residual = x.astype(scale.dtype) - _everywhere(mean, x)
    inverse = inverse_deviation(variance, epsilon)
    whole, product = (_of_each(values, columns) for values in (gradient, gradient * residual))
    offset, slope = (
        _of_groups(part * scale, groups) * power for part, power in ((whole, inverse), (product, inverse**3))
    )
    of_x = gradient * _everywhere(scale * inverse, x) - _everywhere(offset, x) - residual * _everywhere(slope, x)
    of_x = (unpacked(of_x, columns) if columns else of_x).astype(kind)
    return of_x, number * (product * inverse).sum(0), number * whole.sum(0)


normalise_groups.defvjp(_forward, _backward)


def _mean(x: Array, groups: int, columns: int) -> Float[Array, "n c"]:
    """Of each example's groups of channels, for each channel."""
    return _of_groups(_of_each(x, columns), groups)


def _of_each(x: Array, columns: int) -> Float[Array, "n c"]:
    """The mean of each example's channels; without packed columns along one long axis (see `two_pass`)."""
    if columns:
        return x.mean((1, 2)).reshape(len(x), columns, -1).mean(1)
    return x.reshape(len(x), -1, x.shape[-1]).mean(1)


def _of_groups(values: Float[Array, "n c"], groups: int) -> Float[Array, "n c"]:
    """The mean of each group, for each of its channels."""
    if groups == values.shape[-1]:
        return values
    grouped = values.reshape(len(values), groups, -1)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(values.shape)


def _everywhere(values: Float[Array, "n c"], x: Array) -> Array:
    """What is of an example's channel, for each of the columns that are packed, to be broadcast over the map."""
    values = jnp.tile(values, x.shape[-1] // values.shape[-1])
    return values.reshape(len(x), *(1,) * (x.ndim - 2), -1)
