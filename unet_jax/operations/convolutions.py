"""Convolutions, channels last, kernels spatial axes first. What XLA is slow at on a CPU is done there in other ways."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from unet_core.graph.operations import Ints, Pairs
from unet_jax.kernels.affine import affine
from unet_jax.kernels.convolution import convolve, dilated
from unet_jax.kernels.general import (
    Form,
    by_platform,
    convolved,
    convolved_on_cpu,
    in_phases,
    pulled,
    spread,
    spread_on_cpu,
)
from unet_jax.kernels.packed_convolutions import columns_of, convolved_packed, raised_packed
from unet_jax.kernels.packing import group
from unet_jax.kernels.products import (
    Geometry,
    are_tiny,
    convolved_as_product,
    has_few_pixels,
    input_gradient,
    kernel_gradient,
    moved_apart,
)
from unet_jax.operations.rows import of_maps

_MOST_TAPS = 64
"""Of a kernel in groups, for a CPU to take them one by one."""
_Saved = tuple[Array, Array]
"""A map and a kernel, or their gradients."""


def convolution(
    x: Array, *, weight: Array, bias: Array | None = None, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Array:
    x = x.astype(weight.dtype)  # a network may compute in another dtype now and then
    plan = Geometry(stride, padding, dilation, groups)
    form = _form(weight.shape[:-2], plan)
    if not x.shape[-1]:  # as segmentation_models_pytorch hands on in place of a map that an encoder lacks
        y = convolved(x, weight, plan)
    elif form is not convolve and x.ndim == 4 and columns_of(x.shape[2], weight.shape, plan):
        y = by_platform({"tpu": partial(convolved_packed, plan=plan), "default": form}, x, weight)
    else:
        y = form(x, weight)
    return affine(y, None, bias)


def _form(window: Ints, plan: Geometry) -> Form:
    """What a convolution with such a kernel is computed by."""
    points = set(window) == {1} and not any(map(any, plan.padding)) and plan.groups == 1
    still = set(plan.stride) == set(plan.dilation) == {1} and plan.groups == 1
    if still and ((points and len(window) == 2) or (window == (3, 3) and plan.padding == ((1, 1), (1, 1)))):
        return convolve
    if points:
        return partial(_of_points, stride=plan.stride)
    return partial(_of_any_kind, plan=plan)


def _of_points(x: Array, kernel: Array, stride: Ints) -> Array:
    """By a kernel of one point."""
    x = x[(slice(None), *(slice(None, None, step) for step in stride))]
    return convolve(x, kernel) if x.ndim == 4 else jnp.matmul(x, kernel.reshape(kernel.shape[-2:]))


def _of_any_kind(x: Array, kernel: Array, plan: Geometry) -> Array:
    window, far = kernel.shape[:-2], plan.dilation[0]
    if plan.groups > 1 and math.prod(window) > _MOST_TAPS:
        return convolved(x, kernel, plan)
    apart = Geometry((1, 1), ((far, far),) * 2, (far, far), 1)
    if window == (3, 3) and plan == apart and min(x.shape[1:3]) >= 2 * far:
        forms = {"cpu": partial(_dilated, far=far), "default": partial(convolved, plan=plan)}
        return by_platform(forms, x, kernel)
    return _convolved(x, kernel, plan)


def transposed_convolution(
    x: Array,
    *,
    weight: Array,
    bias: Array | None = None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
) -> Array:
    x = x.astype(weight.dtype)
    window = weight.shape[:-2]
    plan = Geometry(stride, tuple((pad, pad) for pad in padding), dilation, groups)
    sizes = zip(x.shape[1:-1], window, stride, padding, output_padding, dilation, strict=True)
    size = tuple((n - 1) * step - 2 * pad + far * (k - 1) + more + 1 for n, k, step, pad, more, far in sizes)
    kernel = weight.mT  # of the convolution that it is the transpose of
    if window == stride and not any((*padding, *output_padding)) and set(dilation) == {1} and groups == 1:
        y = _apart(x, kernel, plan, size)
    else:
        y = _transposed(x, kernel, plan, size)
    return affine(y, None, bias)


def _apart(x: Array, kernel: Array, plan: Geometry, size: Ints) -> Array:
    """The transpose of a convolution no two windows of which overlap. A TPU does it as XLA has it: it would copy the
    answers of products to where they belong.
    """
    forms: dict[str, Form] = {"cpu": moved_apart, "default": partial(in_phases, plan=plan, size=size)}
    if x.ndim == 4:
        _, wide, out, channels = kernel.shape
        packs = group(x.shape[2], channels, wide * out) > 1
        forms["tpu"] = raised_packed if packs else partial(spread, plan=plan, size=size)
    return by_platform(forms, x, kernel)


def _dilated(x: Array, kernel: Array, far: int) -> Array:
    return dilated(x, lambda x: convolve(x, kernel), far)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolved(x: Array, kernel: Array, plan: Geometry) -> Array:
    """`convolved`. Has no forward-mode derivative."""
    plain = partial(convolved, plan=plan)
    on_cpu: Callable[..., Array] = convolved_on_cpu
    if plan.groups == 1:
        on_cpu = convolved_as_product if are_tiny(x) else convolved
    return lax.platform_dependent(x, kernel, cpu=partial(on_cpu, plan=plan), default=plain)


def _forward(x: Array, kernel: Array, plan: Geometry) -> tuple[Array, _Saved]:
    return _convolved(x, kernel, plan), (x, kernel)


def _backward(plan: Geometry, saved: _Saved, gradient: Array) -> _Saved:
    def on_cpu(x: Array, kernel: Array, gradient: Array) -> _Saved:
        size = x.shape[1:-1]
        if plan.groups == 1 and has_few_pixels(gradient):
            of_x = input_gradient(gradient, kernel, plan, size)
        else:
            of_x = spread_on_cpu(gradient, kernel, plan, size)
        return of_x, kernel_gradient(x, gradient, kernel.shape[:-2], plan)

    plain = partial(pulled, partial(convolved, plan=plan))
    of_both: _Saved = lax.platform_dependent(*saved, gradient, cpu=on_cpu, default=plain)
    return of_both


_convolved.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _transposed(x: Array, kernel: Array, plan: Geometry, size: Ints) -> Array:
    """The transpose of a convolution of maps of this size. Has no forward-mode derivative."""
    plain, on_cpu = (partial(function, plan=plan, size=size) for function in (spread, spread_on_cpu))
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _transposed_forward(x: Array, kernel: Array, plan: Geometry, size: Ints) -> tuple[Array, _Saved]:
    return _transposed(x, kernel, plan, size), (x, kernel)


def _transposed_backward(plan: Geometry, size: Ints, saved: _Saved, gradient: Array) -> _Saved:
    def on_cpu(x: Array, kernel: Array, gradient: Array) -> _Saved:
        of_kernel = kernel_gradient(gradient, x, kernel.shape[:-2], plan)
        return convolved_on_cpu(gradient, kernel, plan), of_kernel

    plain = partial(pulled, partial(spread, plan=plan, size=size))
    of_both: _Saved = lax.platform_dependent(*saved, gradient, cpu=on_cpu, default=plain)
    return of_both


_transposed.defvjp(_transposed_forward, _transposed_backward)


ROWS = of_maps(convolution=convolution, transposed_convolution=transposed_convolution)
