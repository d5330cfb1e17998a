"""The convolution and its gradients; on a CPU with fewer multiplications. PyTorch has oneDNN for this."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unet_jax.kernels import winograd

_WIDE = 32
"""Maps of fewer columns are left to XLA, which is as fast on them."""
_NARROW = 16
"""Channels out, at most, that a CPU convolves by `convolve_narrow`."""


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
    """3x3. A CPU computes wide convolutions, and the gradients of all kernels, as `winograd` does, and narrow ones row
    by row.

    XLA's own gradient of a kernel is a convolution with a window as large as the image, at a half to a third of the
    speed on large ones.
    """
    on_cpu = _on_cpu(x, kernel.shape[-1])
    if on_cpu is None:
        return convolve_plain(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=convolve_plain)


def _on_cpu(x: Array, out_channels: int) -> Callable[[Array, Array], Array] | None:
    """What a CPU does in place of `convolve_plain`."""
    if winograd.saves_unprepared(x.shape, out_channels, x.dtype):
        return winograd.convolve
    return convolve_narrow if out_channels <= _NARROW and winograd.is_exact(x.dtype) else None


def convolve_narrow(x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "n h w d"]:
    """`convolve_plain` by one convolution along the row, whose answers to the kernel's three rows are then summed.

    With few channels it is up to twice as fast on a CPU, and errs by less in float32: XLA sums all products one after
    the other, which here are three sums (docs/performance.md).
    """
    _, height, _, channels = x.shape
    along = kernel.transpose(1, 2, 0, 3).reshape(1, 3, channels, -1)
    y = convolve_plain(jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))), along)
    y = y.reshape(*y.shape[:3], 3, -1)
    return y[:, :height, :, 0] + y[:, 1:-1, :, 1] + y[:, 2:, :, 2]


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    of_x, of_kernel = partial(_input_gradient_plain, x), partial(_kernel_gradient_plain, kernel)
    on_cpu = _on_cpu(gradient, x.shape[-1])
    if on_cpu is not None:
        of_x = partial(lax.platform_dependent, cpu=partial(_input_gradient, on_cpu), default=of_x)
    if winograd.is_exact(x.dtype) and x.shape[2] >= _WIDE:
        of_kernel = partial(lax.platform_dependent, cpu=winograd.kernel_gradient, default=of_kernel)
    return of_x(gradient, kernel), of_kernel(x, gradient)


_convolve.defvjp(_forward, _backward)


def _input_gradient(convolution: Callable[[Array, Array], Array], gradient: Array, kernel: Array) -> Array:
    return convolution(gradient, kernel[::-1, ::-1].swapaxes(2, 3))


def _input_gradient_plain(x: Array, gradient: Array, kernel: Array) -> Array:
    (of_x,) = jax.linear_transpose(lambda x: convolve_plain(x, kernel), x)(gradient)
    return of_x


def _kernel_gradient_plain(kernel: Array, x: Array, gradient: Array) -> Array:
    (of_kernel,) = jax.linear_transpose(lambda kernel: convolve_plain(x, kernel), kernel)(gradient)
    return of_kernel
