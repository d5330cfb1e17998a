"""Tiles of logits stitched to bands of finished rows, from the top of the picture down."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Shaped

from unet_core.data.pictures import as_float
from unet_core.errors import DataError
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.graph.suitability import refusal
from unet_core.prediction.tile_geometry import Line, Tiling

Band = tuple[int, Float[np.ndarray, "rows w k"]]
"""The number of the first row, and the rows."""
Picture = Shaped[np.ndarray, "h w c"]
"""uint8, uint16 or float32, as `unet_core.data.pictures.as_float` takes it."""
Start = tuple[int, int]
"""The first row and column of a tile."""

_FLIPS = ((False, False), (False, True), (True, False), (True, True))
_Pending = TypeVar("_Pending")


def check_picture(config: Description, picture: np.ndarray) -> None:
    """Raise DataError where the network cannot take this picture."""
    if picture.ndim != 3:
        shape = "x".join(map(str, picture.shape))
        raise DataError(f"a picture is an array of height, width and channels; this one is {shape or 'a number'}")
    height, width, _ = picture.shape
    if isinstance(config, Graph) and (why := refusal(config, (height, width))):
        raise DataError(f"an input of {height}x{width}: {why}")
    try:
        config.check_input(*picture.shape)
    except ValueError as error:
        raise DataError(str(error)) from error


def cut(picture: Picture, start: Start, tile: tuple[int, int]) -> Float[np.ndarray, "t u c"]:
    """A tile of the picture as float32, zero beyond the picture's end."""
    part = as_float(picture[start[0] : start[0] + tile[0], start[1] : start[1] + tile[1]])
    whole = np.zeros((*tile, picture.shape[2]), part.dtype)
    whole[: part.shape[0], : part.shape[1]] = part
    return whole


def blended(
    picture: Picture,
    plan: Tiling,
    run: Callable[[Picture, list[Start]], Iterable[Float[np.ndarray, "t u k"]]],
    *,
    flips: bool = False,
) -> Iterator[Band]:
    """The bands of a picture's logits.

    Args:
        plan: its tiles.
        run: gives the logits of the tiles of a picture that begin at these points, one after the other.
        flips: the mean over the picture and its three mirror images, each in tiles of its own.
    """
    streams = []
    for vertical, horizontal in _FLIPS if flips else _FLIPS[:1]:
        mirrored = (slice(None, None, -1 if vertical else 1), slice(None, None, -1 if horizontal else 1))
        starts = [(row, column) for row in plan.rows.starts[mirrored[0]] for column in plan.columns.starts[mirrored[1]]]
        rows = plan.rows.flipped() if vertical else plan.rows
        columns = plan.columns.flipped() if horizontal else plan.columns
        streams.append(stitched(rows, columns, _each(run(picture[mirrored], starts), mirrored)))
    return averaged(streams) if flips else streams[0]


def gathered(bands: Iterator[Band], height: int) -> Float[np.ndarray, "h w k"]:
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


def stitched(rows: Line, columns: Line, tiles: Iterator[Float[np.ndarray, "t u k"]]) -> Iterator[Band]:
    """Blend tiles, and yield each row once no later tile has a part in it.

    Holds the rows that one row of tiles covers.

    Args:
        rows, columns: where the tiles lie.
        tiles: their logits, in the order of `rows` and within it of `columns`; taken one at a time.
    """
    top = 0
    band: np.ndarray | None = None
    for number, start in enumerate(rows.starts):
        stop = min(start + rows.tile, rows.size)
        for left, across in zip(columns.starts, columns.weights, strict=True):
            tile = next(tiles)
            if band is None:
                band = np.zeros((0, columns.size, tile.shape[-1]), tile.dtype)
            if band.shape[0] < stop - top:
                more = np.zeros((stop - top - band.shape[0], *band.shape[1:]), band.dtype)
                band = np.concatenate((band, more))
            down = rows.weights[number].astype(tile.dtype)
            high, wide = _inside(start, rows), _inside(left, columns)
            weights = down[high, None, None] * across.astype(tile.dtype)[None, wide, None]
            place = (slice(start + high.start - top, start + high.stop - top), _shifted(wide, left))
            band[place] += weights * tile[high, wide]
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


def _each(tiles: Iterable[np.ndarray], mirrored: tuple[slice, slice]) -> Iterator[np.ndarray]:
    return (tile[mirrored] for tile in tiles)


def _inside(start: int, line: Line) -> slice:
    """Which part of a tile lies in the picture."""
    return slice(max(-start, 0), min(line.tile, line.size - start))


def _shifted(part: slice, start: int) -> slice:
    return slice(start + part.start, start + part.stop)
