"""Pools."""

from torch import Tensor
from torch.nn import functional as F

from unet_core.graph.operations import Ints
from unet_torch.operations.rows import named, of_rank


def max_pool(x: Tensor, *, window: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool = False) -> Tensor:
    return of_rank(x, F.max_pool1d, F.max_pool2d, F.max_pool3d)(x, window, stride, padding, dilation, ceil)


def average_pool(
    x: Tensor,
    *,
    window: Ints,
    stride: Ints,
    padding: Ints,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Tensor:
    row = of_rank(x, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
    more = {} if divisor is None else {"divisor_override": divisor}
    return row(x, window, stride, padding, ceil, count_padding, **more)


def adaptive_average_pool(x: Tensor, *, size: Ints) -> Tensor:
    return of_rank(x, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)(x, size)


def adaptive_max_pool(x: Tensor, *, size: Ints) -> Tensor:
    return of_rank(x, F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)(x, size)


ROWS = named(max_pool, average_pool, adaptive_average_pool, adaptive_max_pool)
