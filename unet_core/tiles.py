"""Which tiles cover a picture, how far they overlap, and which of them counts where."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from unet_core.config import UNetConfig
from unet_core.errors import UNetError
from unet_core.graph import Graph
from unet_core.hub import Description

LARGEST_TILE = 896
"""Pixels a side: the full network (64 to 1024 features, float32) then needs less than 2 GB beside its weights."""


def reach(config: UNetConfig, size: int | None = None) -> tuple[int, int]:
    """How far from a tile's edge inside the picture its logits are not those of the whole picture, in pixels.

    By interval arithmetic: the first exact point of each level, counted from the tile's edge, through the encoder and
    back. A 3x3 convolution takes one point on each side; a max-pool halves, an upsampling doubles the distance. Where
    corners align, a point draws on sources up to one point nearer to the picture's beginning (half a point where its
    size is even, as the position there is `p * (n - 1) / (2 * n - 1)`).

    Args:
        size: of the whole picture along this axis; None: whatever it is.

    Returns:
        At the tile's beginning (top or left) and at its end.
    """
    skips = [2]
    for _ in range(config.depth):
        skips.append((skips[-1] + 1) // 2 + 2)
    before = after = skips[-1]
    for level in range(config.depth - 1, -1, -1):
        resized = config.fit == "resize" and (size is None or bool(size >> level & 1))
        drift = resized if config.upsampling == "transposed" else 1 + resized
        before = max(2 * before + drift, skips[level]) + 2
        after = max(2 * after + (config.upsampling == "bilinear"), skips[level]) + 2
    return before, after


def halo(config: UNetConfig) -> int:
    """How far from a tile's edge inside the picture its logits are those of the whole picture, whatever its size.

    In pixels, a multiple of `2**config.depth`.
    """
    return _up(max(reach(config)), config.minimum_size)


@dataclass(frozen=True)
class Line:
    """The tiles along one axis."""

    size: int
    """Of the whole picture, in pixels."""
    tile: int
    """Length of each tile, in pixels."""
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

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of each tile."""
        return self.rows.tile, self.columns.tile


def tiling(
    config: Description, size: tuple[int, int], tile: tuple[int, int] | None = None, overlap: int | None = None
) -> Tiling:
    """Tiles that cover a picture; of a network that was read from code one, the whole picture.

    Args:
        size: height and width of the picture, in pixels.
        tile: height and width of each tile, multiples of `2**config.depth`; None: the `default_tile`.
        overlap: by how many pixels neighbours overlap at least. None: by as many as it takes that every pixel comes
            from tiles that see all it depends on, and the stitched logits are those of the whole picture. So they are
            for every overlap from `2 * halo(config)` up. With less, neighbours are blended over all of their overlap.

    Raises:
        UNetError: a tile that is no multiple of `2**config.depth`, or not larger than the overlap that it needs.
    """
    check_tile(config, tile, overlap)
    if isinstance(config, Graph):
        return Tiling(*(Line(length, length, (0,), (np.ones(length),)) for length in size))
    tile = tile or default_tile(config, [size], overlap)
    rows, columns = (_line(config, *axis, overlap) for axis in zip(size, tile, strict=True))
    return Tiling(rows, columns)


def check_tile(config: Description, tile: tuple[int, int] | None, overlap: int | None) -> None:
    """Raise UNetError where no picture can be covered with such tiles.

    An overlap that leaves nothing of them is no matter to pictures that one tile holds: `tiling` sees to it.
    """
    if isinstance(config, Graph):
        if tile is not None or overlap is not None:
            raise UNetError("a network that was read from its code takes whole pictures: leave tile and overlap out")
        return
    step = config.minimum_size
    if tile is not None and any(length % step or length < step for length in tile):
        near = "x".join(str(max(_up(length, step), step)) for length in tile)
        raise UNetError(f"a tile of {tile[0]}x{tile[1]}: both must be multiples of {step}; give {near}, for example")
    if overlap is not None and overlap < 0:
        raise UNetError(f"an overlap of {overlap} pixels: give 0 or more")


def shared_tile(
    config: Description, sizes: Iterable[tuple[int, int]], overlap: int | None = None
) -> tuple[int, int] | None:
    """The `default_tile`; None for a network that takes whole pictures only."""
    return None if isinstance(config, Graph) else default_tile(config, sizes, overlap)


def default_tile(config: UNetConfig, sizes: Iterable[tuple[int, int]], overlap: int | None = None) -> tuple[int, int]:
    """One tile for pictures of all these sizes: height and width, in pixels.

    Each axis is as long as the longest picture, where that is at most `LARGEST_TILE`. Else it is as short as it can be
    with no more tiles than `LARGEST_TILE` would need, so that no tile reaches far beyond the picture. Networks of 5 and
    more max-pools overlap by more than half of that: their tiles are as long as two overlaps.

    Args:
        sizes: height and width of each picture.
        overlap: as in `tiling`.
    """
    found = list(sizes)
    if not found:
        raise ValueError("no sizes to choose a tile for")
    height, width = (_default_length(config, max(lengths), overlap) for lengths in zip(*found, strict=True))
    return height, width


def _default_length(config: UNetConfig, size: int, overlap: int | None) -> int:
    step = config.minimum_size
    shared = _up(sum(reach(config, size)) if overlap is None else overlap, step)
    largest = _up(max(LARGEST_TILE, 2 * shared), step)
    count = max(1, -(-(size - shared) // (largest - shared)))
    return min(largest, _up(-(-(size + (count - 1) * shared) // count), step))


def _line(config: UNetConfig, size: int, tile: int, overlap: int | None) -> Line:
    unit = config.minimum_size
    before, after = reach(config, size)
    step = (tile - (before + after if overlap is None else overlap)) // unit * unit
    if tile >= size:
        step = tile
    elif step < unit and overlap is not None:
        raise UNetError(f"an overlap of {overlap} pixels: tiles of {tile} can overlap by 0 to {tile - unit}")
    elif step < unit:
        raise UNetError(
            f"a tile of {tile} pixels is too small for a picture of {size}: for exact logits give a tile of at least "
            f"{_up(before + after + unit, unit)}, or an overlap of at most {tile - unit}, which blends the tiles"
        )
    count = max(1, -(-(size - tile) // step) + 1)
    starts = tuple(step * index for index in range(count))
    exact = tile - step >= before + after
    begin, end = (before, after) if exact else (0, 0)
    # Each seam is a ramp from 0 to 1, and a tile counts by what its own seam has gained and the next has not yet: so
    # the weights of all tiles sum to 1 wherever they overlap, also where three of them do.
    points = np.arange(tile) + 0.5
    rise = _ramp(points, begin, tile - step - end)
    fall = _ramp(points, step + begin, tile - end)
    inside = [start + np.arange(tile) < size for start in starts]
    weights = tuple(
        ((rise if index else 1.0) - (fall if index < count - 1 else 0.0)) * inside[index] for index in range(count)
    )
    return Line(size, tile, starts, weights)


def _ramp(points: Float[np.ndarray, " n"], first: int, last: int) -> Float[np.ndarray, " n"]:
    """0 up to `first`, 1 from `last` on, a line between the two."""
    return np.clip((points - first) / max(last - first, 0.5), 0.0, 1.0)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
