"""Pictures through the network: of any size, tile by tile, or whole. `unet_torch/predict.py` is the twin."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Shaped

from unet_core.bands import Band, Start, blended, check_picture, cut, gathered, one_ahead
from unet_core.errors import UNetError
from unet_core.graph import Graph
from unet_core.tiles import check_tile, tiling
from unet_core.windows import Window, window
from unet_jax.compilation import compiler_options
from unet_jax.layers import BatchNorm, Convolution, TransposedConvolution
from unet_jax.model import UNet
from unet_jax.network import Network
from unet_jax.windows import window_logits


class Predictor:
    """The logits of whole pictures, in the memory of one tile; a `Network` takes whole pictures.

    With the default overlap they are what `model.logits` answers for the whole picture in eval mode, to rounding.
    The model is not changed: each call reads the weights that it then has, or those that it is given, on their device,
    and folds them (`fold`) where it has not just done so. One compilation serves all tiles of one shape, whatever
    the pictures' sizes and the weights.

    Args:
        tile: height and width of the tiles, multiples of `2**model.config.depth`. None: for each picture the one that
            suits it, `unet_core.tiles.default_tile`, which may be a compilation per picture: for several pictures, give
            the `default_tile` of all their sizes.
        overlap: of neighbouring tiles, in pixels at least. None: as many as exact logits need; with fewer, neighbours
            are blended.
        flips: average the logits over the picture and its three mirror images, which takes four times as long.
        bfloat16: compute in bfloat16.
        batch: so many tiles are computed together, in as many times the memory.
        devices: so many tiles are computed together on each of them; None: on the one where the weights lie.

    Raises:
        unet_core.UNetError: tiles that cover no picture; the message says what to give.
    """

    def __init__(
        self,
        model: UNet | Network,
        *,
        tile: tuple[int, int] | None = None,
        overlap: int | None = None,
        flips: bool = False,
        bfloat16: bool = False,
        batch: int = 1,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        check_tile(model.config, tile, overlap)
        if batch < 1:
            raise UNetError(f"batch {batch}: at least one tile is computed at a time")
        self.model = model
        self.tile = tile
        self.overlap = overlap
        self.flips = flips
        self.bfloat16 = bfloat16
        self.batch = batch * (1 if devices is None else len(devices))
        self._whole = self._split = None
        if devices is not None:
            mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
            self._whole, self._split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
        kinds = [getattr(part, "dtype", None) for _, part in nnx.iter_modules(model)]
        kinds += [leaf.dtype for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
        double = jnp.float64 in kinds
        self._dtype = jnp.dtype(jnp.float64 if double else jnp.float32)
        self._graphdef = _evaluating(model, bfloat16)
        self._folded: tuple[list[Array], Any] = ([], None)
        """The weights that were last folded, and what came of it."""
        self._fold = jax.jit(
            lambda variables, platform: nnx.split(nnx.merge(self._graphdef, *variables).fold(platform)),
            static_argnames="platform",
        )
        self._programs: dict[str, Any] = {}
        """By platform."""

    def bands(self, picture: Shaped[np.ndarray, "h w c"], variables: tuple[Any, Any] | None = None) -> Iterator[Band]:
        """The logits of a picture in bands of rows, from the top down, each with the number of its first row.

        Args:
            picture: uint8, uint16 or float32, as `unet_core.pictures.as_float` takes it. Only one tile of it at a time
                is made float.
            variables: other weights of the same network, as `nnx.split(model, nnx.Param, nnx.BatchStat)[1:]` gives
                them: parameters and statistics. Of those that are copied to several devices, this process's first copy
                is used.

        Returns:
            An iterator over `(row, logits)`; the logits are `[rows, w, k]`, float32, or float64 where the model is.

        Raises:
            unet_core.DataError: the network cannot take this picture.
            unet_core.UNetError: the tile is too small for exact logits of a picture of this size.
        """
        config = self.model.config
        check_picture(config, picture)
        plan = tiling(config, (picture.shape[0], picture.shape[1]), self.tile, self.overlap)
        weights = self._weights(variables or (nnx.state(self.model, nnx.Param), nnx.state(self.model, nnx.BatchStat)))

        def run(view: np.ndarray, starts: list[Start]) -> Iterator[np.ndarray]:
            groups = (starts[first : first + self.batch] for first in range(0, len(starts), self.batch))
            logits = one_ahead((self._logits(weights, view, group, plan.tile) for group in groups), np.asarray)
            return itertools.islice(itertools.chain.from_iterable(logits), len(starts))

        return blended(picture, plan, run, flips=self.flips)

    def logits(
        self, picture: Shaped[np.ndarray, "h w c"], variables: tuple[Any, Any] | None = None
    ) -> Float[np.ndarray, "h w k"]:
        """All bands in one array. Raises what `bands` raises."""
        return gathered(self.bands(picture, variables), picture.shape[0])

    def _weights(self, variables: tuple[Any, Any]) -> Any:
        """The folded weights, on one device or on each; those of the last call where they are the same arrays."""
        leaves = jax.tree.leaves(variables)
        known, folded = self._folded
        if len(known) != len(leaves) or any(old is not new for old, new in zip(known, leaves, strict=True)):
            placed = _on_one_device(variables) if self._whole is None else jax.device_put(variables, self._whole)
            self._graph, folded = self._fold(placed, platform=_platform(placed))
            self._folded = leaves, folded
        return folded

    def _logits(self, weights: Any, picture: np.ndarray, starts: list[Start], tile: tuple[int, int]) -> Array:
        """Of some tiles, NHWC, dispatched and not yet awaited; the last one again where there are less than a batch."""
        starts = starts + starts[-1:] * (self.batch - len(starts))
        size = (picture.shape[0], picture.shape[1])
        x = np.stack([cut(picture, start, tile) for start in starts]).astype(self._dtype)
        config, parts = self.model.config, None
        if not isinstance(config, Graph):
            windows = [window(config, size, start, tile) for start in starts]
            parts = jax.tree.map(lambda *values: np.stack(values), *windows)
        inputs: Any = x, parts
        if self._split is not None:
            inputs = jax.device_put(inputs, self._split)
        return self._program(weights)(weights, *inputs)

    def _program(self, weights: Any) -> Any:
        platform = _platform(weights)
        if platform not in self._programs:
            graph, dtype = self._graph, self._dtype

            def logits_of_tiles(weights: Any, x: Array, parts: Window | None) -> Array:
                model = nnx.merge(graph, weights)
                if isinstance(model, Network):
                    return model.logits(x).astype(dtype)
                each = jax.vmap(lambda x, part: window_logits(model, x[None], part)[0])
                return each(x, parts).astype(dtype)

            options = compiler_options(platform, wide=dtype == jnp.float64)
            self._programs[platform] = jax.jit(logits_of_tiles, compiler_options=options)
        return self._programs[platform]


def _evaluating(model: UNet | Network, bfloat16: bool) -> Any:
    """The graph of `model` in eval mode, without its weights; `model` stays as it is."""
    twin = nnx.merge(*nnx.split(model))
    twin.eval()
    for _, layer in nnx.iter_modules(twin):
        if bfloat16 and isinstance(layer, Convolution | TransposedConvolution | BatchNorm | Network):
            layer.dtype = jnp.bfloat16
    return nnx.split(twin, nnx.Param, nnx.BatchStat)[0]


def _platform(variables: Any) -> str:
    """Of the device where the variables lie."""
    return next(iter(jax.tree.leaves(variables)[0].devices())).platform


def _on_one_device(variables: tuple[Any, Any]) -> tuple[Any, Any]:
    """The variables where the first of them lies; no process waits for another's copy."""
    arrays = jax.tree.leaves(variables)
    device = next(iter(arrays[0].addressable_data(0).devices()))
    return jax.tree.map(
        lambda array: jax.device_put(array.addressable_data(0) if array.is_fully_replicated else array, device),
        variables,
    )
