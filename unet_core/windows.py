"""A tile as a window of the whole picture: what the network needs to know of the rest of it.

A tile of its own is another picture. With aligned corners, bilinear upsampling depends on the size of the whole; and
what lies beyond the whole picture's edge is zero to every convolution. A `Window` holds both: where the picture ends,
and the whole picture's upsampling weights, cut to the tile.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from unet_core.config import UNetConfig
from unet_core.resize import interpolation_weights


class Span(NamedTuple):
    """One axis of a window: whole numbers and float64 arrays, or what a framework puts in their place."""

    inside: tuple[Any, ...]
    """For each level, how many of the tile's points lie in the whole picture; those beyond its end come last."""
    taps: tuple[Any, ...]
    """For each decoder level, `[m, factor, 3]`, how the map that comes from below is brought to this level.

    Of the m = n / factor points below, each makes `factor` points: `y[q * factor + e]` is the sum over k of
    `taps[q, e, k] * x[q + k - 1]`. Zero beyond the end of the whole picture, and with a factor of 2 where e is 0 and
    k is 2. The factor is 2 where that is the bilinear upsampling; after a transposed convolution it is 1, and only the
    fit to an odd size is left.
    """


class Window(NamedTuple):
    """Where in the whole picture a tile lies."""

    rows: Span
    columns: Span


def window(config: UNetConfig, size: tuple[int, int], start: tuple[int, int], tile: tuple[int, int]) -> Window:
    """The window of one tile.

    Args:
        size: height and width of the whole picture, in pixels.
        start: the first row and column of the tile, multiples of `2**config.depth`.
        tile: height and width of the tile, multiples of `2**config.depth`; it may reach beyond the picture's end.
    """
    rows, columns = (span(config, *axis) for axis in zip(size, start, tile, strict=True))
    return Window(rows, columns)


def span(config: UNetConfig, size: int, start: int, tile: int) -> Span:
    """One axis of `window`.

    Raises:
        ValueError: a start or tile that is no multiple of `2**config.depth`.
    """
    step = config.minimum_size
    if start % step or tile % step or start < 0 or tile < step:
        raise ValueError(f"a tile of {tile} pixels from {start} on: both must be multiples of {step}")
    levels = range(config.depth + 1)
    sizes, starts, lengths = ([value >> level for level in levels] for value in (size, start, tile))
    inside = [min(max(end - first, 0), length) for end, first, length in zip(sizes, starts, lengths, strict=True)]
    taps = [
        upsampling_taps(config, sizes[level], sizes[level + 1], starts[level], lengths[level]) for level in levels[:-1]
    ]
    return Span(tuple(inside), tuple(taps))


def upsampling_taps(
    config: UNetConfig, size: int, below: int, start: int, length: int
) -> Float[np.ndarray, "m factor 3"]:
    """The weights that bring `below` points to `size` points, for `length` of these from `start` on.

    As in `Span.taps`; zero beyond `size`. `start` and `length` are multiples of the factor.
    """
    factor, source = (1, 2 * below) if config.upsampling == "transposed" else (2, below)
    target = 2 * below if config.fit == "pad" else size  # the centred padding of one row has it at the end
    points = np.arange(start, min(start + length, target))
    low, high, weight = interpolation_weights(source, target, points, align_corners=config.align_corners)
    taps = np.zeros((length, 3))
    # A point's neighbours differ by at most 1 from the point that makes it: with `size` = 2 * `below` or one more,
    # the source coordinate is from 0 to 1 less than `point / factor`, or for half-pixel centres about a quarter off.
    centre = points // factor - 1
    np.add.at(taps, (points - start, low - centre), 1.0 - weight)
    np.add.at(taps, (points - start, high - centre), weight)
    return taps.reshape(length // factor, factor, 3)
