"""The network on a window of a picture, as if it ran on the whole. `unet_torch/windows.py` is the twin."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from unet_core.windows import Window
from unet_jax.layers import activated, max_pool
from unet_jax.model import DoubleConv, UNet


def window_logits(model: UNet, x: Float[Array, "n h w c"], window: Window) -> Float[Array, "n h w k"]:
    """What `model.logits` answers for the whole picture, at the pixels of a tile.

    Exact but near those edges of the tile that lie inside the picture (`unet_core.tiles.reach`), and beyond the
    picture's end, where the answer means nothing. Runs the model in the mode that it is in; only eval mode is the same
    on a part as on the whole.

    Args:
        x: the tile; whatever it holds beyond the picture's end is taken for zero.
        window: of the tile, as `unet_core.windows.window` gives it; an argument of a compiled function, so that one
            compilation serves every window of this shape.
    """
    rows, columns = window
    skips: list[Array] = []
    for level, block in enumerate(model.config.encoder_blocks):
        x = _emptied(max_pool(skips[-1]) if skips else x, rows.inside[level], columns.inside[level])
        module = getattr(model, block.name)
        skips.append(_rest(module, module.conv1(x), rows.inside[level], columns.inside[level]))
    x = skips.pop()
    for block in model.config.decoder_blocks:
        level = len(skips) - 1
        module = getattr(model, block.name)
        inside = rows.inside[level], columns.inside[level]
        taps = rows.taps[level], columns.taps[level]
        if module.up is not None:
            x = _emptied(stretch(stretch(module.up(x), taps[0], 0), taps[1], 1), *inside)
        skip = _emptied(skips.pop(), *inside)
        y = module.conv1.joined(x, skip, None if module.up else taps, skip_first=model.config.skip_first)
        x = _rest(module, y, *inside)
    return model.out(x)


def stretch(
    x: Float[Array, "n h w c"], taps: Float[Array | np.ndarray, "m factor 3"], axis: int
) -> Float[Array, "n H W c"]:
    """Each point of the rows (axis 0) or columns (1) makes `factor` new ones, out of itself and its two neighbours.

    See `Span.taps`. Computes in float32 at least. Beyond the tile's ends lies zero. Elementwise, with no gather and no
    product of matrices, whose weights a backend may round.
    """
    dim = 1 + axis
    exact = jnp.expand_dims(x.astype(jnp.promote_types(x.dtype, jnp.float32)), dim + 1)
    weights = jnp.asarray(taps, exact.dtype)
    before, centre, after = jnp.moveaxis(weights.reshape(*taps.shape, *(1,) * (3 - dim)), 2, 0)
    zero = jnp.zeros_like(lax.slice_in_dim(exact, 0, 1, axis=dim))
    y = centre * exact
    y = y + before * jnp.concatenate((zero, lax.slice_in_dim(exact, 0, -1, axis=dim)), dim)
    y = y + after * jnp.concatenate((lax.slice_in_dim(exact, 1, None, axis=dim), zero), dim)
    return y.reshape(*x.shape[:dim], -1, *x.shape[dim + 1 :]).astype(x.dtype)


def _rest(block: DoubleConv, y: Array, height: Array | int, width: Array | int) -> Array:
    """What follows on the first convolution of a block."""
    x = activated(y, block.norm1)
    return activated(block.conv2(_emptied(x, height, width)), block.norm2)


def _emptied(x: Array, height: Array | int, width: Array | int) -> Array:
    """Zero beyond `height` and `width`, the picture's end, as the padding of a convolution is."""
    inside = (jnp.arange(x.shape[1]) < height)[:, None, None] & (jnp.arange(x.shape[2]) < width)[:, None]
    return jnp.where(inside, x, 0)
