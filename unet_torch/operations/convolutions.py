"""Convolutions."""

from torch import Tensor
from torch.nn import functional as F

from unet_core.graph.operations import Ints, Pairs
from unet_torch.operations.rows import named, of_rank
from unet_torch.operations.shapes import pad


def convolution(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
) -> Tensor:
    row = of_rank(x, F.conv1d, F.conv2d, F.conv3d)
    if any(before != after for before, after in padding):
        x, padding = pad(x, amounts=((0, 0), (0, 0), *padding)), ((0, 0),) * len(padding)
    return row(x, weight, bias, stride, [before for before, _ in padding], dilation, groups)


def transposed_convolution(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    row = of_rank(x, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
    return row(x, weight, bias, stride, padding, output_padding, groups, dilation)


ROWS = named(convolution, transposed_convolution)
