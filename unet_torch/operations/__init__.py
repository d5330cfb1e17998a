"""What each operation of `unet_core.graph.operations` computes, in PyTorch: functions of the same names and parameters.

Inputs are tensors, roles tensors or None, sizes plain integers. Those whose output depends on more take the `Run`.
"""

import functools
import inspect
from collections.abc import Mapping

from unet_torch.operations import (
    activations,
    arithmetic,
    chance,
    convolutions,
    interpolation,
    norms,
    pools,
    products,
    reductions,
    shapes,
)
from unet_torch.operations.rows import Row, Run

__all__ = ["OPERATIONS", "Row", "Run", "needs_run"]

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
}
"""Every operation that a graph may have, by its name."""


@functools.cache
def needs_run(operation: str) -> bool:
    """Whether a row takes the `Run`."""
    return "run" in inspect.signature(OPERATIONS[operation]).parameters
