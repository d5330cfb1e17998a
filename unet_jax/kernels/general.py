"""The convolution and its transpose, channels last, kernels spatial axes first: as XLA has them, and in other ways.

XLA's own are many times slower on a CPU than need be: convolutions in groups, transposed ones in three dimensions.
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from unet_core.graph.operations import Ints
from unet_jax.kernels.products import Geometry, interleaved, taps_of

_AXES = "DHW"


def convolved(x: Array, kernel: Array, plan: Geometry, apart: Ints | None = None) -> Array:
    """XLA's own; of `x` with zeros between its elements, which then lie so far `apart`."""
    axes = _AXES[-len(plan.stride) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        plan.stride,
        plan.padding,
        lhs_dilation=apart,
        rhs_dilation=plan.dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=plan.groups,
    )


def convolved_on_cpu(x: Array, kernel: Array, plan: Geometry, apart: Ints | None = None) -> Array:
    """The same; in groups as the sum of products with its taps, in float32 at least."""
    if plan.groups == 1:
        return convolved(x, kernel, plan, apart)
    dtype, exact = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    x, kernel = x.astype(exact), kernel.astype(exact)
    *window, each, out = kernel.shape
    y: Array | None = None
    parts = kernel.reshape(-1, each, plan.groups, out // plan.groups)
    for tap, part in zip(taps_of(x, window, plan, apart), parts, strict=True):
        grouped = tap.reshape(*tap.shape[:-1], plan.groups, each)
        products = grouped * part[0] if each == 1 else jnp.einsum("...gi,igo->...go", grouped, part)
        y = products if y is None else y + products
    assert y is not None
    return y.reshape(*y.shape[:-2], out).astype(dtype)


def spread(x: Array, kernel: Array, plan: Geometry, size: Ints, convolve: Callable[..., Array] = convolved) -> Array:
    """The transpose of the convolution of a map of this size, as a convolution of what lies `stride` apart."""
    window = kernel.shape[:-2]
    amounts = []
    for n, k, length, step, (pad, _), far in zip(
        x.shape[1:-1], window, size, plan.stride, plan.padding, plan.dilation, strict=True
    ):
        before = far * (k - 1) - pad
        amounts.append((before, length + far * (k - 1) - (n - 1) * step - 1 - before))
    still = plan._replace(stride=(1,) * len(window), padding=tuple(amounts))
    return convolve(x, jnp.flip(_swapped(kernel, plan.groups), range(len(window))), still, plan.stride)


def spread_on_cpu(x: Array, kernel: Array, plan: Geometry, size: Ints) -> Array:
    """The same."""
    if len(size) == 3 and max(plan.stride) > 1 and set(plan.dilation) == {1} and plan.groups == 1:
        return in_phases(x, kernel, plan, size)
    return spread(x, kernel, plan, size, convolved_on_cpu)


def _swapped(kernel: Array, groups: int) -> Array:
    """In each group, what goes in as what comes out."""
    *window, each, out = kernel.shape
    return jnp.swapaxes(kernel.reshape(*window, each, groups, -1), -1, -3).reshape(*window, out // groups, -1)


def in_phases(x: Array, kernel: Array, plan: Geometry, size: Ints) -> Array:
    """The same, if not dilated: what lies between two of `x` are channels of one convolution, and then moved apart."""
    kernel = kernel.mT
    *window, channels, out = kernel.shape
    count = len(window)
    reach = [-(-k // step) for k, step in zip(window, plan.stride, strict=True)]
    kernel = jnp.pad(
        kernel, [(0, n * step - k) for n, step, k in zip(reach, plan.stride, window, strict=True)] + [(0, 0)] * 2
    )
    kernel = kernel.reshape(*(part for pair in zip(reach, plan.stride, strict=True) for part in pair), channels, out)
    far, near = range(0, 2 * count, 2), range(1, 2 * count, 2)
    kernel = kernel.transpose(*far, 2 * count, *near, 2 * count + 1).reshape(*reach, channels, -1)
    kernel = jnp.flip(kernel, range(count))
    whole = tuple((n - 1, n - 1) for n in reach)
    if max(reach) == 1:
        y = jnp.matmul(x, kernel.reshape(channels, -1))
    else:
        y = convolved(x, kernel, Geometry((1,) * count, whole, (1,) * count, 1))
    y = interleaved(y, plan.stride)
    cut = [(-pad, want - (n - pad), 0) for (pad, _), want, n in zip(plan.padding, size, y.shape[1:-1], strict=True)]
    return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *cut, (0, 0, 0)])


Form = Callable[[Array, Array], Array]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def by_platform(forms: Mapping[str, Form], x: Array, kernel: Array) -> Array:
    """What the platform's form makes of a map and a kernel, or `default`; linear in each of the two.

    By itself JAX would linearise all forms, which takes longer than all the rest of a small network. Has no
    forward-mode derivative.
    """
    return lax.platform_dependent(x, kernel, **forms)


def _by_platform_forward(forms: Mapping[str, Form], x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return by_platform(forms, x, kernel), (x, kernel)


def _by_platform_backward(
    forms: Mapping[str, Form], saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    gradients = {platform: partial(pulled, form) for platform, form in forms.items()}
    of_both: tuple[Array, Array] = lax.platform_dependent(*saved, gradient, **gradients)
    return of_both


by_platform.defvjp(_by_platform_forward, _by_platform_backward)


def pulled(function: Form, x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    """The gradients by a map and a kernel of what a function makes of them, given the gradient by that."""
    of_both: tuple[Array, Array] = jax.vjp(function, x, kernel)[1](gradient)
    return of_both
