"""Normalisation, channels last, in float32 at least."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from unet_jax.kernels.normalisation import inverse_deviation, normalise
from unet_jax.operations.rows import Run, in_torchs, of_maps


def batch_norm(
    x: Array,
    *,
    weight: Array | None = None,
    bias: Array | None = None,
    mean: Array | None = None,
    variance: Array | None = None,
    count: Array | None = None,
    epsilon: float,
    momentum: float | None,
    frozen: bool = False,
    run: Run,
) -> Array:
    renewed = run.training and not frozen
    if mean is not None and variance is not None and not renewed:
        return _predicted(x, weight, bias, mean, variance, epsilon)
    number = x.size // x.shape[-1]
    _check_number(number, x)
    exact = jnp.promote_types(x.dtype, jnp.float32)
    channels = x.shape[-1:]
    scale = jnp.ones(channels, exact) if weight is None else weight.astype(exact)
    shift = jnp.zeros(channels, exact) if bias is None else bias.astype(exact)
    guess = jnp.zeros(channels, exact) if mean is None else mean.astype(exact)
    flat = x.reshape(x.shape[0], -1, 1, *channels) if x.ndim != 4 else x
    y, of_batch, biased = normalise(flat, scale, shift, guess, epsilon)
    if renewed and mean is not None and variance is not None:
        share: float | Array = 0.0 if momentum is None else momentum
        if count is not None:
            run.track("count", count + 1)
            share = 1 / (count + 1).astype(exact) if momentum is None else share
        run.track("mean", _moved(mean, of_batch, share))
        run.track("variance", _moved(variance, biased * (number / (number - 1)), share))
    return y.reshape(x.shape).astype(x.dtype)


def instance_norm(
    x: Array,
    *,
    weight: Array | None = None,
    bias: Array | None = None,
    mean: Array | None = None,
    variance: Array | None = None,
    count: Array | None = None,
    epsilon: float,
    momentum: float | None = None,
    run: Run,
) -> Array:
    if mean is not None and variance is not None and not run.training:
        return _predicted(x, weight, bias, mean, variance, epsilon)
    number = x.size // (x.shape[0] * x.shape[-1])
    _check_number(number, x)
    y, of_each, biased = _normalised(x, x.shape[-1], epsilon)
    if mean is not None and variance is not None:  # torch does not count these batches
        run.track("mean", _moved(mean, of_each.mean(0), momentum or 0.0))
        run.track("variance", _moved(variance, biased.mean(0) * (number / (number - 1)), momentum or 0.0))
    return _affine(y, weight, bias).astype(x.dtype)


def group_norm(
    x: Array, *, weight: Array | None = None, bias: Array | None = None, groups: int, epsilon: float
) -> Array:
    _check_number(x.size // groups, x)
    return _affine(_normalised(x, groups, epsilon)[0], weight, bias).astype(x.dtype)


def layer_norm(x: Array, *, weight: Array | None = None, bias: Array | None = None, axes: int, epsilon: float) -> Array:
    last = tuple(range(-axes, 0))
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    residual = exact - exact.mean(last, keepdims=True)
    y = residual * inverse_deviation(jnp.square(residual).mean(last, keepdims=True), epsilon)
    return _affine(y, weight, bias).astype(x.dtype)


def _check_number(number: int, x: Array) -> None:
    if number == 1:
        raise ValueError(f"expected more than 1 value per channel when training, got input of shape {x.shape}")


def _predicted(
    x: Array, weight: Array | None, bias: Array | None, mean: Array, variance: Array, epsilon: float
) -> Array:
    exact = jnp.promote_types(x.dtype, jnp.float32)
    scale = inverse_deviation(variance.astype(exact), epsilon)
    scale = scale if weight is None else weight.astype(exact) * scale
    return _affine(x.astype(exact) - mean.astype(exact), scale, bias).astype(x.dtype)


def _affine(y: Array, weight: Array | None, bias: Array | None) -> Array:
    y = y if weight is None else y * weight.astype(y.dtype)
    return y if bias is None else y + bias.astype(y.dtype)


def _moved(old: Array, new: Array, share: float | Array) -> Array:
    """(1 - share) * old + share * new, with one rounding of its own size."""
    new = new.astype(old.dtype)
    step = new - old
    return jnp.where(share < 0.5, old + share * step, new - (1 - share) * step).astype(old.dtype)


_Moments = tuple[Array, Array, Array]


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _normalised(x: Array, groups: int, epsilon: float) -> _Moments:
    """What is normalised, and each example's mean and biased variance by channel; the moments have no gradient.

    Has no forward-mode derivative.
    """
    return _forward(x, groups, epsilon)[0]


def _forward(x: Array, groups: int, epsilon: float) -> tuple[_Moments, tuple[Array, Array, Array]]:
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = _mean(exact, groups)
    residual = exact - mean
    correction = _mean(residual, groups)  # the mean's own rounding error, as in `two_pass`
    mean, residual = mean + correction, residual - correction
    variance = _mean(jnp.square(residual), groups)
    inverse = inverse_deviation(variance, epsilon)
    n, channels = x.shape[0], x.shape[-1]
    made = residual * inverse, mean.reshape(n, channels), variance.reshape(n, channels)
    return made, (x, mean, inverse)


def _backward(groups: int, epsilon: float, saved: tuple[Array, Array, Array], gradients: _Moments) -> tuple[Array]:
    x, mean, inverse = saved
    gradient = gradients[0]
    y = (x.astype(gradient.dtype) - mean) * inverse
    of_x = gradient - _mean(gradient, groups) - y * _mean(gradient * y, groups)
    return ((of_x * inverse).astype(x.dtype),)


_normalised.defvjp(_forward, _backward)


def _mean(x: Array, groups: int) -> Array:
    """Of each example's groups of channels, for each channel: first of each map, as one long axis (see `two_pass`)."""
    mean = x.reshape(x.shape[0], -1, x.shape[-1]).mean(1).reshape(x.shape[0], *(1,) * (x.ndim - 2), -1)
    if groups == x.shape[-1]:
        return mean
    grouped = mean.reshape(*mean.shape[:-1], groups, -1)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(mean.shape)


ROWS = of_maps(batch_norm=batch_norm, instance_norm=instance_norm, group_norm=group_norm) | in_torchs(
    layer_norm=layer_norm
)
