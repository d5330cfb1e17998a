"""The network layer by layer, as PyTorch runs it: what the faster one is measured by, and tested against."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from unet_core.config import UNetConfig
from unet_jax.convolution import convolve_plain
from unet_jax.layers import Convolution, activated, fit, max_pool_plain, upsample
from unet_jax.model import DoubleConv, UNet


class PlainUNet(UNet):
    """`UNet` with the same parameters and answers, without any rewriting: it upsamples, concatenates, convolves.

    Every derivative is XLA's own, forward-mode ones too.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for _, layer in nnx.iter_modules(self):
            if isinstance(layer, Convolution):
                layer.apply = convolve_plain

    def logits(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w k"]:
        _, height, width, channels = x.shape
        self.config.check_input(height, width, channels)
        return plain_logits(self, x)


def plain_logits(model: UNet, x: Float[Array, "n h w c"]) -> Float[Array, "n h w k"]:
    """The logits of any `UNet`, computed layer by layer; each layer is called, and may be tapped."""
    run = nnx.remat(_double) if model.remat else _double
    skips: list[Array] = []
    for block in model.config.encoder_blocks:
        if skips:
            x = max_pool_plain(x)
        x = run(getattr(model, block.name), x)
        skips.append(x)
    skips.pop()
    for block in model.config.decoder_blocks:
        level = getattr(model, block.name)
        x = run(level, _joined(level, x, skips.pop(), model.config))
    return model.out(x)


def _double(level: DoubleConv, x: Array) -> Array:
    return activated(level.conv2(activated(level.conv1(x), level.norm1)), level.norm2)


def _joined(level: DoubleConv, x: Array, skip: Array, config: UNetConfig) -> Array:
    """`x`, upsampled to the size of the skip connection, and this, along the channels."""
    if level.up is not None:
        x = level.up(x)
    elif config.fit == "pad":
        x = upsample(x, 2 * x.shape[1], 2 * x.shape[2], align_corners=config.align_corners)
    x = fit(x, skip.shape[1], skip.shape[2], config)
    return jnp.concatenate((skip, x) if config.skip_first else (x, skip), axis=-1)
