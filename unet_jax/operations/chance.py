"""Constants, parameters and chance."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from unet_core.graph.operations import DropoutKind, Dtype, Ints
from unet_jax.operations.rows import Run, in_torchs, of_maps

Number = int | float


def constant(*, values: tuple[float, ...], shape: Ints, dtype: Dtype | None = None, run: Run) -> Array:
    return jnp.asarray(np.array(values).reshape(shape), _dtype(dtype, run))


def full(*, shape: Ints, value: Number, dtype: Dtype | None = None, run: Run) -> Array:
    return jnp.full(shape, value, _dtype(dtype, run))


def _dtype(name: Dtype | None, run: Run) -> Any:
    return run.dtype if name is None else jax.dtypes.canonicalize_dtype(name)


def parameter(*, value: Array) -> Array:
    return value


def dropout(x: Array, *, rate: float, kind: DropoutKind = "elements", always: bool = False, run: Run) -> Array:
    if not rate or not (run.training or always):
        return x
    alone = range(1, {"elements": 1, "maps": x.ndim - 1, "examples": x.ndim}[kind])
    return dropped(x, tuple(1 if axis in alone else size for axis, size in enumerate(x.shape)), rate, run)


def dropped(x: Array, shape: tuple[int, ...], rate: float, run: Run) -> Array:
    """Zero with the probability `rate`, by draws of this shape, else divided by 1 - rate."""
    kept = (run.uniform(shape) >= rate).astype(x.dtype)
    return x * (kept / (1 - rate) if rate < 1 else kept)


def chance(*, shape: Ints, probability: float | None = None, run: Run) -> Array:
    draws = run.uniform(shape)
    return (draws if probability is None else draws >= 1 - probability).astype(run.dtype)


ROWS = of_maps(dropout=dropout) | in_torchs(constant=constant, full=full, parameter=parameter, chance=chance)
