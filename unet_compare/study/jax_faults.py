"""Faults of ports in JAX's table of operations, for the controls of a study."""

import dataclasses
from typing import Any, Literal

import jax
from jax import Array, lax

from unet_jax.operations import OPERATIONS, Row, Run

__all__ = ["OPERATIONS", "faulty"]

_TF32 = 8, 10
"""Bits of its exponent and its mantissa."""
_PRODUCTS = ("convolution", "transposed_convolution", "linear", "matmul", "upsampled_convolution", "summed_convolution")
"""Operations of products, those that rewrites make among them."""


def faulty(fault: Literal["biased_variance", "tf32"]) -> dict[str, Row]:
    """The rows that are otherwise."""
    if fault == "biased_variance":
        return {"batch_norm": dataclasses.replace(OPERATIONS["batch_norm"], function=_biased)}
    return {name: _in_tf32(OPERATIONS[name]) for name in _PRODUCTS}


class _Biased:
    """A `Run` that is told the unbiased variance, and tracks the biased one."""

    def __init__(self, run: Run, variance: Array, share: float, count: int) -> None:
        self._run, self._before, self._share, self._count = run, variance, share, count
        self.training, self.dtype, self.strips = run.training, run.dtype, run.strips

    def track(self, role: str, value: Array) -> None:
        if role == "variance":
            value = value - (value - (1 - self._share) * self._before) / self._count
        self._run.track(role, value)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        return self._run.uniform(shape)


def _biased(x: Array, *, run: Run, **given: Any) -> Array:
    row, variance, share = _PLAIN, given.get("variance"), given.get("momentum")
    if variance is not None and share is not None:
        run = _Biased(run, variance, share, x.size // x.shape[-1])
    return row(x, run=run, **given)


_PLAIN = OPERATIONS["batch_norm"].function


def _in_tf32(row: Row) -> Row:
    """A product whose factors are rounded as a matrix unit rounds them, in the backward pass too."""
    plain = row.function

    def rounded(*inputs: Array, **given: Any) -> Array:
        factors = {name: _factor(value) if _is_factor(name) else value for name, value in given.items()}
        bias = factors.pop("bias", None)
        y = _product(plain(*map(_factor, inputs), **factors))
        return y if bias is None else y + bias.astype(y.dtype)

    def with_run(*inputs: Array, run: Run, **given: Any) -> Array:
        return rounded(*inputs, run=run, **given)

    return dataclasses.replace(row, function=with_run if row.needs_run else rounded)


def _is_factor(name: str) -> bool:
    return name == "weight" or name.startswith("taps")


@jax.custom_vjp
def _factor(x: Array) -> Array:
    return lax.reduce_precision(x, *_TF32)


@jax.custom_vjp
def _product(y: Array) -> Array:
    return y


def _same(gradient: Array) -> tuple[Array]:
    return (gradient,)


_factor.defvjp(lambda x: (_factor(x), None), lambda _, gradient: _same(gradient))
_product.defvjp(lambda y: (y, None), lambda _, gradient: _same(lax.reduce_precision(gradient, *_TF32)))
