"""The network on a window of a picture, as if it ran on the whole. `unet_jax/windows.py` is the twin."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unet_core.windows import Window
from unet_torch.layers import max_pool
from unet_torch.model import DoubleConv, UNet


def window_logits(model: UNet, x: Float[Tensor, "n c h w"], window: Window) -> Float[Tensor, "n k h w"]:
    """What `model.logits` answers for the whole picture, at the pixels of a tile.

    Exact but near those edges of the tile that lie inside the picture (`unet_core.tiles.reach`), and beyond the
    picture's end, where the answer means nothing. Runs the model in the mode that it is in; only eval mode is the same
    on a part as on the whole. Works in place on what lies between, so that no gradient can be taken; `x` stays.

    Args:
        x: the tile; whatever it holds beyond the picture's end is taken for zero.
        window: of the tile, as `unet_core.windows.window` gives it.
    """
    rows, columns = window
    skips: list[Tensor] = []
    for level, block in enumerate(model.config.encoder_blocks):
        x = max_pool(skips[-1]) if skips else x.clone(memory_format=torch.channels_last)
        skips.append(_double(getattr(model, block.name), x, rows.inside[level], columns.inside[level]))
    x = skips.pop()
    for block in model.config.decoder_blocks:
        level = len(skips) - 1
        module = getattr(model, block.name)
        if module.up is not None:
            x = module.up(x)
        x = stretch(stretch(x, rows.taps[level], 0), columns.taps[level], 1)
        x = torch.cat((skips.pop(), x) if model.config.skip_first else (x, skips.pop()), dim=1)
        x = _double(module, x, rows.inside[level], columns.inside[level])
    return model.out(x)


def stretch(x: Float[Tensor, "n c h w"], taps: Float[np.ndarray, "m factor 3"], axis: int) -> Float[Tensor, "n c H W"]:
    """Each point of the rows (axis 0) or columns (1) makes `factor` new ones, out of itself and its two neighbours.

    See `Span.taps`. Computes in float32 at least. Beyond the tile's ends lies zero.
    """
    dim = 1 + axis
    exact = x.to(torch.promote_types(x.dtype, torch.float32)).permute(0, 2, 3, 1).unsqueeze(dim + 1)
    weights = torch.as_tensor(taps, dtype=exact.dtype, device=x.device)
    before, centre, after = weights.reshape(*taps.shape, *(1,) * (3 - dim)).unbind(2)
    shorter = exact.shape[dim] - 1
    y = centre * exact
    y.narrow(dim, 1, shorter).addcmul_(before[1:], exact.narrow(dim, 0, shorter))
    y.narrow(dim, 0, shorter).addcmul_(after[:-1], exact.narrow(dim, 1, shorter))
    return y.flatten(dim, dim + 1).permute(0, 3, 1, 2).to(x.dtype)


def _double(block: DoubleConv, x: Tensor, height: int, width: int) -> Tensor:
    """The two convolutions of a block; the input of each is zero beyond the picture's end, as its padding is."""
    x = block.conv[:3](_emptied(x, height, width))
    return block.conv[3:](_emptied(x, height, width))


def _emptied(x: Tensor, height: int, width: int) -> Tensor:
    """Zero, in place, beyond `height` and `width`."""
    x[:, :, height:] = 0
    x[:, :, :, width:] = 0
    return x
