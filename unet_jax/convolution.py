"""The convolution and its gradients; on a CPU with fewer multiplications. PyTorch has oneDNN for this."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unet_jax import winograd

_WIDE = 32
"""Maps of fewer columns are left to XLA, which is as fast on them."""


def convolve_plain(x: Float[Array, "n h w c"], kernel: Float[Array, "k l c d"]) -> Float[Array, "n h w d"]:
    """The convolution that keeps height and width, as XLA has it, gradients included."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolve(x: Float[Array, "n h w c"], kernel: Float[Array, "k k c d"]) -> Float[Array, "n h w d"]:
    """The convolution that keeps height and width; `k` is 1 or 3.

    The same as `convolve_plain`, to rounding. Has no forward-mode derivative where k is not 1.
    """
    if kernel.shape == (1, 1, x.shape[-1], 1):  # no map of one channel is made, which a TPU pads to 128
        return jnp.einsum("nhwc,c->nhw", x, kernel[0, 0, :, 0])[..., None]
    if kernel.shape[0] == 1:
        return jnp.einsum("nhwc,cd->nhwd", x, kernel[0, 0])
    return _convolve(x, kernel)


@jax.custom_vjp
def _convolve(x: Array, kernel: Array) -> Array:
    """3x3. A CPU computes wide convolutions, and the gradients of all kernels, as `unet_jax.winograd` does.

    XLA's own gradient of a kernel is a convolution with a window as large as the image, at a half to a third of the
    speed on large ones.
    """
    if not winograd.saves_unprepared(x.shape, kernel.shape[-1], x.dtype):
        return convolve_plain(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=winograd.convolve, default=convolve_plain)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    of_x, of_kernel = partial(_input_gradient_plain, x), partial(_kernel_gradient_plain, kernel)
    if winograd.saves_unprepared(gradient.shape, x.shape[-1], x.dtype):
        of_x = partial(lax.platform_dependent, cpu=_input_gradient, default=of_x)
    if winograd.is_exact(x.dtype) and x.shape[2] >= _WIDE:
        of_kernel = partial(lax.platform_dependent, cpu=winograd.kernel_gradient, default=of_kernel)
    return of_x(gradient, kernel), of_kernel(x, gradient)


_convolve.defvjp(_forward, _backward)


def _input_gradient(gradient: Array, kernel: Array) -> Array:
    return winograd.convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3))


def _input_gradient_plain(x: Array, gradient: Array, kernel: Array) -> Array:
    (of_x,) = jax.linear_transpose(lambda x: convolve_plain(x, kernel), x)(gradient)
    return of_x


def _kernel_gradient_plain(kernel: Array, x: Array, gradient: Array) -> Array:
    (of_kernel,) = jax.linear_transpose(lambda kernel: convolve_plain(x, kernel), kernel)(gradient)
    return of_kernel
