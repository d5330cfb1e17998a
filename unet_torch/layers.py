"""The pieces of the network in PyTorch, NCHW. The JAX network runs its graph instead."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unet_core.config import Output, UNetConfig


def convolution(in_channels: int, out_channels: int, size: int, *, bias: bool) -> nn.Conv2d:
    """A `size` x `size` convolution that keeps height and width; the kernel is OIHW."""
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=bias)


def norm(channels: int, config: UNetConfig) -> nn.BatchNorm2d | nn.GroupNorm:
    """BatchNorm normalises with the biased variance, tracks the unbiased one (torch/nn/modules/batchnorm.py)."""
    if config.norm == "group":
        return nn.GroupNorm(config.norm_groups, channels, eps=config.norm_epsilon)
    return nn.BatchNorm2d(channels, eps=config.norm_epsilon, momentum=config.norm_momentum)


def max_pool(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h//2 w//2"]:
    """The largest of each 2x2 window; an odd last row or column is left out."""
    return functional.max_pool2d(x, 2)


def upsample(x: Float[Tensor, "n c h w"], height: int, width: int, config: UNetConfig) -> Float[Tensor, "n c H W"]:
    """Interpolation to `height` x `width` pixels, as `config.upsampling` says."""
    if config.upsampling == "nearest":
        return functional.interpolate(x, (height, width), mode="nearest")
    return functional.interpolate(x, (height, width), mode="bilinear", align_corners=config.align_corners)


def transposed_convolution(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """A 2x2 transposed convolution of stride 2, which doubles height and width; the kernel is IOHW."""
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


def fit(x: Float[Tensor, "n c h w"], height: int, width: int, config: UNetConfig) -> Float[Tensor, "n c H W"]:
    """Bring an upsampled map to the size of the skip connection, as `config.fit` says."""
    rows, columns = height - x.shape[2], width - x.shape[3]
    if (rows, columns) == (0, 0):
        return x
    if config.fit == "resize":
        return upsample(x, height, width, config)
    return functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def join(
    x: Float[Tensor, "n c h w"], skip: Float[Tensor, "n d H W"], config: UNetConfig, up: nn.Module | None = None
) -> Float[Tensor, "n e H W"]:
    """Upsample `x`, bring it to the size of the skip connection, and concatenate the two along the channels.

    Args:
        up: the transposed convolution; None where the upsampling is bilinear.
    """
    if up is not None:
        x = up(x)
    elif config.fit == "pad":
        x = upsample(x, 2 * x.shape[2], 2 * x.shape[3], config)
    x = fit(x, skip.shape[2], skip.shape[3], config)
    return torch.cat((skip, x) if config.skip_first else (x, skip), dim=1)


OUTPUTS: Mapping[Output, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda logits: torch.softmax(logits, dim=1),
    "logits": lambda logits: logits,
}
"""What calling the network makes of its logits, by `config.output`."""
