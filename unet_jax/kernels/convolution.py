"""The convolution and its gradients; on a CPU with fewer multiplications. PyTorch has oneDNN for this."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unet_jax.kernels import products, winograd
from unet_jax.kernels.general import Form, by_platform, pulled
from unet_jax.kernels.packed_convolutions import columns_of, convolved_packed
from unet_jax.kernels.products import Geometry

_SAME = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
_NARROW = 16
"""Channels out, at most, that a CPU convolves by `convolve_along_rows` whatever the map's size."""
_CACHED = 2**19
"""Elements of a wider answer, at most, for the three times as many before they are summed to stay in a cache."""


def convolve_plain(x: Float[Array, "n h w c"], kernel: Float[Array, "k l c d"]) -> Float[Array, "n h w d"]:
    """The convolution that keeps height and width, as XLA has it, gradients included."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolve(x: Float[Array, "n h w c"], kernel: Float[Array, "k k c d"]) -> Float[Array, "n h w d"]:
    """The convolution that keeps height and width; `k` is 1 or 3.

    The same as `convolve_plain`, to rounding. Has no forward-mode derivative where k is not 1.
    """
    if kernel.shape[0] == 3:
        return _convolve(x, kernel)
    packs = _packs(x, kernel)
    return by_platform({"tpu": packs, "default": _of_points}, x, kernel) if packs else _of_points(x, kernel)


def _of_points(x: Array, kernel: Array) -> Array:
    if kernel.shape[3] == 1:  # no map of one channel is made, which a TPU pads to 128
        return jnp.einsum("nhwc,c->nhw", x, kernel[0, 0, :, 0])[..., None]
    return jnp.einsum("nhwc,cd->nhwd", x, kernel[0, 0])


def _packs(x: Array, kernel: Array) -> Form | None:
    """What a TPU computes the convolution by, with columns packed into channels, where any are."""
    half = kernel.shape[0] // 2
    plan = Geometry((1, 1), ((half, half),) * 2, (1, 1), 1)
    return partial(convolved_packed, plan=plan) if columns_of(x.shape[2], kernel.shape, plan) else None


@jax.custom_vjp
def _convolve(x: Array, kernel: Array) -> Array:
    """3x3. A CPU computes wide convolutions, and the gradients of their kernels, as `winograd` does, others row by row
    where that pays, and those of few pixels, and gradients, as `products`.
    """
    return lax.platform_dependent(x, kernel, **_forms(x, kernel))


def _forms(x: Array, kernel: Array) -> dict[str, Form]:
    """What each platform computes the convolution by."""
    forms: dict[str, Form] = {"default": convolve_plain}
    on_cpu = _on_cpu(x, kernel.shape[-1])
    if on_cpu is not None:
        forms["cpu"] = on_cpu
    packs = _packs(x, kernel)
    if packs is not None:
        forms["tpu"] = packs
    return forms


def _on_cpu(x: Array, out_channels: int) -> Form | None:
    """What a CPU does in place of `convolve_plain`."""
    if winograd.saves_unprepared(x.shape, out_channels, x.dtype):
        return winograd.convolve
    if products.are_tiny(x):
        return partial(products.convolved_as_product, plan=_SAME)
    pixels = math.prod(x.shape[:-1])
    pays = out_channels <= _NARROW or out_channels < pixels <= _CACHED // out_channels
    return convolve_along_rows if pays and winograd.is_exact(x.dtype) else None


def convolve_along_rows(x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "n h w d"]:
    """`convolve_plain` by one convolution along the row, whose answers to the kernel's three rows are then summed.

    Where the answers stay in a cache it is up to twice as fast on a CPU, and it errs by less in float32: XLA sums all
    products one after the other, which here are three sums (docs/performance.md).
    """
    _, height, _, channels = x.shape
    along = kernel.transpose(1, 2, 0, 3).reshape(1, 3, channels, -1)
    y = convolve_plain(jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))), along)
    y = y.reshape(*y.shape[:3], 3, -1)
    return y[:, :height, :, 0] + y[:, 1:-1, :, 1] + y[:, 2:, :, 2]


def dilated(x: Float[Array, "n h w c"], convolved: Callable[[Array], Array], far: int) -> Float[Array, "n h w d"]:
    """A 3x3 convolution whose taps lie so far apart: the usual one, `convolved`, of every so many rows and columns."""
    return _together(convolved(_every(x, far)), far, x.shape) if far > 1 else convolved(x)


def _every(x: Array, far: int) -> Array:
    """Maps of every so many rows and columns of some maps, one for each first row and column."""
    n, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, -height % far), (0, -width % far), (0, 0)))
    x = x.reshape(n, -(-height // far), far, -(-width // far), far, channels).transpose(2, 4, 0, 1, 3, 5)
    return x.reshape(far * far * n, *x.shape[3:])


def _together(y: Array, far: int, shape: tuple[int, ...]) -> Array:
    """The inverse, of maps of this shape but for their channels."""
    n, height, width, _ = shape
    y = y.reshape(far, far, n, *y.shape[1:]).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(n, y.shape[1] * far, -1, y.shape[-1])[:, :height, :width]


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    """In training a CPU takes no Winograd: it errs by 3 times as much as PyTorch, whose training takes none either."""
    forms = _forms(x, kernel)
    if forms.get("cpu") is winograd.convolve:
        forms["cpu"] = convolve_along_rows
    return lax.platform_dependent(x, kernel, **forms), (x, kernel)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    gradients = {platform: partial(pulled, form) for platform, form in _forms(*saved).items()}
    of_both: tuple[Array, Array] = lax.platform_dependent(*saved, gradient, **gradients | {"cpu": _gradients_on_cpu})
    return of_both


def _gradients_on_cpu(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    of_x, of_kernel = pulled(convolve_plain, x, kernel, gradient)
    if not winograd.is_exact(x.dtype):
        return of_x, of_kernel
    on_cpu = _on_cpu(gradient, x.shape[-1])
    if products.has_few_pixels(gradient) and on_cpu is not winograd.convolve:
        of_x = products.input_gradient(gradient, kernel, _SAME, x.shape[1:3])
    elif on_cpu is not None:
        of_x = _input_gradient(on_cpu, gradient, kernel)
    if winograd.saves_in_gradient(x.shape, gradient.shape[-1]):
        return of_x, winograd.kernel_gradient(x, gradient)
    return of_x, products.kernel_gradient(x, gradient, (3, 3), _SAME)


_convolve.defvjp(_forward, _backward)


def _input_gradient(convolve: Form, gradient: Array, kernel: Array) -> Array:
    return convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3))
