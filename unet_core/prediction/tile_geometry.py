"""Which tiles cover a picture, what computes them, and which of them counts where."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from math import lcm

import numpy as np
from jaxtyping import Float

from unet_core.errors import UNetError
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.graph.family import graph_of
from unet_core.graph.regions import reach
from unet_core.graph.scales import refusal, unit
from unet_core.graph.tiled import TilePlan, tile_plan

LARGEST_TILE = 896
"""Pixels a side: the full network (64 to 1024 features, float32) then needs less than 2 GB beside its weights."""


@dataclass(frozen=True)
class Line:
    """The tiles along one axis."""

    size: int
    """Of the whole picture, in pixels."""
    tile: int
    """Length of the answer to each tile, in pixels."""
    starts: tuple[int, ...]
    """The first pixel of each tile, ascending. The last tile may end beyond the picture."""
    weights: tuple[Float[np.ndarray, " tile"], ...]
    """How much each pixel of each tile counts: 1 in all for each pixel of the picture."""

    def flipped(self) -> "Line":
        """The same tiles of the mirrored picture, seen in this one: the first may begin before the picture."""
        return Line(
            self.size,
            self.tile,
            tuple(self.size - start - self.tile for start in reversed(self.starts)),
            tuple(weight[::-1] for weight in reversed(self.weights)),
        )


@dataclass(frozen=True)
class Tiling:
    """Tiles that cover a picture: every one of `rows` with every one of `columns`."""

    rows: Line
    columns: Line
    plan: TilePlan
    """What computes a tile."""

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of each tile."""
        return self.rows.tile, self.columns.tile


def tiling(
    config: Description, size: tuple[int, int], tile: tuple[int, int] | None = None, overlap: int | None = None
) -> Tiling:
    """Tiles that cover a picture.

    Args:
        config: of the network.
        size: height and width of the picture, in pixels.
        tile: height and width of each tile, with what it draws on; None: the `default_tile`.
        overlap: None: the stitched logits are those of the whole picture, which is one tile where the network allows
            no others. Else each tile is a picture of its own, and neighbours overlap by so many pixels at least, over
            which they are blended.

    Raises:
        UNetError: a tile that no picture can be covered with, or not larger than the overlap that it needs.
    """
    check_tile(config, tile, overlap)
    graph = graph_of(config)
    if overlap is None and refusal(graph):
        tile = size
    tile = tile or default_tile(config, [size], overlap)
    if overlap is None and not refusal(graph):
        rows, columns = (_exact(graph, size, tile, axis) for axis in (0, 1))
        return Tiling(rows, columns, tile_plan(graph, size, tile))
    rows, columns = (_overlapping(graph, *axis, overlap or 0) for axis in zip(size, tile, strict=True))
    if not graph.sizes.take((rows.tile, columns.tile)):
        raise UNetError(f"a tile of {rows.tile}x{columns.tile}: the network takes {graph.sizes}")
    return Tiling(rows, columns, TilePlan(graph, ({}, {})))


def check_tile(config: Description, tile: tuple[int, int] | None, overlap: int | None) -> None:
    """Raise UNetError where no picture can be covered with such tiles.

    An overlap that leaves nothing of them is no matter to pictures that one tile holds: `tiling` sees to it.
    """
    graph = graph_of(config)
    if tile is not None and overlap is None and (why := refusal(graph)):
        raise UNetError(f"tiles of this network are not exact: {why}; give an overlap, which blends them")
    step = _grain(graph)
    if tile is not None and any(length % step or length < step for length in tile):
        near = "x".join(str(max(_up(length, step), step)) for length in tile)
        raise UNetError(f"a tile of {tile[0]}x{tile[1]}: both must be multiples of {step}; give {near}, for example")
    if overlap is not None and overlap < 0:
        raise UNetError(f"an overlap of {overlap} pixels: give 0 or more")


def shared_tile(
    config: Description,
    sizes: Iterable[tuple[int, int]],
    overlap: int | None = None,
    *,
    tile: tuple[int, int] | None = None,
) -> tuple[int, int] | None:
    """One tile for pictures of all these sizes; None for a network that takes whole pictures only.

    Args:
        config: of the network.
        sizes: height and width of each picture.
        overlap: as in `tiling`.
        tile: the largest that is wanted; None: the `default_tile`.

    Raises:
        UNetError: what `check_tile` raises.
    """
    check_tile(config, tile, overlap)
    if overlap is None and refusal(graph_of(config)):
        return None
    found = list(sizes)
    if tile is None:
        return default_tile(config, found, overlap)
    step = _grain(graph_of(config))
    height, width = (
        min(most, _up(max(lengths), step)) for most, lengths in zip(tile, zip(*found, strict=True), strict=True)
    )
    return height, width


def default_tile(config: Description, sizes: Iterable[tuple[int, int]], overlap: int | None = None) -> tuple[int, int]:
    """One tile for pictures of all these sizes: height and width, in pixels.

    Each axis is as long as the longest picture, where that is at most `LARGEST_TILE`. Else it is as short as it can be
    with no more tiles than `LARGEST_TILE` would need, so that no tile reaches far beyond the picture. Networks that
    draw on more than half of that from a tile's surroundings have tiles that are twice as long as these.

    Args:
        config: of the network, which can be computed in tiles where there is no overlap.
        sizes: height and width of each picture.
        overlap: as in `tiling`.
    """
    found = list(sizes)
    if not found:
        raise ValueError("no sizes to choose a tile for")
    graph = graph_of(config)
    step = _grain(graph)
    lengths = max(height for height, _ in found), max(width for _, width in found)
    height, width = (_up(length, step) for length in lengths)
    if max(lengths) > LARGEST_TILE:
        around = [overlap] * 2 if overlap is not None else [sum(pair) for pair in reach(graph, lengths)]
        height, width = (_default_length(*axis, step) for axis in zip(lengths, around, strict=True))
    return height, width


def _default_length(size: int, around: int, step: int) -> int:
    shared = _up(around, step)
    largest = _up(max(LARGEST_TILE, 2 * shared), step)
    count = max(1, -(-(size - shared) // (largest - shared)))
    return min(largest, _up(-(-(size + (count - 1) * shared) // count), step))


def _grain(graph: Graph) -> int:
    """Of what a tile's height and width are multiples."""
    return graph.sizes.multiple if refusal(graph) else lcm(graph.sizes.multiple, unit(graph))


def _exact(graph: Graph, size: tuple[int, int], tile: tuple[int, int], axis: int) -> Line:
    """Tiles that begin on the grid of the network's strides; the last one may end beyond the picture."""
    length, whole, step = tile[axis], size[axis], unit(graph)
    if length >= whole:
        return _line(whole, length, (0,))
    before, after = reach(graph, size)[axis]
    moved = length - before - after
    if moved < step:
        raise UNetError(
            f"a tile of {length} pixels is too small for a picture of {whole}: for exact logits give a tile of at "
            f"least {before + after + step}, or an overlap of at most {length - step}, which blends the tiles"
        )
    return _line(whole, length, tuple(range(0, whole - length + moved, moved)), before, after)


def _overlapping(graph: Graph, size: int, tile: int, overlap: int) -> Line:
    """Tiles that are pictures of their own, inside the picture."""
    step = _grain(graph)
    if tile >= size:
        return _line(size, size, (0,))
    moved = (tile - overlap) // step * step
    if moved < step:
        raise UNetError(f"an overlap of {overlap} pixels: tiles of {tile} can overlap by 0 to {tile - step}")
    return _line(size, tile, (*range(0, size - tile, moved), size - tile))


def _line(size: int, tile: int, starts: tuple[int, ...], before: int = 0, after: int = 0) -> Line:
    """Tiles that are blended wherever neighbours overlap, but for so many pixels at their beginnings and ends."""
    # Each seam is a ramp from 0 to 1, and a tile counts by what its own seam has gained and the next has not yet: so
    # the weights of all tiles sum to 1 wherever they overlap, also where three of them do.
    end = starts[-1] + tile
    points = np.arange(end) + 0.5
    seams = [_ramp(points, last + before, first + tile - after) for first, last in itertools.pairwise(starts)]
    gains = [np.ones(end), *seams, points > size]
    weights = (
        (gain - loss)[start : start + tile]
        for start, (gain, loss) in zip(starts, itertools.pairwise(gains), strict=True)
    )
    return Line(size, tile, starts, tuple(weights))


def _ramp(points: Float[np.ndarray, " n"], first: int, last: int) -> Float[np.ndarray, " n"]:
    """0 up to `first`, 1 from `last` on, a line between the two."""
    return np.clip((points - first) / max(last - first, 0.5), 0.0, 1.0)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
