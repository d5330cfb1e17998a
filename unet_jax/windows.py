"""The network on a window of a picture, as if it ran on the whole. `unet_torch/windows.py` is the twin."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from unet_core.windows import Window
from unet_jax.layers import max_pool, relu
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
        x = max_pool(skips[-1]) if skips else x
        skips.append(_double(getattr(model, block.name), x, rows.inside[level], columns.inside[level]))
    x = skips.pop()
    for block in model.config.decoder_blocks:
        level = len(skips) - 1
        module = getattr(model, block.name)
        if module.up is not None:
            x = module.up(x)
        x = stretch(stretch(x, rows.taps[level], 0), columns.taps[level], 1)
        x = jnp.concatenate((skips.pop(), x) if model.config.skip_first else (x, skips.pop()), axis=-1)
        x = _double(module, x, rows.inside[level], columns.inside[level])
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


def _double(block: DoubleConv, x: Array, height: Array | int, width: Array | int) -> Array:
    """The two convolutions of a block; the input of each is zero beyond the picture's end, as its padding is."""
    x = relu(block.norm1(block.conv1(_emptied(x, height, width))))
    return relu(block.norm2(block.conv2(_emptied(x, height, width))))


def _emptied(x: Array, height: Array | int, width: Array | int) -> Array:
    """Zero beyond `height` and `width`."""
    inside = (jnp.arange(x.shape[1]) < height)[:, None, None] & (jnp.arange(x.shape[2]) < width)[:, None]
    return jnp.where(inside, x, 0)
