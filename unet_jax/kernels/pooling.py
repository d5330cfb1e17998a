"""The 2x2 max-pool, whose gradient a CPU finds by comparing."""

from functools import reduce

import jax
import jax.numpy as jnp
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
    places = _placed([whole[:, :, row, :, column] for row in range(2) for column in range(2)], gradient)
    of_x = jnp.stack([jnp.stack(places[:2], 3), jnp.stack(places[2:], 3)], 2)
    of_x = of_x.reshape(n, 2 * height, 2 * width, channels)
    return jnp.pad(of_x, ((0, 0), (0, x.shape[1] - 2 * height), (0, x.shape[2] - 2 * width), (0, 0)))


def _placed(elements: list[Array], gradient: Array) -> list[Array]:
    """For each element of a window the gradient, where it is the first of the largest; else zero."""
    free = jnp.ones(gradient.shape, bool)  # no element of the window was the largest yet
    places = []
    for number, element in enumerate(elements):
        largest = free
        for later in elements[number + 1 :]:
            largest &= element >= later
        places.append(jnp.where(largest, gradient, 0))
        free &= ~largest
    return places


def _packs(x: Array) -> bool:
    return x.shape[1] % 2 == 0 and group(x.shape[2], x.shape[3]) > 1


def _elements(x: Array) -> list[Array]:
    """The four elements of the windows of a map whose columns are packed; the windows have half as many packed."""
    channels = x.shape[3]
    columns = group(x.shape[2], channels)
    rows = packed(x, columns).reshape(x.shape[0], -1, 2, x.shape[2] // columns, columns * channels)
    parts = [rows[..., at : at + channels] for at in range(0, columns * channels, channels)]
    sides = [jnp.concatenate(parts[side::2], -1) for side in range(2)]
    return [sides[column][:, :, row] for row in range(2) for column in range(2)]


def _largest(x: Array) -> Array:
    """`max_pool_of_two_plain` with packed columns."""
    return unpacked(reduce(jnp.maximum, _elements(x)), group(x.shape[2], x.shape[3]) // 2)


def _to_the_largest_of_packed(x: Array, gradient: Array) -> Array:
    n, height, width, channels = x.shape
    columns = group(width, channels)
    places = _placed(_elements(x), packed(gradient, columns // 2))
    rows = []
    for pair in (places[:2], places[2:]):
        sides = [jnp.split(side, columns // 2, -1) for side in pair]
        rows.append(jnp.concatenate([part for both in zip(*sides, strict=True) for part in both], -1))
    return unpacked(jnp.stack(rows, 2).reshape(n, height, width // columns, -1), columns)


max_pool_of_two.defvjp(_max_pool_forward, _max_pool_backward)
