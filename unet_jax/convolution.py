"""The convolution, and on a CPU the gradient of its kernel by blocks of rows. PyTorch has oneDNN for this."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

_PIXELS = 4096
"""Of a block, so that its shifted views lie in a core's cache."""
_WIDE = 32
"""Maps of fewer columns are left to XLA, which is as fast on them."""


def convolve_plain(x: Float[Array, "n h w c"], kernel: Float[Array, "k l c d"]) -> Float[Array, "n h w d"]:
    """The convolution that keeps height and width, as XLA has it, gradients included."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolve(x: Float[Array, "n h w c"], kernel: Float[Array, "k k c d"]) -> Float[Array, "n h w d"]:
    """The convolution that keeps height and width; `k` is odd.

    The same as `convolve_plain`, but for the order of some sums. Has no forward-mode derivative where k is not 1.
    """
    if kernel.shape == (1, 1, x.shape[-1], 1):  # no map of one channel is made, which a TPU pads to 128
        return jnp.einsum("nhwc,c->nhw", x, kernel[0, 0, :, 0])[..., None]
    if kernel.shape[0] == 1:
        return jnp.einsum("nhwc,cd->nhwd", x, kernel[0, 0])
    return _convolve(x, kernel)


@jax.custom_vjp
def _convolve(x: Array, kernel: Array) -> Array:
    """A CPU computes the gradient of the kernel by blocks of rows.

    XLA's is a convolution with a window as large as the image, at a half to a third of the speed on large ones.
    """
    return convolve_plain(x, kernel)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return convolve_plain(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (of_x,) = jax.linear_transpose(lambda x: convolve_plain(x, kernel), x)(gradient)
    by_xla = partial(_kernel_gradient, kernel)
    if x.shape[2] < _WIDE:
        return of_x, by_xla(x, gradient)
    by_rows = partial(kernel_gradient_by_rows, size=kernel.shape[0])
    return of_x, lax.platform_dependent(x, gradient, cpu=by_rows, default=by_xla)


_convolve.defvjp(_forward, _backward)


def _kernel_gradient(kernel: Array, x: Array, gradient: Array) -> Array:
    (of_kernel,) = jax.linear_transpose(lambda kernel: convolve_plain(x, kernel), kernel)(gradient)
    return of_kernel


def kernel_gradient_by_rows(
    x: Float[Array, "n h w c"], gradient: Float[Array, "n h w d"], *, size: int
) -> Float[Array, "k k c d"]:
    """The gradient of a `size` x `size` kernel as matrix products over blocks of rows.

    `gradient[..., d]` times each shifted view of the input, summed over the pixels. The views that are shifted along
    the row lie side by side in one matrix, [pixels, size * c]; those that are shifted along the column are parts of it.
    """
    n, height, width, channels = x.shape
    rows = max(min(_PIXELS // width, height), 1)
    blocks = -(-height // rows)
    below = blocks * rows - height  # the last block's rows without a gradient
    edge = size // 2
    x = jnp.pad(x, ((0, 0), (edge, edge + below), (edge, edge), (0, 0)))
    gradient = jnp.pad(gradient, ((0, 0), (0, below), (0, 0), (0, 0)))

    def add(totals: list[Array], number: Array) -> tuple[list[Array], None]:
        start = (number // blocks, number % blocks * rows, 0, 0)
        part = lax.dynamic_slice(x, start, (1, rows + 2 * edge, *x.shape[2:]))[0]
        slopes = lax.dynamic_slice(gradient, start, (1, rows, *gradient.shape[2:])).reshape(rows * width, -1)
        views = jnp.concatenate([part[:, shift : shift + width] for shift in range(size)], axis=-1)
        flat = (views[shift : shift + rows].reshape(rows * width, -1) for shift in range(size))
        return [total + slopes.T @ view for total, view in zip(totals, flat, strict=True)], None

    zero = jnp.zeros((gradient.shape[-1], size * channels), x.dtype)
    totals, _ = lax.scan(add, [zero] * size, jnp.arange(n * blocks))
    return jnp.stack(totals).reshape(size, -1, size, channels).transpose(0, 2, 3, 1)
