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

from unet_core.errors import UNetError
from unet_core.graph import Graph
from unet_core.prediction.stitching import Band, Start, blended, cut, gathered, one_ahead, planned
from unet_core.prediction.tile_geometry import Lengths, Overlap, Tiling, check_tile
from unet_jax.compilation import compiler_options
from unet_jax.execution import Execution, execute
from unet_jax.network import Network
from unet_jax.rewrites import Frozen, frozen


class Predictor:
    """The logits of whole pictures, in the memory of one tile.

    Without an overlap they are what `model.logits` returns for the whole picture in eval mode, to rounding. A network
    that allows no such tiles, as where it normalises each picture by its own statistics, takes whole pictures.
    The model is not changed: each call reads the weights that it then has, or those that it is given, on their device,
    and rewrites it to predict (`unet_jax.rewrites.frozen`) where it has not just done so. One compilation serves all
    tiles of one shape, whatever the pictures' sizes and the weights; and one those of pictures of just that size.

    Args:
        tile: the size of the tiles along each axis, with what they draw on. None: for each picture the one that suits
            it, `unet_core.prediction.tile_geometry.default_tile`, which may be a compilation per picture: for several
            pictures, give the `default_tile` of all their sizes.
        overlap: None: the tiles are exact. Else each is a picture of its own, and neighbours are blended over so many
            pixels at least.
        flips: average the logits over the picture and its mirror images along every axis, which takes four times as
            long, or eight.
        bfloat16: compute in bfloat16.
        batch: so many tiles are computed together, in as many times the memory.
        devices: so many tiles are computed together on each of them; None: on the one where the weights lie.

    Raises:
        unet_core.UNetError: tiles that cover no picture; the message says what to give.
    """

    def __init__(
        self,
        model: Network,
        *,
        tile: Lengths | None = None,
        overlap: Overlap = None,
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
        kind = jnp.result_type(*jax.tree.leaves(nnx.state(model, nnx.Param)), model.execution.dtype or jnp.bfloat16)
        self._dtype = jnp.dtype(jnp.promote_types(kind, jnp.float32))
        self._how = Execution(jnp.bfloat16 if bfloat16 else model.execution.dtype, prepared=True)
        self._graphdef = nnx.split(model, nnx.Param, nnx.BatchStat)[0]
        self._folded: tuple[list[Array], Graph | None, Any] = ([], None, None)
        """The weights that were last rewritten, for which graph, and what came of it."""
        self._fold = jax.jit(self._frozen, static_argnames=("graph", "platform"))
        self._programs: dict[str, Any] = {}
        """By platform."""

    def bands(self, picture: Shaped[np.ndarray, "*s c"], variables: tuple[Any, Any] | None = None) -> Iterator[Band]:
        """The logits of a picture in bands of rows, from the top down, each with the number of its first row.

        A volume's bands are of slices.

        Args:
            picture: uint8, uint16 or float32, as `unet_core.data.pictures.as_float` takes it. Only one tile of it at
                a time is made float.
            variables: other weights of the same network, as `nnx.split(model, nnx.Param, nnx.BatchStat)[1:]` gives
                them: parameters and statistics. Of those that are copied to several devices, this process's first copy
                is used.

        Returns:
            An iterator over `(row, logits)`; the logits are `[rows, w, k]`, or `[slices, h, w, k]`, float32, or float64
            where the model is.

        Raises:
            unet_core.DataError: the network cannot take this picture.
            unet_core.UNetError: the tile is too small for exact logits of a picture of this size.
        """
        tiles = planned(self.model.config, picture, self.tile, self.overlap)
        variables = variables or (nnx.state(self.model, nnx.Param), nnx.state(self.model, nnx.BatchStat))
        network = self._network(variables, tiles.plan.graph)

        def run(view: np.ndarray, starts: list[Start]) -> Iterator[np.ndarray]:
            groups = (starts[first : first + self.batch] for first in range(0, len(starts), self.batch))
            logits = one_ahead((self._logits(network, view, group, tiles) for group in groups), np.asarray)
            return itertools.islice(itertools.chain.from_iterable(logits), len(starts))

        return blended(picture, tiles, run, flips=self.flips)

    def logits(
        self, picture: Shaped[np.ndarray, "*s c"], variables: tuple[Any, Any] | None = None
    ) -> Float[np.ndarray, "*s k"]:
        """All bands in one array. Raises what `bands` raises."""
        return gathered(self.bands(picture, variables), picture.shape[0])

    def _network(self, variables: tuple[Any, Any], graph: Graph) -> Frozen:
        """What computes this graph, on one device or on each; that of the last call where it is the same."""
        leaves = jax.tree.leaves(variables)
        known, before, network = self._folded
        same = len(known) == len(leaves) and all(old is new for old, new in zip(known, leaves, strict=True))
        if not same or before != graph:
            placed = _on_one_device(variables) if self._whole is None else jax.device_put(variables, self._whole)
            network = self._fold(placed, graph=graph, platform=_platform(placed))
            self._folded = leaves, graph, network
        return network

    def _frozen(self, variables: tuple[Any, Any], graph: Graph, platform: str) -> Frozen:
        model = nnx.merge(self._graphdef, *variables)
        tensors = {name: variable[...] for name, variable in model.variables()}
        return frozen(graph, tensors, platform, self._how.dtype)

    def _logits(self, network: Frozen, picture: np.ndarray, starts: list[Start], tiles: Tiling) -> Array:
        """Of some tiles, dispatched and not yet awaited; the last one again where there are less than a batch."""
        starts = starts + starts[-1:] * (self.batch - len(starts))
        x = np.stack([cut(picture, start, tiles.tile) for start in starts]).astype(self._dtype)
        own = [tiles.plan.tensors(start, double=self._dtype == jnp.float64) for start in starts]
        inputs: Any = x, jax.tree.map(lambda *arrays: np.stack(arrays), *own)
        if self._split is not None:
            inputs = jax.device_put(inputs, self._split)
        return self._program(network)(network, *inputs)

    def _program(self, network: Frozen) -> Any:
        platform = _platform(network)
        if platform not in self._programs:
            how, dtype = self._how, self._dtype

            def logits_of_tiles(network: Frozen, x: Array, own: dict[str, Array]) -> Array:
                graph = network.graph

                def logits(x: Array, own: dict[str, Array]) -> Array:
                    return execute(graph, {**network.tensors, **own}, x[None], how, until=graph.logits).answer[0]

                return jax.vmap(logits)(x, own).astype(dtype)

            options = compiler_options(platform, wide=dtype == jnp.float64)
            self._programs[platform] = jax.jit(logits_of_tiles, compiler_options=options)
        return self._programs[platform]


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
