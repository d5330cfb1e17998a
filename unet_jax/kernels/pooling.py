"""The 2x2 max-pool, whose gradient a CPU finds by comparing."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from unet_jax.kernels.packing import group, packed, unpacked


def max_pool_of_two_plain(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """The largest of each 2x2 window, as XLA has it, gradient included; an odd last row or column is left out."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@jax.custom_vjp
def max_pool_of_two(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """`max_pool_of_two_plain`, but that a CPU finds the gradient's place by comparing instead of searching again.

    And so does a TPU where columns are packed into channels. Has no forward-mode derivative.
    """
    forms = {"default": max_pool_of_two_plain}
    if _packs(x):
        forms["tpu"] = _largest
    pooled: Array = lax.platform_dependent(x, **forms)
    return pooled


def _max_pool_forward(x: Array) -> tuple[Array, Array]:
    return max_pool_of_two(x), x


def _max_pool_backward(x: Array, gradient: Array) -> tuple[Array]:
    forms = {"cpu": _to_the_largest, "default": _to_the_largest_plain}
    if _packs(x):
        forms["tpu"] = _to_the_largest_of_packed
    of_x: Array = lax.platform_dependent(x, gradient, **forms)
    return (of_x,)


def _to_the_largest_plain(x: Array, gradient: Array) -> Array:
    return jax.vjp(max_pool_of_two_plain, x)[1](gradient)[0]


def _to_the_largest(x: Array, gradient: Array) -> Array:
    """The gradient of each window at the first of its largest elements.

    By comparing the elements with one another: XLA may compute them anew here, rounded otherwise, and then none need be
    equal to the maximum of before.
    """
    n, height, width, channels = gradient.shape
    whole = x[:, : 2 * height, : 2 * width].reshape(n, height, 2, width, 2, channels)
    elements = [whole[:, :, row, :, column] for row in range(2) for column in range(2)]
    free = jnp.ones(gradient.shape, bool)  # no element of the window was the largest yet
    places = []
    for number, element in enumerate(elements):
        largest = free
        for later in elements[number + 1 :]:
            largest &= element >= later
        places.append(jnp.where(largest, gradient, 0))
        free &= ~largest
    of_x = jnp.stack([jnp.stack(places[:2], 3), jnp.stack(places[2:], 3)], 2)
    of_x = of_x.reshape(n, 2 * height, 2 * width, channels)
    return jnp.pad(of_x, ((0, 0), (0, x.shape[1] - 2 * height), (0, x.shape[2] - 2 * width), (0, 0)))


def _packs(x: Array) -> bool:
    return x.shape[1] % 2 == 0 and group(x.shape[2], x.shape[3]) > 1


def _halves(x: Array) -> tuple[Array, Array]:
    """The first and the second row of all windows, with packed columns."""
    x = packed(x, group(*x.shape[2:]))
    return x[:, ::2], x[:, 1::2]


def _largest(x: Array) -> Array:
    """`max_pool_of_two_plain` with packed columns."""
    columns = group(*x.shape[2:])
    parts = jnp.split(jnp.maximum(*_halves(x)), columns, -1)
    both = [jnp.maximum(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return unpacked(jnp.concatenate(both, -1), columns // 2)


def _to_the_largest_of_packed(x: Array, gradient: Array) -> Array:
    """The same with packed columns; an element is the first of the largest if it is above those before it."""
    channels = x.shape[3]
    columns = group(x.shape[2], channels)
    upper, lower = _halves(x)
    lanes = np.arange(columns * channels)
    first = lanes // channels % 2 == 0  # of the two columns of a window
    other = np.where(first, lanes + channels, lanes - channels)
    beside_upper, beside_lower = _moved(upper, other), _moved(lower, other)

    def above(half: Array, beside: Array) -> Array:
        return (half > beside) | (first & (half == beside))

    window = lanes // (2 * channels) * channels + lanes % channels
    gradient = _moved(packed(gradient, columns // 2), window)
    places = (
        above(upper, beside_upper) & (upper >= lower) & (upper >= beside_lower),
        above(lower, beside_lower) & (lower > upper) & (lower > beside_upper),
    )
    zero = jnp.zeros((), gradient.dtype)
    rows = [
        lax.pad(jnp.where(place, gradient, zero), zero, [(0, 0, 0), (row, 1 - row, 1), (0, 0, 0), (0, 0, 0)])
        for row, place in enumerate(places)
    ]
    return unpacked(rows[0] + rows[1], columns)


def _moved(x: Array, lanes: np.ndarray) -> Array:
    """The channels of these places, by a product: a TPU takes longer to move them one by one."""
    places = np.equal.outer(np.arange(x.shape[-1]), lanes)
    return jnp.matmul(x, places.astype(x.dtype), precision=lax.Precision.HIGHEST)


max_pool_of_two.defvjp(_max_pool_forward, _max_pool_backward)
