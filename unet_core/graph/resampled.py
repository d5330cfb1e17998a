"""What each point along an axis is made of where a map is interpolated or padded with itself, cut to a tile."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from unet_core.graph.resampling import Resampling, sources

Interval = tuple[int, int]
"""The first point, and the one behind the last."""


class Table(NamedTuple):
    """Of one axis of a whole map."""

    columns: Int[np.ndarray, "target taps"]
    """The points that each target takes something of."""
    shares: Float[np.ndarray, "target taps"] | None
    """How much of each; None: of the only one all."""
    factor: int = 0
    """So many targets each point makes out of itself and its neighbours; 0: that is not how it is.

    Of two targets the first draws on nothing behind the point.
    """
    radius: int = 0
    """How many neighbours on either side."""

    def drawn(self, targets: Interval) -> Interval | None:
        """The points that some of the targets draw on; None where none of them lies in the map."""
        part = slice(max(targets[0], 0), max(targets[1], 0))
        columns = self.columns[part]
        if self.shares is not None:
            columns = columns[self.shares[part] != 0]
        return (int(columns.min()), int(columns.max()) + 1) if columns.size else None

    def cut(self, targets: Interval, points: Interval) -> Shaped[np.ndarray, " *form"]:
        """What makes these targets of these points, in a form that `interpolate` takes; zero beyond the map.

        Targets that draw on other points as well mean nothing.
        """
        inside = np.arange(max(targets[0], 0), max(min(targets[1], len(self.columns)), targets[0], 0))
        places, columns = inside - targets[0], self.columns[inside]
        count = points[1] - points[0]
        if self.shares is None:
            index = np.zeros(targets[1] - targets[0], np.int32)
            index[places] = np.clip(columns[:, 0] - points[0], 0, count - 1)
            return index
        row, tap = np.nonzero(self.shares[inside])
        place, point, share = places[row], columns[row, tap] - points[0], self.shares[inside][row, tap]
        if self.factor:
            taps = np.zeros((count, self.factor, 2 * self.radius + 1))
            centre = place // self.factor
            np.add.at(taps, (centre, place % self.factor, point - centre + self.radius), share)
            return taps
        matrix, here = np.zeros((targets[1] - targets[0], count)), (point >= 0) & (point < count)
        np.add.at(matrix, (place[here], point[here]), share[here])
        return matrix


def interpolated(how: Resampling, factor: int) -> Table:
    """Of an interpolation.

    Args:
        how: it interpolates.
        factor: how many points it makes of one, but for those that an odd size has more or less; 0: no whole number.
    """
    columns, shares = sources(how)
    radius = 2 if how.mode == "cubic" else 1
    away = columns - np.arange(how.target)[:, None] // max(factor, 1)
    after = np.array([0 if factor == 2 else radius, *[radius] * (max(factor, 1) - 1)])
    beyond = (away < -radius) | (away > after[np.arange(how.target) % max(factor, 1)][:, None])
    if not factor or beyond[shares != 0].any():
        return Table(columns, shares)
    return Table(columns, shares, factor, radius)


def reflected(length: int, before: int, after: int, mode: str) -> Table:
    """Of a padding with the map's own points; below zero, what is cut off."""
    places = np.arange(-before, length + after)
    if mode == "reflect":
        places = length - 1 - abs(length - 1 - abs(places))
    return Table(np.clip(places, 0, length - 1)[:, None], None)
