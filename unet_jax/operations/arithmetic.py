"""Arithmetic of two arrays, or of one and a number on its left or right."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from unet_core.graph.operations import Relation
from unet_jax.operations.rows import in_same

Number = int | float


def _arithmetic(function: Callable[[Any, Any], Array]) -> Callable[..., Array]:
    def row(x: Array, y: Array | None = None, *, left: Number | None = None, right: Number | None = None) -> Array:
        return function(*_operands(x, y, left, right))

    return row


def _operands(x: Array, y: Array | None, left: Number | None, right: Number | None) -> tuple[Any, Any]:
    """The two, one of which may be a number; whole ones and a fraction are torch's default, float32."""
    if y is not None:
        return x, y
    number = right if left is None else left
    x = x.astype(jnp.float32) if isinstance(number, float) and not jnp.issubdtype(x.dtype, jnp.floating) else x
    return (x, number) if left is None else (number, x)


def _divided(x: Any, y: Any) -> Array:
    whole = not jnp.issubdtype(jnp.result_type(x, y), jnp.floating)
    return jnp.asarray(x, jnp.float32 if whole else None) / y


_RELATIONS: Mapping[Relation, Callable[[Any, Any], Array]] = {
    "<": jnp.less,
    "<=": jnp.less_equal,
    ">": jnp.greater,
    ">=": jnp.greater_equal,
    "==": jnp.equal,
    "!=": jnp.not_equal,
}


def compare(
    x: Array, y: Array | None = None, *, relation: Relation, left: Number | None = None, right: Number | None = None
) -> Array:
    return _RELATIONS[relation](*_operands(x, y, left, right))


def where(condition: Array, x: Array, y: Array) -> Array:
    return jnp.where(condition, x, y)


ROWS = in_same(
    add=_arithmetic(jnp.add),
    subtract=_arithmetic(jnp.subtract),
    multiply=_arithmetic(jnp.multiply),
    divide=_arithmetic(_divided),
    power=_arithmetic(jnp.power),
    maximum=_arithmetic(jnp.maximum),
    minimum=_arithmetic(jnp.minimum),
    compare=compare,
    where=where,
)
