"""What interpolation makes each new point of an axis of: torch's weights, by one axis at a time."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from unet_core.graph.operations import Mode

SMALL = 128
"""The height and width, together, up to which torch has another kernel for the nearest points in two dimensions."""


class Resampling(NamedTuple):
    """From so many points along an axis to how many others, and how."""

    mode: Mode
    length: int
    target: int
    factor: float | None = None
    """Gives the coordinates in place of the two lengths."""
    align_corners: bool = False
    antialias: bool = False
    double: bool = True
    """Whether the map is in float64; else the coordinates of the nearest points are rounded as torch does, and the
    shares of others are rounded so that they sum to one."""
    small: bool = False
    """Whether the map is one for torch's other kernel of the nearest points."""


Sources = tuple[Int[np.ndarray, "target taps"], Float[np.ndarray, "target taps"]]
"""The points that each target takes something of, some of them perhaps twice, and how much of each."""


@lru_cache(256)
def sources(how: Resampling) -> Sources:
    """What each target takes of which points, in float64; beyond the ends lie copies of the points there."""
    first, shares = _nearest(how) if how.mode.startswith("nearest") else _weighted(how)
    if not how.double:
        shares = _rounded(shares)
    return np.clip(first[:, None] + np.arange(shares.shape[1]), 0, how.length - 1), shares


@lru_cache(256)
def weights(how: Resampling) -> Float[np.ndarray, "target length"]:
    """The same as a matrix."""
    columns, shares = sources(how)
    matrix = np.zeros((how.target, how.length))
    np.add.at(matrix, (np.arange(how.target)[:, None], columns), shares)
    return matrix


def _rounded(shares: Float[np.ndarray, "target taps"]) -> Float[np.ndarray, "target taps"]:
    """As float32 has them, where none is above one; rounded each by itself, they would raise or lower a whole map."""
    found = np.round(shares * 2.0**24) / 2.0**24
    largest = abs(found).argmax(1)[:, None]
    np.put_along_axis(found, largest, np.take_along_axis(found, largest, 1) + (1 - found.sum(1, keepdims=True)), 1)
    return found


_Taps = tuple[Int[np.ndarray, " target"], Float[np.ndarray, "target taps"]]
"""The first point that each target takes something of, and how much of it and those behind."""


def _nearest(how: Resampling) -> _Taps:
    """The index that torch has, rounding included: in the dtype of the map or float32, and down in float32."""
    number: Any = np.float64 if how.double and not how.small else np.float32
    step = number(1 / how.factor) if how.factor else number(how.length) / number(how.target)
    places: Any = np.arange(how.target)
    half = (places + 0.5) * float(step)
    if how.mode == "nearest" and how.small and how.target in (how.length, 2 * how.length):
        source = places // (how.target // how.length)
    elif how.mode == "nearest":
        source = places.astype(number) * step
    elif how.small:
        source = half
    else:
        source = np.maximum((half - 0.5).astype(number), 0).astype(np.float64) + 0.5
    index = np.floor(source.astype(np.float32)).astype(np.int64)
    return np.minimum(index, how.length - 1), np.ones((how.target, 1))


def _weighted(how: Resampling) -> _Taps:
    """The source coordinates and weights of torch (aten/src/ATen/native/UpSample.h and cpu/UpSampleKernel.cpp)."""
    places = np.arange(how.target)
    if how.align_corners:
        step = (how.length - 1) / (how.target - 1) if how.target > 1 else 0.0
    else:
        step = 1 / how.factor if how.factor else how.length / how.target
    if how.length == how.target and (how.antialias or how.mode == "linear"):  # nothing changes, whatever the factor
        return places, np.ones((how.target, 1))
    if how.antialias:
        return _smoothed(how, step, (places + 0.5) * step)
    source = places * step if how.align_corners else (places + 0.5) * step - 0.5
    low = np.minimum(np.floor(source), how.length - 1.0)
    share = np.minimum(source - low, 1.0)[:, None]
    if how.mode == "linear":
        return low.astype(np.int64), np.concatenate((1 - share, share), 1)
    return low.astype(np.int64) - 1, _cubic(np.array([-1.0, 0.0, 1.0, 2.0]) - share, -0.75)


def _smoothed(how: Resampling, step: float, centres: Float[np.ndarray, " target"]) -> _Taps:
    """Where the map shrinks, the kernel is wider by as much; cut off at the ends, its weights sum to 1."""
    wider = max(step, 1.0)
    reach = (1 if how.mode == "linear" else 2) * wider
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    stop = np.minimum((centres + reach + 0.5).astype(np.int64), how.length)
    columns = first[:, None] + np.arange((stop - first).max())
    distance = (columns - centres[:, None] + 0.5) / wider
    shares = np.maximum(1 - abs(distance), 0) if how.mode == "linear" else _cubic(distance, -0.5)
    shares = np.where(columns < stop[:, None], shares, 0.0)
    return first, shares / shares.sum(1, keepdims=True)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = abs(distance)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    return np.where(x <= 1, near, np.where(x < 2, ((x - 5) * x + 8) * x * a - 4 * a, 0.0))
