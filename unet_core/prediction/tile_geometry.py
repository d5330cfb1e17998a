"""Which tiles cover a picture, what computes them, and which of them counts where."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from math import lcm, prod

import numpy as np
from jaxtyping import Float

from unet_core.errors import UNetError, sized
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.graph.family import graph_of
from unet_core.graph.regions import reach
from unet_core.graph.scales import refusal, unit
from unet_core.graph.tiled import TilePlan, tile_plan

LARGEST_TILE = 896
"""Pixels a side: the full network (64 to 1024 features, float32) then needs less than 2 GB beside its weights."""
LARGEST_CUBE = 96
"""Voxels a side, which are about as many."""


Lengths = tuple[int, ...]
"""Height and width, before them depth in 3-D."""
Overlap = int | Lengths | None
"""Of neighbouring tiles, in pixels, along every axis or along each; None: as much as makes them exact."""


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
    """Tiles that cover a picture: every place along an axis with every one along the others."""

    lines: tuple[Line, ...]
    """Along each axis."""
    plan: TilePlan
    """What computes a tile."""

    def __len__(self) -> int:
        return prod(len(line.starts) for line in self.lines)

    @property
    def tile(self) -> Lengths:
        """The size of each tile."""
        return tuple(line.tile for line in self.lines)


def tiling(config: Description, size: Lengths, tile: Lengths | None = None, overlap: Overlap = None) -> Tiling:
    """Tiles that cover a picture, or a volume.

    Args:
        config: of the network.
        size: of the picture, in pixels.
        tile: the size of each tile, with what it draws on; None: the `default_tile`.
        overlap: None: the stitched logits are those of the whole picture, which is one tile where the network allows
            no others. Else each tile is a picture of its own, zero beyond the picture's end where the network does not
            take one so small, and neighbours overlap by so many pixels at least, over which they are blended.

    Raises:
        UNetError: a tile that no picture can be covered with, or not larger than the overlap that it needs.
    """
    check_tile(config, tile, overlap)
    graph = graph_of(config)
    if overlap is None and refusal(graph):
        tile = size
    tile = tile or default_tile(config, [size], overlap)
    if overlap is None and not refusal(graph):
        exact = tuple(_exact(graph, size, tile, axis) for axis in range(len(size)))
        return Tiling(exact, tile_plan(graph, size, tile))
    axes = zip(size, tile, _along(overlap or 0, graph), strict=True)
    blended = tuple(_overlapping(graph, *axis) for axis in axes)
    found = Tiling(blended, TilePlan(graph, ({},) * len(size)))
    if not graph.sizes.take(found.tile):
        raise UNetError(f"a tile of {sized(found.tile)}: the network takes {graph.sizes}")
    return found


def check_tile(config: Description, tile: Lengths | None, overlap: Overlap) -> None:
    """Raise UNetError where no picture can be covered with such tiles.

    An overlap that leaves nothing of them is no matter to pictures that one tile holds: `tiling` sees to it.
    """
    graph = graph_of(config)
    if tile is not None and overlap is None and (why := refusal(graph)):
        raise UNetError(f"tiles of this network are not exact: {why}; give an overlap, which blends them")
    step = _grain(graph)
    if tile is not None and any(length % step or length < step for length in tile):
        near = sized([max(_up(length, step), step) for length in tile])
        every = "both" if len(tile) == 2 else "all"
        raise UNetError(f"a tile of {sized(tile)}: {every} must be multiples of {step}; give {near}, for example")
    if overlap is not None and min(_along(overlap, graph)) < 0:
        raise UNetError(f"an overlap of {overlap} pixels: give 0 or more")


def usual_tiles(
    config: Description, sizes: Iterable[Lengths], crop: Lengths | None = None
) -> tuple[Lengths | None, Lengths | None]:
    """One tile for pictures of all these sizes, and its overlap, where nobody names one.

    They are exact. Where those of a 3-D network are not, or it does not take volumes of these sizes, they are as large
    as the crops that it was trained on, and overlap by half, as far as it takes them: a whole volume hardly fits.

    Args:
        config: of the network.
        sizes: of the pictures.
        crop: what it was trained on; None: a cube of `LARGEST_CUBE`.
    """
    graph, found = graph_of(config), list(sizes)
    if graph.dimensions == 2 or (not refusal(graph) and all(map(graph.sizes.take, found))):
        return shared_tile(config, found), None
    step = _grain(graph)
    most = tuple(_up(length, step) for length in crop or (LARGEST_CUBE,) * graph.dimensions)
    tile = shared_tile(config, found, 0, tile=most)
    assert tile is not None  # for there is an overlap
    return tile, tuple(min(length // 2, length - step) for length in tile)


def shared_tile(
    config: Description,
    sizes: Iterable[Lengths],
    overlap: Overlap = None,
    *,
    tile: Lengths | None = None,
) -> Lengths | None:
    """One tile for pictures of all these sizes; None for a network that takes whole pictures only.

    Args:
        config: of the network.
        sizes: of the pictures.
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
    return tuple(
        min(most, _up(max(lengths), step)) for most, lengths in zip(tile, zip(*found, strict=True), strict=True)
    )


def default_tile(config: Description, sizes: Iterable[Lengths], overlap: Overlap = None) -> Lengths:
    """One tile for pictures of all these sizes.

    Each axis is as long as the longest picture, where that is at most `LARGEST_TILE`, or `LARGEST_CUBE` in 3-D. Else it
    is as short as it can be with no more tiles than that would need, so that no tile reaches far beyond the picture.
    Networks that draw on more than half of that from a tile's surroundings have tiles that are twice as long as these.

    Args:
        config: of the network, which can be computed in tiles where there is no overlap.
        sizes: of the pictures.
        overlap: as in `tiling`.
    """
    found = list(sizes)
    if not found:
        raise ValueError("no sizes to choose a tile for")
    graph = graph_of(config)
    step = _grain(graph)
    lengths = tuple(map(max, zip(*found, strict=True)))
    most = LARGEST_TILE if graph.dimensions == 2 else LARGEST_CUBE
    if max(lengths) <= most:
        return tuple(_up(length, step) for length in lengths)
    around = [sum(pair) for pair in reach(graph, lengths)] if overlap is None else _along(overlap, graph)
    return tuple(_default_length(*axis, step, most) for axis in zip(lengths, around, strict=True))


def _default_length(size: int, around: int, step: int, most: int) -> int:
    shared = _up(around, step)
    largest = _up(max(most, 2 * shared), step)
    count = max(1, -(-(size - shared) // (largest - shared)))
    return min(largest, _up(-(-(size + (count - 1) * shared) // count), step))


def _along(overlap: int | Lengths, graph: Graph) -> Lengths:
    return (overlap,) * graph.dimensions if isinstance(overlap, int) else overlap


def _grain(graph: Graph) -> int:
    """Of what a tile's lengths are multiples."""
    return graph.sizes.multiple if refusal(graph) else lcm(graph.sizes.multiple, unit(graph))


def _exact(graph: Graph, size: Lengths, tile: Lengths, axis: int) -> Line:
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
        return _line(size, max(_up(size, graph.sizes.multiple), graph.minimum_size), (0,))
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
