"""GroupNorm without its affine, and InstanceNorm, whose groups are single channels: of each example by itself."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unet_jax.kernels.normalisation import inverse_deviation
from unet_jax.kernels.packing import group, packed, unpacked

_Moments = tuple[Array, Array, Array]
_Saved = tuple[Array, Array, Array]


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def normalise_groups(x: Float[Array, "n *size c"], groups: int, epsilon: float) -> _Moments:
    """What is normalised, and each example's mean and biased variance by channel; the moments have no gradient.

    Has no forward-mode derivative.
    """
    return _forward(x, groups, epsilon)[0]


def _forward(x: Array, groups: int, epsilon: float) -> tuple[_Moments, _Saved]:
    forms: dict[str, Any] = {"default": partial(_normalised, groups, epsilon)}
    if x.ndim == 4:
        forms["tpu"] = partial(_normalised_packed, group(*x.shape[2:]), groups, epsilon)
    y, mean, variance, inverse = lax.platform_dependent(x, **forms)
    return (y, mean, variance), (x, mean, inverse)


def _normalised(groups: int, epsilon: float, x: Array) -> tuple[Array, ...]:
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = _mean(exact, groups)
    residual = exact - _everywhere(mean, exact)
    correction = _mean(residual, groups)  # the mean's own rounding error, as in `two_pass`
    mean, residual = mean + correction, residual - _everywhere(correction, exact)
    variance = _mean(jnp.square(residual), groups)
    inverse = inverse_deviation(variance, epsilon)
    return residual * _everywhere(inverse, exact), mean, variance, inverse


def _normalised_packed(columns: int, groups: int, epsilon: float, x: Array) -> tuple[Array, ...]:
    """The same with so many columns packed into the channels, and by one pass less, as `two_pass` does it."""
    exact = packed(x, columns).astype(jnp.promote_types(x.dtype, jnp.float32))
    shift = _mean(exact, groups, columns)
    residual = exact - _everywhere(shift, exact)
    correction = _mean(residual, groups, columns)
    variance = _mean(jnp.square(residual), groups, columns) - jnp.square(correction)
    mean, inverse = shift + correction, inverse_deviation(variance, epsilon)
    y = (exact - _everywhere(mean, exact)) * _everywhere(inverse, exact)
    return unpacked(y, columns), mean, variance, inverse


def _backward(groups: int, _: float, saved: _Saved, gradients: _Moments) -> tuple[Array]:
    forms: dict[str, Any] = {"default": partial(_gradient, 0, groups)}
    if saved[0].ndim == 4:
        forms["tpu"] = partial(_gradient, group(*saved[0].shape[2:]), groups)
    of_x: Array = lax.platform_dependent(*saved, gradients[0], **forms)
    return (of_x,)


def _gradient(columns: int, groups: int, x: Array, mean: Array, inverse: Array, gradient: Array) -> Array:
    """By `x`, with so many columns packed into the channels."""
    kind = x.dtype
    if columns:
        x, gradient = packed(x, columns), packed(gradient, columns)
    factor = _everywhere(inverse, x)
    y = (x.astype(gradient.dtype) - _everywhere(mean, x)) * factor
    whole, product = (_everywhere(_mean(part, groups, columns), x) for part in (gradient, gradient * y))
    of_x = ((gradient - whole - y * product) * factor).astype(kind)
    return unpacked(of_x, columns) if columns else of_x


normalise_groups.defvjp(_forward, _backward)


def _mean(x: Array, groups: int, columns: int = 0) -> Float[Array, "n c"]:
    """Of each example's groups of channels, for each channel.

    Without packed columns first of each map, as one long axis (see `two_pass`).
    """
    if columns:
        mean = x.mean((1, 2)).reshape(len(x), columns, -1).mean(1)
    else:
        mean = x.reshape(len(x), -1, x.shape[-1]).mean(1)
    if groups == mean.shape[-1]:
        return mean
    grouped = mean.reshape(len(x), groups, -1)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(mean.shape)


def _everywhere(values: Float[Array, "n c"], x: Array) -> Array:
    """What is of an example's channel, for each of the columns that are packed, to be broadcast over the map."""
    values = jnp.tile(values, x.shape[-1] // values.shape[-1])
    return values.reshape(len(x), *(1,) * (x.ndim - 2), -1)
