"""How many operations the network takes, counted from its description alone."""

from unet_core.config import UNetConfig


def operations(config: UNetConfig, batch: int, height: int, width: int, *, training: bool = False) -> int:
    """Of one forward pass, or of one update: the convolutions' multiplications and additions, borders ignored.

    Counted as the network is defined, layer by layer, whatever a framework makes of it: a program that needs fewer is
    faster, and not slower per operation. An update is three forward passes, less the gradient for the image.
    """
    sizes = [(height >> level) * (width >> level) * batch for level in range(config.depth + 1)]
    total = 0
    for level, block in enumerate(config.encoder_blocks):
        total += 9 * sizes[level] * (block.before + block.after) * block.middle
    for level, block in zip(range(config.depth - 1, -1, -1), config.decoder_blocks, strict=True):
        total += 9 * sizes[level] * (block.before + block.after) * block.middle
        if block.up is not None:
            total += 4 * sizes[level + 1] * block.up[0] * block.up[1]
    total += sizes[0] * config.decoder_blocks[-1].after * config.out_channels
    if training:
        first = config.encoder_blocks[0]
        total = 3 * total - 9 * sizes[0] * first.before * first.middle
    return 2 * total
