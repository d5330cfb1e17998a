"""Regions as pixels: polygons and run lengths as COCO's tools (pycocotools) understand them, Label Studio's brush."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool

from unet_core.errors import DataError

_FINE = 5
"""COCO's tools follow an outline on a grid that is so many times finer than the pixels."""
_FARTHEST = 16
"""Times the size of a picture: farther out, a corner is a mistake."""


def polygon(corners: Sequence[float], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels that COCO's tools take to be in a polygon.

    Args:
        corners: x and y of each; whole numbers lie on the pixels' edges.

    Raises:
        DataError: fewer than three corners, or one of them far outside.
    """
    points = np.asarray(corners, np.float64)
    if points.ndim != 1 or len(points) % 2 or len(points) < 6:
        raise DataError("a polygon has three corners or more, each of x and y")
    if not (np.abs(points) <= _FARTHEST * max(height, width, 64)).all():  # NaN is not
        raise DataError("a polygon has a corner far outside of its picture")
    across, down = _outline(np.trunc(_FINE * points.reshape(-1, 2) + 0.5).astype(np.int64))
    turns = across[1:] != across[:-1]
    left = np.minimum(across[1:], across[:-1])[turns]
    columns, inside = np.divmod(left - (_FINE - 1) // 2, _FINE)
    upper = np.minimum(down[1:], down[:-1])[turns]
    rows = np.ceil(np.clip((upper + 0.5) / _FINE - 0.5, 0, height)).astype(np.int64)
    crossed = (inside == 0) & (columns >= 0) & (columns < width)
    places = np.bincount(columns[crossed] * height + rows[crossed], minlength=height * width + 1)[: height * width]
    # Going down the columns, one after the other, each crossing leads in or out.
    return (np.cumsum(places) % 2 == 1).reshape(width, height).T


def _outline(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of the fine grid along the edges from corner to corner, and back to the first."""
    begin, end = corners, np.roll(corners, -1, 0)
    long = np.abs(end - begin)
    flat = long[:, 0] >= long[:, 1]
    axis = np.where(flat, 0, 1)
    edges = np.arange(len(corners))
    swapped = begin[edges, axis] > end[edges, axis]  # an edge is followed upwards, and then turned round
    low, high = np.where(swapped[:, None], end, begin), np.where(swapped[:, None], begin, end)
    steps = long[edges, axis]
    slope = (high[edges, 1 - axis] - low[edges, 1 - axis]) / np.maximum(steps, 1)
    of = np.repeat(edges, steps + 1)
    step = np.arange(len(of)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    step = np.where(swapped[of], steps[of] - step, step)
    along = low[of, axis[of]] + step
    beside = np.trunc(low[of, 1 - axis[of]] + slope[of] * step + 0.5).astype(np.int64)
    return np.where(flat[of], along, beside), np.where(flat[of], beside, along)


def runs(counts: Sequence[int] | str, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of COCO's run lengths, a list or its compressed form: outside, inside, outside, down the columns.

    Raises:
        DataError: they are not those of a picture of this size.
    """
    lengths = np.asarray(list(_uncompressed(counts)) if isinstance(counts, str) else counts)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any() or lengths.sum() != height * width:
        raise DataError(f"run lengths that are not those of {height}x{width} pixels")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


def _uncompressed(text: str) -> Iterator[int]:
    """The numbers of COCO's text, five bits a letter, the lowest first; the fourth and later ones are differences."""
    found: list[int] = []
    number = place = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or place > 60:
            raise DataError("run lengths that are no text of COCO's")
        number |= (bits & 31) << place
        place += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << place
        found.append(number + (found[-2] if len(found) > 2 else 0))
        yield found[-1]
        number = place = 0
    if place:
        raise DataError("run lengths that end too early")


def brush(data: Sequence[int], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of a region that was painted in Label Studio, from the bytes of its run lengths.

    Raises:
        DataError: they are not those of a picture of this size.
    """
    try:
        bits = np.unpackbits(np.array(data, np.uint8))
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError("a brush's run lengths that are no bytes") from error
    try:
        return _painted(_Bits(bits), height, width)
    except IndexError as error:
        raise DataError("a brush's run lengths that end too early") from error


class _Bits:
    """Whole numbers from bits, the largest bit first."""

    def __init__(self, bits: np.ndarray) -> None:
        self.text = "".join(map(str, bits.tolist()))
        self.place = 0

    def number(self, count: int) -> int:
        end = self.place + count
        if end > len(self.text):
            raise IndexError(end)
        found = int(self.text[self.place : end], 2)
        self.place = end
        return found


def _painted(bits: _Bits, height: int, width: int) -> np.ndarray:
    """The opacity of each pixel is the last of its four bytes."""
    count, word = bits.number(32), bits.number(5) + 1
    lengths = [bits.number(4) + 1 for _ in range(4)]
    if count != 4 * height * width:
        raise DataError(f"a brush's run lengths that are not those of {height}x{width} pixels")
    samples, done = np.zeros(count, np.uint8), 0
    while done < count:
        repeated = bits.number(1)
        end = min(done + 1 + bits.number(lengths[bits.number(2)]), count)
        if repeated:
            samples[done:end] = bits.number(word) & 255
        else:
            samples[done:end] = [bits.number(word) & 255 for _ in range(end - done)]
        done = end
    return samples[3::4].reshape(height, width) > 0
