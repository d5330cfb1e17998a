"""What each operation of `unet_core.graph.operations` computes, in JAX: functions of the same names and parameters.

Inputs are arrays, roles arrays or None, sizes plain integers. Those whose answer depends on more take the `Run`.
"""

from collections.abc import Mapping

from unet_jax.operations import (
    activations,
    arithmetic,
    chance,
    convolutions,
    interpolation,
    norms,
    pools,
    products,
    reductions,
    rewritten,
    shapes,
)
from unet_jax.operations.rows import Layout, Row, Run

__all__ = ["OPERATIONS", "Layout", "Row", "Run"]

OPERATIONS: Mapping[str, Row] = {
    **convolutions.ROWS,
    **norms.ROWS,
    **pools.ROWS,
    **interpolation.ROWS,
    **shapes.ROWS,
    **arithmetic.ROWS,
    **products.ROWS,
    **activations.ROWS,
    **reductions.ROWS,
    **chance.ROWS,
    **rewritten.ROWS,
}
"""Every operation that a graph may have, by its name."""
