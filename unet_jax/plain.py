"""The network layer by layer, as PyTorch runs it: what the faster one is measured by, and tested against."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from unet_jax.convolution import convolve_plain
from unet_jax.layers import BatchNorm, Convolution, activated, fit, max_pool_plain, upsample
from unet_jax.model import DoubleConv, UNet
from unet_jax.normalisation import normalise_plain


def _joined(level: DoubleConv, x: Array, skip: Array) -> Array:
    """`x`, upsampled to the size of the skip connection, and this, along the channels."""
    config = level.config
    if level.up is not None:
        x = level.up(x)
    elif config.fit == "pad":
        x = upsample(x, 2 * x.shape[1], 2 * x.shape[2], align_corners=config.align_corners)
    x = fit(x, skip.shape[1], skip.shape[2], config)
    return jnp.concatenate((skip, x) if config.skip_first else (x, skip), axis=-1)


class PlainUNet(UNet):
    """`UNet` with the same parameters and answers, without any rewriting: it upsamples, concatenates, convolves.

    Every derivative is XLA's own, forward-mode ones too.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for _, layer in nnx.iter_modules(self):
            if isinstance(layer, Convolution):
                layer.apply = convolve_plain
            elif isinstance(layer, BatchNorm):
                layer.apply = normalise_plain

    def fold(self, platform: str | None = None) -> UNet:  # noqa: ARG002  (every platform is the same to it)
        return super().fold()

    @staticmethod
    def _block(level: DoubleConv, x: Array, skip: Array | None = None) -> Array:
        if skip is not None:
            x = _joined(level, x, skip)
        return activated(level.conv2(activated(level.conv1(x), level.norm1)), level.norm2)

    @staticmethod
    def _pool(x: Array) -> Array:
        return max_pool_plain(x)
