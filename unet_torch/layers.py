"""The pieces of the network in PyTorch, NCHW. `unet_jax/layers.py` is the twin."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unet_core.config import UNetConfig


def convolution(in_channels: int, out_channels: int, size: int, *, bias: bool) -> nn.Conv2d:
    """A `size` x `size` convolution that keeps height and width; the kernel is OIHW."""
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=bias)


def batch_norm(channels: int, config: UNetConfig) -> nn.BatchNorm2d:
    """Normalises with the biased variance, tracks the unbiased one (torch/nn/modules/batchnorm.py)."""
    return nn.BatchNorm2d(channels, eps=config.norm_epsilon, momentum=config.norm_momentum)


def max_pool(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h//2 w//2"]:
    """The largest of each 2x2 window; an odd last row or column is left out."""
    return functional.max_pool2d(x, 2)


def upsample(x: Float[Tensor, "n c h w"], height: int, width: int, *, align_corners: bool) -> Float[Tensor, "n c H W"]:
    """Bilinear interpolation to `height` x `width` pixels."""
    return functional.interpolate(x, (height, width), mode="bilinear", align_corners=align_corners)


def join(x: Float[Tensor, "n c h w"], skip: Float[Tensor, "n d H W"], config: UNetConfig) -> Float[Tensor, "n c+d H W"]:
    """Bring `x` to the size of the skip connection and concatenate the two along the channels."""
    x = upsample(x, *skip.shape[2:], align_corners=config.align_corners)
    return torch.cat((skip, x) if config.skip_first else (x, skip), dim=1)
