"""What is drawn by chance."""

from unet_core.graph.operations.table import Dims, DropoutKind, operation
from unet_core.graph.sizes import Shape


@operation
def dropout(x: Shape, *, rate: float, kind: DropoutKind = "elements", always: bool = False) -> Shape:
    """In training (or `always`), zero with the probability `rate`, else divided by 1 - rate."""
    return x


@operation
def chance(*, shape: Dims, probability: float | None = None) -> Shape:
    """Random numbers: 1 with this probability, else 0, the lowest draws being 0; without one, uniform from 0 to 1."""
    return shape
