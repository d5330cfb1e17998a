"""The 2x2 max-pool, whose gradient a CPU finds by comparing."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float


def max_pool_of_two_plain(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """The largest of each 2x2 window, as XLA has it, gradient included; an odd last row or column is left out."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@jax.custom_vjp
def max_pool_of_two(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """`max_pool_of_two_plain`, but that a CPU finds the gradient's place by comparing instead of searching again.

    Has no forward-mode derivative.
    """
    return max_pool_of_two_plain(x)


def _max_pool_forward(x: Array) -> tuple[Array, Array]:
    return max_pool_of_two_plain(x), x


def _max_pool_backward(x: Array, gradient: Array) -> tuple[Array]:
    of_x: Array = lax.platform_dependent(x, gradient, cpu=_to_the_largest, default=_to_the_largest_plain)
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


max_pool_of_two.defvjp(_max_pool_forward, _max_pool_backward)
