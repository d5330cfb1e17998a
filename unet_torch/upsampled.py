"""The convolution of an upsampled map, whose channels are mixed before the upsampling, on a quarter of the pixels.

`unet_jax/kernels/upsampled.py` is the twin. `unet_torch.UNet` does so with `low_resolution=True`.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unet_core.config import Fit, UNetConfig
from unet_core.graph.resampling import Resampling, weights


def convolve_joined(
    convolution: nn.Conv2d, x: Float[Tensor, "n c h w"], skip: Float[Tensor, "n e H W"], config: UNetConfig
) -> Float[Tensor, "n d H W"]:
    """`convolution(join(x, skip, config))` with bilinear upsampling, without the upsampled map and the concatenation.

    The convolution is linear in its channels: that of the skip connection, with the bias, and that of `x`, upsampled.
    """
    kernel, beside = convolution.weight, skip.shape[1]
    if config.skip_first:
        of_skip, of_x = kernel[:, :beside], kernel[:, beside:]
    else:
        of_x, of_skip = kernel[:, :-beside], kernel[:, -beside:]
    rows, columns = (
        upsampling_matrix(size, below, config.align_corners, config.fit, x.dtype, x.device)
        for size, below in zip(skip.shape[2:], x.shape[2:], strict=True)
    )
    # Added to the skip connection's, whose memory format, the network's, the sum thereby has.
    return functional.conv2d(skip, of_skip, convolution.bias, padding=1) + convolve_upsampled(x, of_x, rows, columns)


def convolve_upsampled(
    x: Float[Tensor, "n c h w"],
    kernel: Float[Tensor, "d c 3 3"],
    rows: Float[Tensor, "H 3*h"],
    columns: Float[Tensor, "W 3*w"],
) -> Float[Tensor, "n d H W"]:
    """The 3x3 convolution, zero beyond the border, of `x` upsampled, without the upsampled map.

    Upsampling acts on space alone and a kernel's tap on the channels alone, so the two commute
    (`unet_jax.kernels.upsampled` derives it). The products with the nine taps run at the low resolution, in
    three matrix products; then the columns are upsampled, shifted and summed by one matrix, and then the rows by the
    other. Equal to rounding, borders included.

    Args:
        x: the map below.
        kernel: of the convolution.
        rows, columns: how the axes are upsampled, as `upsampling_matrix` gives it.
    """
    n, channels, height, width = x.shape
    points = x.permute(0, 2, 3, 1).reshape(-1, channels)
    across = []
    for taps in kernel.permute(2, 3, 0, 1):  # [3, d, c]: one row's taps side by side, in the order of `columns`
        mixed = functional.linear(points, taps.reshape(-1, channels)).reshape(n * height, 3 * width, -1)
        across.append(torch.matmul(columns, mixed).reshape(n, height, 1, -1))
    raised = torch.matmul(rows, torch.cat(across, 2).reshape(n, 3 * height, -1))
    return raised.reshape(n, len(rows), len(columns), -1).permute(0, 3, 1, 2)


def saves(channels: int, height: int, width: int) -> bool:
    """Whether `convolve_upsampled` takes fewer operations than upsampling a map and convolving it.

    For each of the map's own pixels and channels of the output these are 9 * channels, in place of 36 * channels; and
    18 * width for its columns, 12 * height for its rows, because the matrices are dense: too many for few channels of
    a large map.
    """
    return 18 * width + 12 * height < 27 * channels


@torch.library.custom_op("unet_twins::upsampling_matrix", mutates_args=())
def upsampling_matrix(
    size: int, below: int, align_corners: bool, fit: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The matrix `[size, 3 * below]` that upsamples `below` points, shifts them to each of the three taps, and sums.

    Its columns are the three taps of the first point, then those of the second. An operator of its own because
    `torch.compile` cannot follow the NumPy in it. Without the config's other fields, which do not matter here.
    """
    return _matrix(size, below, align_corners, fit, dtype, device).clone()  # a compiled program may overwrite it


@upsampling_matrix.register_fake
def _(size: int, below: int, _corners: bool, _fit: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(size, 3 * below, dtype=dtype, device=device)


@lru_cache(maxsize=64)
def _matrix(size: int, below: int, align_corners: bool, fit: Fit, dtype: torch.dtype, device: torch.device) -> Tensor:
    target = size if fit == "resize" else 2 * below
    whole = weights(Resampling("linear", below, target, align_corners=align_corners))
    padded = np.pad(whole, ((1, 1 + size - target), (0, 0)))
    matrix = np.stack([padded[tap : tap + size] for tap in range(3)], axis=-1).reshape(size, 3 * below)
    return torch.from_numpy(matrix).to(device, dtype)
