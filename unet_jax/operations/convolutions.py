"""Convolutions, channels last, kernels spatial axes first. What XLA is slow at on a CPU is done there in other ways."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from unet_core.graph.operations import Ints, Pairs
from unet_jax.kernels.convolution import convolve
from unet_jax.kernels.general import (
    Geometry,
    convolved,
    convolved_on_cpu,
    in_phases,
    kernel_gradient,
    pulled,
    spread,
    spread_on_cpu,
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
    window = weight.shape[:-2]
    if set(window) == {1} and not any(map(any, padding)) and groups == 1:
        x = x[(slice(None), *(slice(None, None, step) for step in stride))]
        y = convolve(x, weight) if x.ndim == 4 else jnp.matmul(x, weight.reshape(weight.shape[-2:]))
    elif window == (3, 3) and groups == 1 and {*stride, *dilation} == {1} and padding == ((1, 1), (1, 1)):
        y = convolve(x, weight)
    else:
        plan = Geometry(stride, padding, dilation, groups)
        y = (_slow_convolved if _is_slow(window, plan) else convolved)(x, weight, plan)
    return y if bias is None else y + bias


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
        y = in_phases(x, kernel, plan, size)  # no two windows overlap: one product for each pixel
    else:
        y = _transposed(x, kernel, plan, size)
    return y if bias is None else y + bias


def _is_slow(window: Sequence[int], plan: Geometry) -> bool:
    """Whether XLA takes on a CPU many times as long as it need, forward or backward."""
    if plan.groups > 1:
        return math.prod(window) <= _MOST_TAPS
    return len(window) == 3 or any(size % 2 == 0 for size in window)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _slow_convolved(x: Array, kernel: Array, plan: Geometry) -> Array:
    """`convolved`, for kernels that `_is_slow` names. Has no forward-mode derivative."""
    plain, on_cpu = (partial(function, plan=plan) for function in (convolved, convolved_on_cpu))
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _forward(x: Array, kernel: Array, plan: Geometry) -> tuple[Array, _Saved]:
    return _slow_convolved(x, kernel, plan), (x, kernel)


def _backward(plan: Geometry, saved: _Saved, gradient: Array) -> _Saved:
    def on_cpu(x: Array, kernel: Array, gradient: Array) -> _Saved:
        of_x = spread_on_cpu(gradient, kernel, plan, x.shape[1:-1])
        return of_x, kernel_gradient(x, gradient, kernel.shape[:-2], plan)

    plain = partial(pulled, partial(convolved, plan=plan))
    of_both: _Saved = lax.platform_dependent(*saved, gradient, cpu=on_cpu, default=plain)
    return of_both


_slow_convolved.defvjp(_forward, _backward)


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
