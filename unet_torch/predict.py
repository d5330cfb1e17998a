"""Pictures through the network: of any size, tile by tile, or whole. `unet_jax/predict.py` is the twin."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unet_core.prediction.stitching import Band, Start, blended, cut, gathered, one_ahead, planned
from unet_core.prediction.tile_geometry import Lengths, Overlap, Tiling, check_tile
from unet_torch.canonical import unwrapped
from unet_torch.execution import execute
from unet_torch.model import UNet
from unet_torch.network import Network


class Predictor:
    """The logits of whole pictures, in the memory of one tile.

    Without an overlap they are what `model.logits` returns for the whole picture in eval mode, to rounding. A network
    that allows no such tiles, as where it normalises each picture by its own statistics, takes whole pictures.
    The model is neither changed nor copied: each call reads the weights that it then has, on its device.

    Args:
        tile: the size of the tiles along each axis, with what they draw on. None: for each picture the one that suits
            it, `unet_core.prediction.tile_geometry.default_tile`.
        overlap: None: the tiles are exact. Else each is a picture of its own, and neighbours are blended over so many
            pixels at least.
        flips: average the logits over the picture and its mirror images along every axis, which takes four times as
            long, or eight.
        bfloat16: compute in bfloat16, under `torch.autocast`.

    Raises:
        unet_core.UNetError: tiles that cover no picture; the message says what to give.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        tile: Lengths | None = None,
        overlap: Overlap = None,
        flips: bool = False,
        bfloat16: bool = False,
    ) -> None:
        inner = unwrapped(model)
        if not isinstance(inner, UNet | Network):
            raise TypeError(f"a unet_torch.UNet or Network is needed, got {type(model).__name__}")
        check_tile(inner.config, tile, overlap)
        self.model = inner
        self.tile = tile
        self.overlap = overlap
        self.flips = flips
        self.bfloat16 = bfloat16

    def bands(self, picture: Shaped[np.ndarray, "*s c"]) -> Iterator[Band]:
        """The logits of a picture in bands of rows, from the top down, each with the number of its first row.

        A volume's bands are of slices.

        Args:
            picture: uint8, uint16 or float32, as `unet_core.data.pictures.as_float` takes it. Only one tile of it at
                a time is made float.

        Returns:
            An iterator over `(row, logits)`; the logits are `[rows, w, k]`, or `[slices, h, w, k]`, float32, or float64
            where the model is.

        Raises:
            unet_core.DataError: the network cannot take this picture.
            unet_core.UNetError: the tile is too small for exact logits of a picture of this size.
        """
        tiles = planned(self.model.config, picture, self.tile, self.overlap)

        def run(view: np.ndarray, starts: list[Start]) -> Iterator[np.ndarray]:
            return one_ahead((self._logits(view, start, tiles) for start in starts), _fetched)

        return blended(picture, tiles, run, flips=self.flips)

    def logits(self, picture: Shaped[np.ndarray, "*s c"]) -> Float[np.ndarray, "*s k"]:
        """All bands in one array. Raises what `bands` raises."""
        return gathered(self.bands(picture), picture.shape[0])

    def _logits(self, picture: np.ndarray, start: Start, tiles: Tiling) -> Tensor:
        """Of one tile, channels first."""
        weight = next(self.model.parameters())
        part = cut(picture, start, tiles.tile)
        x = torch.from_numpy(part).to(weight.device, weight.dtype)[None].movedim(-1, 1)
        graph, own = tiles.plan.graph, tiles.plan.tensors(start, double=weight.dtype == torch.float64)
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        tensors |= {name: torch.from_numpy(array) for name, array in own.items()}
        autocast = torch.autocast(weight.device.type, torch.bfloat16, enabled=self.bfloat16)
        with torch.inference_mode(), autocast:
            logits = execute(graph, tensors, x, until=graph.logits).answer
            return logits.to(torch.promote_types(weight.dtype, torch.float32))


def _fetched(logits: Tensor) -> np.ndarray:
    return logits[0].movedim(0, -1).cpu().numpy()
