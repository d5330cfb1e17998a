"""What each channel is multiplied by, and what is added to it; with packed columns on a TPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, lax
from jaxtyping import Float

from unet_jax.kernels.packing import by_channel, each, group, packed, unpacked

_Saved = tuple[Array, Array | None, Array | None]


def affine_plain(
    x: Float[Array, "*shape"], scale: Float[Array, "..."] | None, shift: Float[Array, "..."] | None
) -> Float[Array, "*shape"]:
    """`affine` with JAX's own derivatives, and for tensors of more than the last axis too."""
    x = x if scale is None else x * scale
    return x if shift is None else x + shift


@jax.custom_vjp
def affine(
    x: Float[Array, "n *size c"], scale: Float[Array, " c"] | None, shift: Float[Array, " c"] | None
) -> Float[Array, "n *size c"]:
    """The map times `scale` plus `shift`, where there are such, all of one dtype. Has no forward-mode derivative."""
    return _by_platform(affine_plain, _packed, x, scale, shift)


def _by_platform(plain: Callable[..., Any], packs: Callable[..., Any], x: Array, *given: Any) -> Any:
    forms = {"default": plain}
    columns = group(*x.shape[2:]) if x.ndim == 4 else 1
    if columns > 1:
        forms["tpu"] = partial(packs, columns)
    return lax.platform_dependent(x, *given, **forms)


def _packed(columns: int, x: Array, scale: Array | None, shift: Array | None) -> Array:
    vectors = (None if values is None else each(values, columns) for values in (scale, shift))
    return unpacked(affine_plain(packed(x, columns), *vectors), columns)


def _forward(x: Array, scale: Array | None, shift: Array | None) -> tuple[Array, _Saved]:
    return affine(x, scale, shift), (x, scale, shift)


def _backward(saved: _Saved, gradient: Array) -> _Saved:
    found: _Saved = _by_platform(_gradients_plain, _gradients, *saved, gradient)
    return found


def _gradients_plain(x: Array, scale: Array | None, shift: Array | None, gradient: Array) -> _Saved:
    found: _Saved = jax.vjp(affine_plain, x, scale, shift)[1](gradient)
    return found


def _gradients(columns: int, x: Array, scale: Array | None, shift: Array | None, gradient: Array) -> _Saved:
    gradient = packed(gradient, columns)

    def total(values: Array, like: Array) -> Array:
        return by_channel(values.sum((0, 1, 2)), like).sum(0)

    of_scale = None if scale is None else total(gradient * packed(x, columns), scale)
    of_shift = None if shift is None else total(gradient, shift)
    of_x = gradient if scale is None else gradient * each(scale, columns)
    return unpacked(of_x, columns), of_scale, of_shift


affine.defvjp(_forward, _backward)
