"""Functions of each number, with torch's derivatives at their kinks."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unet_core.graph.operations import Dtype
from unet_jax.operations.rows import Run, in_same, of_maps


def leaky_relu(x: Array, *, slope: float) -> Array:
    return jnp.where(x > 0, x, slope * x)


def prelu(x: Array, *, weight: Array) -> Array:
    return jnp.where(x > 0, x, weight * x)


def elu(x: Array, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    below = jnp.where(x > 0, 0, x)  # where it does not count, the exponential must not overflow in the gradient
    return jnp.where(x > 0, scale * x, scale * alpha * jnp.expm1(input_scale * below))


def gelu(x: Array, *, approximate: bool = False) -> Array:
    return jax.nn.gelu(x, approximate=approximate)


def softplus(x: Array, *, beta: float = 1.0, threshold: float = 20.0) -> Array:
    above = beta * x > threshold
    return jnp.where(above, x, jnp.log1p(jnp.exp(beta * jnp.where(above, 0, x))) / beta)


def clamp(x: Array, *, low: float | None = None, high: float | None = None) -> Array:
    x = x if low is None else jnp.where(x < low, low, x)
    return x if high is None else jnp.where(x > high, high, x)


def hardtanh(x: Array, *, low: float, high: float) -> Array:
    return jnp.where(x <= low, low, jnp.where(x >= high, high, x))


def hardswish(x: Array) -> Array:
    return jnp.where(x >= 3, x, jnp.where(x > -3, x * ((x + 3) / 6), 0))


@jax.custom_jvp
def hardsigmoid(x: Array) -> Array:
    return hardtanh(x, low=-3.0, high=3.0) / 6 + 0.5


@hardsigmoid.defjvp
def _steep(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Also in float64 torch's slope is the sixth of float32."""
    (x,), (change,) = primals, tangents
    return hardsigmoid(x), jnp.where((x > -3) & (x < 3), change * float(np.float32(1 / 6)), 0)


def absolute(x: Array) -> Array:
    return x * jnp.sign(x)  # the gradient is 0 at 0


def mish(x: Array) -> Array:
    return x * jnp.tanh(jax.nn.softplus(x))


def softmax(x: Array, *, axis: int) -> Array:
    return jax.nn.softmax(_exact(x), axis).astype(x.dtype)


def log_softmax(x: Array, *, axis: int) -> Array:
    return jax.nn.log_softmax(_exact(x), axis).astype(x.dtype)


def _exact(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def cast(x: Array, *, dtype: Dtype | None = None, run: Run) -> Array:
    return x.astype(run.dtype if dtype is None else jax.dtypes.canonicalize_dtype(dtype))


ROWS = of_maps(prelu=prelu) | in_same(
    relu=jax.nn.relu,
    sigmoid=jax.nn.sigmoid,
    tanh=jnp.tanh,
    silu=jax.nn.silu,
    mish=mish,
    hardswish=hardswish,
    hardsigmoid=hardsigmoid,
    log_sigmoid=jax.nn.log_sigmoid,
    softsign=jax.nn.soft_sign,
    exp=jnp.exp,
    log=jnp.log,
    sqrt=jnp.sqrt,
    rsqrt=lax.rsqrt,
    absolute=absolute,
    negative=jnp.negative,
    reciprocal=jnp.reciprocal,
    floor=jnp.floor,
    sine=jnp.sin,
    cosine=jnp.cos,
    erf=lax.erf,
    leaky_relu=leaky_relu,
    elu=elu,
    gelu=gelu,
    softplus=softplus,
    clamp=clamp,
    hardtanh=hardtanh,
    softmax=softmax,
    log_softmax=log_softmax,
    cast=cast,
)
