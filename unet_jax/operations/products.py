"""Products of matrices, and attention."""

import jax.numpy as jnp
from jax import Array, nn

from unet_jax.operations.chance import dropped
from unet_jax.operations.rows import Run, in_torchs


def linear(x: Array, *, weight: Array, bias: Array | None = None) -> Array:
    y = jnp.tensordot(x.astype(weight.dtype), weight, ((-1,), (1,)))
    return y if bias is None else y + bias


def matmul(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y)


def einsum(x: Array, *more: Array, equation: str) -> Array:
    return jnp.einsum(equation, x, *more)


def attention(
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    rate: float = 0.0,
    run: Run,
) -> Array:
    exact = jnp.promote_types(query.dtype, jnp.float32)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = jnp.matmul(query * scale, key.mT).astype(exact)
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    if mask is not None and mask.dtype == bool:
        scores = jnp.where(mask, scores, -jnp.inf)
    elif mask is not None:
        scores = scores + mask.astype(exact)
    nothing = (scores == -jnp.inf).all(-1, keepdims=True)  # a row that may look at nothing has weights of zero
    weights = jnp.where(nothing, 0, nn.softmax(jnp.where(nothing, 0, scores), -1)).astype(value.dtype)
    return jnp.matmul(dropped(weights, weights.shape, rate, run) if rate else weights, value)


ROWS = in_torchs(linear=linear, matmul=matmul, einsum=einsum, attention=attention)
