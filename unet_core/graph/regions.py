"""The maps of a network on a tile of a picture, and how far from its edges they are those of the whole picture."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from unet_core.graph.graph import Graph, pruned
from unet_core.graph.node import Node
from unet_core.graph.resampled import Interval, Table, interpolated, reflected
from unet_core.graph.resampling import SMALL, Resampling
from unet_core.graph.scales import spreads, unit
from unet_core.graph.sizes import evaluate

_LONG = 2**13
"""Pixels of a tile that all networks take."""

Size = tuple[int, ...]
"""Height and width, before them depth in 3-D."""


class Window(NamedTuple):
    """How a convolution or pool goes along an axis."""

    size: int
    stride: int
    before: int
    after: int
    dilation: int

    @property
    def reach(self) -> int:
        """Points from the first to behind the last of a window."""
        return self.dilation * (self.size - 1) + 1


class Maps:
    """The maps of a whole picture and of its tiles.

    Args:
        graph: the network.
        size: of the picture.
        tile: of the tiles.
    """

    def __init__(self, graph: Graph, size: Size, tile: Size) -> None:
        self.graph, self.size, self.tile = graph, size, tile
        self.spreads = spreads(graph)
        self.nodes = list(pruned(graph.nodes, graph.nodes[-1].name))
        self.sizes = graph.sizes_of(1, size)
        self.whole = self._lengths(self.sizes)
        """The size of each map of the picture."""
        self.part = self._lengths(graph.sizes_of(1, tile))
        """The size of each map of a tile, which begins at the point above which the tile does."""

    def _lengths(self, sizes: Mapping[str, int]) -> dict[str, Size]:
        shapes = self.graph.shapes
        return {
            name: tuple(evaluate(shapes[name][axis], sizes) for axis in spread.axes)
            for name, spread in self.spreads.items()
        }

    def base(self, name: str, axis: int, start: int) -> int:
        """The point of a map above which a tile begins that begins at this pixel."""
        return int(start * self.spreads[name].rates[axis])

    def table(self, node: Node, axis: int, *, double: bool = False) -> Table | None:
        """What a node that interpolates, or pads with the map itself, makes each point along an axis of."""
        if node.operation not in ("interpolate", "pad"):
            return None
        attributes, length = node.at(self.sizes), self.whole[node.inputs[0]][axis]
        if node.operation == "pad":
            before, after = attributes["amounts"][2 + axis]
            mode = attributes["mode"]
            return None if mode == "constant" else reflected(length, before, after, mode)
        rates = (self.spreads[name].rates[axis] for name in (node.name, node.inputs[0]))
        factor = next(rates) / next(rates)
        target, scale = self.whole[node.name], attributes["scale"]
        options: dict[str, Any] = {"align_corners": attributes["align_corners"], "antialias": attributes["antialias"]}
        if attributes["mode"].startswith("nearest"):
            options = {"double": double, "small": len(target) == 2 and sum(target) <= SMALL}
        how = Resampling(attributes["mode"], length, target[axis], None if scale is None else scale[axis], **options)
        return _interpolated(how, int(factor) if factor.denominator == 1 else 0)

    def moved(self, node: Node, axis: int) -> tuple[int, int]:
        """Which point of its input is the first that a padding or slice answers, and how far it is to the next."""
        at, attributes = self.spreads[node.name].axes[axis], node.at(self.sizes)
        if node.operation == "pad":
            return -attributes["amounts"][at][0], 1
        along = attributes["axis"] % len(self.graph.shapes[node.name]) == at
        return (attributes["start"], attributes["step"]) if along else (0, 1)


@lru_cache(256)
def reach(graph: Graph, size: Size) -> tuple[tuple[int, int], ...]:
    """How far from an edge of a tile inside the picture the answer is not that for the whole picture, in pixels.

    Returns:
        At the tile's beginning and at its end, along each axis; multiples of `unit(graph)`.
    """
    step = unit(graph)
    long = -(-_LONG // step) * step
    maps = Maps(graph, size, (long,) * graph.dimensions)
    found = []
    for axis in range(graph.dimensions):
        before = after = 0
        for name, (first, last) in _needed(maps, axis, step).items():
            rate = maps.spreads[name].rates[axis]
            lacking = long * rate - maps.part[name][axis]
            before = max(before, math.ceil(-first / rate / step) * step)
            after = max(after, math.ceil((last - step * rate + lacking) / rate / step) * step)
        found.append((before, after))
    return tuple(found)


def _needed(maps: Maps, axis: int, step: int) -> dict[str, Interval]:
    """What `step` pixels of the answer draw on in each map, counted from the point above the first of them."""
    last = maps.nodes[-1].name
    needed: dict[str, Interval] = {last: (0, int(step * maps.spreads[last].rates[axis]))}
    for node in reversed(maps.nodes):
        for name in maps.spreads.keys() & node.inputs:
            taken = _taken(maps, node, axis, needed[node.name], step)
            needed[name] = _hull(taken, needed.get(name, taken))
    return needed


def _taken(maps: Maps, node: Node, axis: int, needed: Interval, step: int) -> Interval:
    """What points of a node's answer draw on in its inputs."""
    first, last = needed
    factor = node.attributes.get("factor", 1)
    if (window := window_of(maps.graph, node, axis)) is not None:
        if node.operation == "transposed_convolution":
            begin = -(-(first + window.before - window.reach + 1) // window.stride)
            return begin, (last - 1 + window.before) // window.stride + 1
        begin = first * window.stride - window.before
        return begin, begin + (last - 1 - first) * window.stride + window.reach
    if (table := maps.table(node, axis)) is not None:
        if not table.factor:
            return _drawn(maps, node, axis, needed, step)
        return first // table.factor - table.radius, (last - 1) // table.factor + table.radius + 1
    match node.operation:
        case "pixel_shuffle":
            return first // factor, -(-last // factor)
        case "pixel_unshuffle":
            return first * factor, last * factor
        case "pad" | "slice":
            start, apart = maps.moved(node, axis)
            return first * apart + start, (last - 1) * apart + start + 1
    return needed


def _drawn(maps: Maps, node: Node, axis: int, needed: Interval, step: int) -> Interval:
    """The hull of what all such parts of the answer draw on, each counted from its beginning."""
    found = []
    for start in range(0, maps.size[axis], step):
        base, below = maps.base(node.name, axis, start), maps.base(node.inputs[0], axis, start)
        for double in (False, True):
            table = maps.table(node, axis, double=double)
            part = table and table.drawn((base + needed[0], base + needed[1]))
            if part is not None:
                found.append((part[0] - below, part[1] - below))
    return _hull(*found) if found else needed


_interpolated = lru_cache(256)(interpolated)


def window_of(graph: Graph, node: Node, axis: int) -> Window | None:
    """That of a convolution or pool; None of other operations."""
    attributes = node.attributes
    if "convolution" in node.operation:
        size = graph.tensors[node.tensors["weight"]].shape[2 + axis]
    elif node.operation in ("max_pool", "average_pool"):
        size = attributes["window"][axis]
    else:
        return None
    padding = attributes["padding"][axis]
    before, after = padding if isinstance(padding, tuple) else (padding, padding)
    dilation = attributes["dilation"][axis] if "dilation" in attributes else 1
    return Window(size, attributes["stride"][axis], before, after, dilation)


def filler(graph: Graph, node: Node) -> float | None:
    """What lies beyond the ends of the maps that a node takes; None where it draws on nothing there."""
    attributes = node.attributes
    if node.operation == "pad" and attributes["mode"] == "constant":
        amounts = (amount for pair in attributes["amounts"][2:] for amount in pair)
        return None if all(isinstance(amount, int) and amount <= 0 for amount in amounts) else attributes["value"]
    windows: Sequence[Window | None] = [window_of(graph, node, axis) for axis in range(graph.dimensions)]
    for axis, window in enumerate(windows):
        if window is None:
            return None
        if node.operation == "transposed_convolution":
            if window.reach - 1 + attributes["output_padding"][axis] - window.before >= window.stride:
                return 0.0
        elif window.before > 0 or window.after > 0 or attributes.get("ceil"):
            return -math.inf if node.operation == "max_pool" else 0.0
    return None


def _hull(one: Interval, *more: Interval) -> Interval:
    """The shortest interval in which all lie."""
    ends = (one, *more)
    return min(first for first, _ in ends), max(last for _, last in ends)
