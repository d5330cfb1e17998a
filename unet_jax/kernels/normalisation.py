"""BatchNorm on a batch: its statistics, in one pass over the map where that is faster, and its gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unet_jax.kernels.packing import by_channel, each, group, packed, unpacked

_FAR = 1.0
"""How many variances the square of a guess's distance from the mean may be."""

Moments = tuple[Float[Array, " c"], Float[Array, " c"]]
"""Mean and biased variance of each channel."""


class Normalised(NamedTuple):
    """What BatchNorm makes of a batch."""

    y: Float[Array, "n h w c"]
    mean: Float[Array, " c"]
    variance: Float[Array, " c"]
    """The biased one."""


def normalise_plain(
    x: Float[Array, "n h w c"], scale: Float[Array, " c"], bias: Float[Array, " c"], _: Array, epsilon: float
) -> Normalised:
    """`normalise` by the two-pass statistics, with XLA's own derivatives; needs no guess."""
    x = x.astype(scale.dtype)
    mean, variance = two_pass(x)
    return Normalised((x - mean) * (scale * inverse_deviation(variance, epsilon)) + bias, mean, variance)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalise(
    x: Float[Array, "n h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    guess: Float[Array, " c"],
    epsilon: float,
) -> Normalised:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, with the batch's own mean and biased variance.

    Computed in the dtype of `scale`. The same as `normalise_plain`, but for rounding. Has no forward-mode derivative.

    Args:
        x: the map; its dtype may be a lesser one.
        scale, bias: of the normalised channels.
        guess: of the means, on which time alone depends (see `one_pass`); it has no gradient.
        epsilon: what is added to the variance.
    """
    forms: dict[str, Any] = {"cpu": partial(_normalised, _two_pass, 1, epsilon)}
    forms["default"] = partial(_normalised, one_pass, 1, epsilon)
    columns = group(*x.shape[2:])
    if columns > 1:
        forms["tpu"] = partial(_normalised, one_pass, columns, epsilon)
    made: Normalised = lax.platform_dependent(x, scale, bias, guess, **forms)
    return made


def _normalised(
    moments: Callable[[Array, Array], Moments],
    columns: int,
    epsilon: float,
    x: Array,
    scale: Array,
    bias: Array,
    guess: Array,
) -> Normalised:
    """With so many columns packed into the channels."""
    x = packed(x, columns)
    mean, variance = moments(x, guess)
    factor = scale * inverse_deviation(variance, epsilon)
    y = (x.astype(scale.dtype) - each(mean, columns)) * each(factor, columns) + each(bias, columns)
    return Normalised(unpacked(y, columns), mean, variance)


_Saved = tuple[Array, Array, Array, Array]


def _forward(x: Array, scale: Array, bias: Array, guess: Array, epsilon: float) -> tuple[Normalised, _Saved]:
    made = normalise(x, scale, bias, guess, epsilon)
    return made, (x, scale, made.mean, made.variance)


def _backward(epsilon: float, saved: _Saved, gradient: Normalised) -> tuple[Array, Array, Array, None]:
    forms: dict[str, Any] = {"default": partial(_gradients, 1, epsilon)}
    columns = group(*saved[0].shape[2:])
    if columns > 1:
        forms["tpu"] = partial(_gradients, columns, epsilon)
    of_x, of_scale, of_bias = lax.platform_dependent(saved, gradient, **forms)
    return of_x, of_scale, of_bias, None


def _gradients(columns: int, epsilon: float, saved: _Saved, gradient: Normalised) -> tuple[Array, Array, Array]:
    """By `x`, `scale` and `bias`, with so many columns packed into the channels."""
    x, scale, mean, variance = saved
    count = x.size // x.shape[-1]
    residual = packed(x, columns).astype(scale.dtype) - each(mean, columns)
    of_y = packed(gradient.y, columns)
    of_bias, product = (by_channel(values.sum((0, 1, 2)), scale).sum(0) for values in (of_y, of_y * residual))
    inverse = inverse_deviation(variance, epsilon)
    of_mean = gradient.mean - of_bias * scale * inverse
    of_variance = gradient.variance - product * scale * inverse**3 / 2
    parts = (scale * inverse, of_mean / count, 2 * of_variance / count)
    factor, offset, slope = (each(part, columns) for part in parts)
    of_x = of_y * factor + offset + residual * slope
    return unpacked(of_x, columns).astype(x.dtype), product * inverse, of_bias


normalise.defvjp(_forward, _backward)


def inverse_deviation(variance: Array, epsilon: float) -> Array:
    """1 / sqrt(variance + epsilon), without XLA's `rsqrt`, whose errors on a CPU lie on one side and add up."""
    return jnp.sqrt(1 / (variance + epsilon))


def _two_pass(x: Array, like: Array) -> Moments:
    return two_pass(x.reshape(x.shape[0], -1, *like.shape).astype(like.dtype))


def two_pass(x: Float[Array, "*points c"]) -> Moments:
    """Mean and biased variance of each channel, by the corrected two-pass algorithm.

    The second pass takes the moments about the first pass's mean, which gives that mean's own rounding error and takes
    it out (Chan, Golub and LeVeque, The American Statistician 37, 1983). Accurate also where |mean| >> deviation.
    And so are flat maps, most of whose numbers are the same: one sum over all would be rounded the same way at each.
    """
    x = x.reshape(x.shape[0], -1, x.shape[-1])  # rows and columns as one: XLA sums up a long axis in parts
    axes = (0, 1)
    shift = lax.stop_gradient(x.mean(axes))  # the moments do not depend on it, so neither does their gradient
    residual = x - shift
    correction = residual.mean(axes)
    return shift + correction, variance_of(jnp.square(residual).mean(axes), correction)


def variance_of(square: Array, offset: Array) -> Array:
    """The variance, of the mean square about a shift that lies so far from the mean; rounding never makes it negative.

    Without that bound a flat map of 1e9 in float32 would have -4e-4, and no number for its root.
    """
    return jnp.maximum(square - jnp.square(offset), 0)


def one_pass(x: Float[Array, "n h w gc"], guess: Float[Array, " c"]) -> Moments:
    """The same by one pass, which takes the moments about a guess of the mean; in the dtype of the guess.

    The guess does not depend on `x`, so that a TPU sums up while it convolves; a second pass reads the map again. A CPU
    cannot, and is no faster this way (docs/performance.md).

    E[(x - guess)^2] - (mean - guess)^2 loses digits where the guess is far: with (mean - guess)^2 = r * variance, what
    is subtracted is r, from 1 + r, and the error is up to 1 + 3r times that of the two passes. Where r is above 1 in
    any channel, or no number, these are taken instead, and the guess does not count. So the variance's error is four
    times theirs at most, whatever the guess: a few roundings, half of which is left in what is normalised.

    A running mean is as near as that after the first steps of a training.
    """
    residual = x.astype(guess.dtype) - each(guess, x.shape[-1] // guess.size)
    offset = by_channel(residual.mean((0, 1, 2)), guess).mean(0)
    square = jnp.square(offset)
    variance = by_channel(jnp.square(residual).mean((0, 1, 2)), guess).mean(0) - square
    return lax.cond(
        (square <= _FAR * variance).all(),
        lambda _: (guess + offset, variance),
        lambda x: _two_pass(x, guess),
        x,
    )
