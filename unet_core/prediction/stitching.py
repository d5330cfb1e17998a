"""Tiles of logits stitched to bands of finished rows, from the top of the picture down."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Shaped

from unet_core.data.pictures import as_float
from unet_core.errors import DataError, sized
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.graph.suitability import refusal
from unet_core.prediction.tile_geometry import Lengths, Line, Overlap, Tiling, tiling

Band = tuple[int, Float[np.ndarray, "rows *w k"]]
"""The number of the first row, or slice of a volume, and the rows."""
Picture = Shaped[np.ndarray, "*s c"]
"""uint8, uint16 or float32, as `unet_core.data.pictures.as_float` takes it; of a volume [d, h, w, c]."""
Start = tuple[int, ...]
"""The first pixel of a tile along each axis."""

_Pending = TypeVar("_Pending")


def planned(config: Description, picture: np.ndarray, tile: Lengths | None, overlap: Overlap) -> Tiling:
    """The tiles of a picture, as `tiling` has them.

    Raises:
        DataError: the network cannot take this picture, or, where they overlap, its tiles.
        UNetError: what `tiling` raises.
    """
    if picture.ndim != config.dimensions + 1:
        kind, axes = ("picture", "") if config.dimensions == 2 else ("volume", "depth, ")
        shape = sized(picture.shape) or "a number"
        raise DataError(f"a {kind} is an array of {axes}height, width and channels; this one is {shape}")
    *size, channels = picture.shape
    found = None if overlap is None else tiling(config, tuple(size), tile, overlap)
    taken = tuple(size) if found is None else found.tile
    if isinstance(config, Graph) and (why := refusal(config, taken)):
        raise DataError(f"an input of {sized(taken)}: {why}")
    try:
        config.check_input(*taken, channels)
    except ValueError as error:
        raise DataError(str(error)) from error
    return found or tiling(config, taken, tile)


def cut(picture: Picture, start: Start, tile: Lengths) -> Float[np.ndarray, "*t c"]:
    """A tile of the picture as float32, zero beyond the picture's end."""
    part = as_float(picture[tuple(slice(at, at + length) for at, length in zip(start, tile, strict=True))])
    whole = np.zeros((*tile, picture.shape[-1]), part.dtype)
    whole[tuple(map(slice, part.shape))] = part
    return whole


def blended(
    picture: Picture,
    plan: Tiling,
    run: Callable[[Picture, list[Start]], Iterable[Float[np.ndarray, "*t k"]]],
    *,
    flips: bool = False,
) -> Iterator[Band]:
    """The bands of a picture's logits.

    Args:
        plan: its tiles.
        run: gives the logits of the tiles of a picture that begin at these points, one after the other.
        flips: the mean over the picture and its mirror images along every axis, each in tiles of its own.
    """
    streams = []
    for ways in itertools.product((1, -1), repeat=len(plan.lines)) if flips else [(1,) * len(plan.lines)]:
        mirrored = tuple(slice(None, None, way) for way in ways)
        starts = list(itertools.product(*(line.starts[way] for line, way in zip(plan.lines, mirrored, strict=True))))
        lines = [line if way > 0 else line.flipped() for line, way in zip(plan.lines, ways, strict=True)]
        streams.append(stitched(lines, _each(run(picture[mirrored], starts), mirrored)))
    return averaged(streams) if flips else streams[0]


def gathered(bands: Iterator[Band], height: int) -> Float[np.ndarray, "h *w k"]:
    """All rows of a picture of `height` rows in one array."""
    top, rows = next(bands)
    whole = np.empty((height, *rows.shape[1:]), rows.dtype)
    whole[top : top + len(rows)] = rows
    for top, rows in bands:
        whole[top : top + len(rows)] = rows
    return whole


def one_ahead(results: Iterable[_Pending], fetch: Callable[[_Pending], np.ndarray]) -> Iterator[np.ndarray]:
    """Fetch each result once the next one is under way, so that a device computes meanwhile."""
    pending: list[_Pending] = []
    for result in results:
        pending.append(result)
        if len(pending) == 2:
            yield fetch(pending.pop(0))
    yield from map(fetch, pending)


def stitched(lines: Sequence[Line], tiles: Iterator[Float[np.ndarray, "*t k"]]) -> Iterator[Band]:
    """Blend tiles, and yield each row, or slice of a volume, once no later tile has a part in it.

    Holds the rows that one row of tiles covers.

    Args:
        lines: where the tiles lie along each axis.
        tiles: their logits, in the order of the first axis, within it of the second, and so on; taken one at a time.
    """
    top = 0
    band: np.ndarray | None = None
    rows, *others = lines
    for number, start in enumerate(rows.starts):
        stop = min(start + rows.tile, rows.size)
        for at in itertools.product(*(range(len(line.starts)) for line in others)):
            tile = next(tiles)
            if band is None:
                band = np.zeros((0, *(line.size for line in others), tile.shape[-1]), tile.dtype)
            if band.shape[0] < stop - top:
                more = np.zeros((stop - top - band.shape[0], *band.shape[1:]), band.dtype)
                band = np.concatenate((band, more))
            parts, place, weights = [], [], np.ones((), tile.dtype)
            for line, which, before in zip(lines, (number, *at), (top, *[0] * len(others)), strict=True):
                part = _inside(line.starts[which], line)
                parts.append(part)
                place.append(_shifted(part, line.starts[which] - before))
                weights = weights[..., None] * line.weights[which][part].astype(tile.dtype)
            band[tuple(place)] += weights[..., None] * tile[tuple(parts)]
        if band is None:
            return
        last = number == len(rows.starts) - 1
        finished = rows.size if last else max(rows.starts[number + 1], top)
        if finished > top:
            yield top, band[: finished - top]
        band, top = band[finished - top :], finished


def averaged(streams: Sequence[Iterator[Band]]) -> Iterator[Band]:
    """The mean of several streams of bands of one picture, whichever rows each yields at a time."""
    held: list[np.ndarray | None] = [None] * len(streams)
    top = 0
    while True:
        for number, stream in enumerate(streams):
            if held[number] is None:
                _, held[number] = next(stream, (0, None))
        ready = [rows for rows in held if rows is not None]
        if not ready:
            return
        count = min(map(len, ready))
        yield top, sum(rows[:count] for rows in ready) / ready[0].dtype.type(len(ready))
        held = [rows[count:] if len(rows) > count else None for rows in ready]
        top += count


def _each(tiles: Iterable[np.ndarray], mirrored: tuple[slice, ...]) -> Iterator[np.ndarray]:
    return (tile[mirrored] for tile in tiles)


def _inside(start: int, line: Line) -> slice:
    """Which part of a tile lies in the picture."""
    return slice(max(-start, 0), min(line.tile, line.size - start))


def _shifted(part: slice, start: int) -> slice:
    return slice(start + part.start, start + part.stop)
