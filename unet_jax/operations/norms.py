"""Normalisation, channels last, in float32 at least."""

import jax.numpy as jnp
from jax import Array

from unet_jax.kernels.affine import affine, affine_plain
from unet_jax.kernels.group_normalisation import normalise_groups
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
    scale, shift = _scale_and_shift(x, weight, bias)
    guess = jnp.zeros_like(scale) if mean is None else mean.astype(scale.dtype)
    flat = x.reshape(x.shape[0], -1, 1, x.shape[-1]) if x.ndim != 4 else x
    y, of_batch, biased = normalise(flat, scale, shift, guess, epsilon)
    if renewed and mean is not None and variance is not None:
        share: float | Array = 0.0 if momentum is None else momentum
        if count is not None:
            run.track("count", count + 1)
            share = 1 / (count + 1).astype(scale.dtype) if momentum is None else share
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
    y, of_each, biased = normalise_groups(x, *_scale_and_shift(x, weight, bias), x.shape[-1], epsilon)
    if mean is not None and variance is not None:  # torch does not count these batches
        run.track("mean", _moved(mean, of_each.mean(0), momentum or 0.0))
        run.track("variance", _moved(variance, biased.mean(0) * (number / (number - 1)), momentum or 0.0))
    return y.astype(x.dtype)


def group_norm(
    x: Array, *, weight: Array | None = None, bias: Array | None = None, groups: int, epsilon: float
) -> Array:
    _check_number(x.size // groups, x)
    return normalise_groups(x, *_scale_and_shift(x, weight, bias), groups, epsilon).y.astype(x.dtype)


def layer_norm(x: Array, *, weight: Array | None = None, bias: Array | None = None, axes: int, epsilon: float) -> Array:
    last = tuple(range(-axes, 0))
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    residual = exact - exact.mean(last, keepdims=True)
    y = residual * inverse_deviation(jnp.square(residual).mean(last, keepdims=True), epsilon)
    return affine_plain(y, *_in_dtype_of(y, weight, bias)).astype(x.dtype)


def _scale_and_shift(x: Array, weight: Array | None, bias: Array | None) -> tuple[Array, Array]:
    """Of each channel, in float32 at least."""
    exact = jnp.promote_types(x.dtype, jnp.float32)
    scale = jnp.ones(x.shape[-1], exact) if weight is None else weight.astype(exact)
    return scale, jnp.zeros_like(scale) if bias is None else bias.astype(exact)


def _check_number(number: int, x: Array) -> None:
    if number == 1:
        raise ValueError(f"expected more than 1 value per channel when training, got input of shape {x.shape}")


def _predicted(
    x: Array, weight: Array | None, bias: Array | None, mean: Array, variance: Array, epsilon: float
) -> Array:
    exact = jnp.promote_types(x.dtype, jnp.float32)
    scale = inverse_deviation(variance.astype(exact), epsilon)
    scale = scale if weight is None else weight.astype(exact) * scale
    residual = affine(x.astype(exact), None, -mean.astype(exact))
    return affine(residual, *_in_dtype_of(residual, scale, bias)).astype(x.dtype)


def _in_dtype_of(y: Array, *tensors: Array | None) -> list[Array | None]:
    return [None if tensor is None else tensor.astype(y.dtype) for tensor in tensors]


def _moved(old: Array, new: Array, share: float | Array) -> Array:
    """(1 - share) * old + share * new, with one rounding of its own size."""
    new = new.astype(old.dtype)
    step = new - old
    return jnp.where(share < 0.5, old + share * step, new - (1 - share) * step).astype(old.dtype)


ROWS = of_maps(batch_norm=batch_norm, instance_norm=instance_norm, group_norm=group_norm) | in_torchs(
    layer_norm=layer_norm
)
