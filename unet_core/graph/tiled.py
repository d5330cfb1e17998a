"""A network on a tile of a picture, as if it ran on the whole: a graph of its own, the same for all tiles.

A tile of its own is another picture. With aligned corners, bilinear upsampling depends on the size of the whole; and
what lies beyond the whole picture's end is zero to every convolution. So the graph of a tile takes the whole picture's
weights of each interpolation, and where each map ends, as tensors; they are all that differs between tiles, and between
pictures. Its answer is exact but near those edges of the tile that lie inside the picture (`reach`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from unet_core.graph.graph import Graph, pruned
from unet_core.graph.node import INPUT, Node, Sizes, Tensor
from unet_core.graph.regions import Maps, Size, filler
from unet_core.graph.scales import unbounded

Maker = Callable[[int, bool], np.ndarray]
"""Makes a tensor for the tile that begins at this pixel of an axis, and for maps in float64 or not."""

_ROLES = ("slices", "rows", "columns")
"""Of the tensors along depth, height and width, in the operations that take such."""


@dataclass(frozen=True)
class TilePlan:
    """How the tiles of a picture are computed."""

    graph: Graph
    """What computes a tile."""
    makers: tuple[Mapping[str, Maker], ...]
    """Of the tensors that the graph has beside the network's, along each axis."""

    def tensors(self, start: tuple[int, ...], *, double: bool = False) -> dict[str, np.ndarray]:
        """Those tensors, for the tile that begins at these pixels.

        Args:
            start: its first pixel along each axis, multiples of `unit(graph)` of the network.
            double: whether the maps are in float64, in which torch finds the nearest points otherwise.
        """
        pairs = zip(start, self.makers, strict=True)
        return {name: make(first, double) for first, makers in pairs for name, make in makers.items()}


@lru_cache(16)
def tile_plan(graph: Graph, size: Size, tile: Size) -> TilePlan:
    """How the tiles of a picture are computed.

    Args:
        graph: the network.
        size: of the picture, in pixels.
        tile: of each tile, which may end beyond the picture: zero must then lie there.

    Raises:
        UNetError: a network that cannot be computed in tiles.
    """
    maps = Maps(graph, size, tile)
    if size == tile:
        return TilePlan(graph, ({},) * graph.dimensions)
    builder = _Builder(maps)
    return TilePlan(builder.built(), builder.makers)


class _Builder:
    def __init__(self, maps: Maps) -> None:
        self.maps, self.graph = maps, maps.graph
        self.unbounded = unbounded(self.graph) or any(filler(self.graph, node) == -math.inf for node in maps.nodes)
        self.nodes: dict[str, Node] = {}
        self.tensors: dict[str, Tensor] = {}
        self.makers: tuple[dict[str, Maker], ...] = tuple({} for _ in range(self.graph.dimensions))
        self.roles = _ROLES[-self.graph.dimensions :]
        self.at: dict[str, str] = {INPUT: INPUT}
        """The node of the tile that answers what a node of the network does."""
        self.of = {name: name for name in maps.spreads}
        """Of which map a node of the tile answers a part."""
        self.empty = {INPUT}
        """The nodes whose answers are zero beyond the end of the whole map."""
        self.ends: dict[Any, str] = {}

    def built(self) -> Graph:
        for node in self.maps.nodes:
            if node.name in self.maps.spreads:
                self.at[node.name] = self.mapped(node)
            else:
                self.at[node.name] = self.add(dataclasses.replace(node, attributes=node.at(self.maps.sizes)))
        nodes = tuple(pruned(tuple(self.nodes.values()), self.at[self.maps.nodes[-1].name]))
        tensors = {**self.graph.tensors, **self.tensors}
        only = Sizes(only=(self.maps.tile,))
        return Graph(self.graph.in_channels, nodes, tensors, dimensions=self.graph.dimensions, sizes=only)

    def add(self, node: Node) -> str:
        self.nodes[node.name] = node
        return node.name

    def derived(self, name: str, of: str, operation: str, **more: Any) -> str:
        """One more node that answers a part of the same map."""
        self.of[name] = self.of[of]
        return self.add(Node(name, operation, (of,), **more))

    def mapped(self, node: Node) -> str:
        maps, value = self.maps, filler(self.graph, node)
        if node.operation == "interpolate" and self.unbounded:
            value = 0.0  # weights of zero do not leave out what is no finite number
        inputs = tuple(
            self.emptied(self.at[name], value) if value is not None and name in maps.spreads else self.at[name]
            for name in node.inputs
        )
        if maps.table(node, 0) is not None:
            return self.interpolated(node, inputs[0])
        if node.operation in ("pad", "slice"):
            return self.moved(node, inputs[0], value)
        if node.operation == "concatenate" and self.empty.issuperset(inputs):
            self.empty.add(node.name)
        return self.add(dataclasses.replace(node, inputs=inputs, attributes=node.at(maps.sizes)))

    def moved(self, node: Node, x: str, value: float | None) -> str:
        """A padding or slice, which begins where that of the whole picture does."""
        maps, attributes, axes = self.maps, node.at(self.maps.sizes), self.maps.spreads[node.name].axes
        had = list(maps.part[node.inputs[0]])
        if node.operation == "slice":
            if attributes["axis"] % len(self.graph.shapes[node.name]) in axes:
                axis = axes.index(attributes["axis"] % len(self.graph.shapes[node.name]))
                places = range(attributes["start"], had[axis], attributes["step"])[: maps.part[node.name][axis]]
                attributes["stop"] = places[-1] + 1
                had[axis] = len(places)
            self.add(dataclasses.replace(node, inputs=(x,), attributes=attributes))
            return self.fitted(node.name, tuple(had))
        amounts = list(attributes["amounts"])
        for axis, place in enumerate(axes):
            before = amounts[place][0]
            amounts[place] = before, maps.part[node.name][axis] - had[axis] - before
        if value == 0 and all(min(pair) >= 0 for pair in attributes["amounts"]):
            self.empty.add(node.name)
        return self.add(dataclasses.replace(node, inputs=(x,), attributes=attributes | {"amounts": tuple(amounts)}))

    def interpolated(self, node: Node, x: str) -> str:
        """A node that interpolates, or pads with the map itself, by weights that it is given."""
        maps, name, source = self.maps, node.name, node.inputs[0]
        had, roles = [], {}
        for axis, role in enumerate(self.roles):
            table, points = maps.table(node, axis), maps.part[source][axis]
            had.append(points * table.factor if table and table.factor else maps.part[name][axis])

            def make(start: int, double: bool, axis: int = axis, points: int = points) -> np.ndarray:
                table = maps.table(node, axis, double=double)
                base, below = maps.base(name, axis, start), maps.base(source, axis, start)
                assert table is not None
                return table.cut((base, base + had[axis]), (below, below + points))

            roles[role] = self.tensor(axis, make)
        mode = node.attributes["mode"] if node.operation == "interpolate" else "nearest"
        if node.operation == "interpolate":
            self.empty.add(name)
        self.add(Node(name, "interpolate", (x,), roles, {"mode": mode, "size": tuple(had)}))
        return self.fitted(name, tuple(had))

    def fitted(self, x: str, had: Size) -> str:
        """The answer of a node, of that size, with as many points as there must be."""
        spread, wanted = self.maps.spreads[x], self.maps.part[x]
        if had == wanted:
            return x
        amounts = [(0, 0)] * len(self.graph.shapes[x])
        for axis, place in enumerate(spread.axes):
            amounts[place] = 0, wanted[axis] - had[axis]
        fitted = self.derived(f"{x} fitted", x, "pad", attributes={"amounts": tuple(amounts)})
        self.empty |= {fitted} if x in self.empty else set()
        return fitted

    def tensor(self, axis: int, make: Maker) -> str:
        name = f"tile {self.roles[axis]} {len(self.makers[axis])}"
        self.tensors[name] = Tensor(make(0, False).shape, "buffer")
        self.makers[axis][name] = make
        return name

    def emptied(self, x: str, value: float) -> str:
        """The same, with a value beyond the end of the whole map."""
        if value == 0 and x in self.empty:
            return x
        node, name = self.nodes.get(x), f"{x} inside {value}"
        if name in self.nodes:
            return name
        if node is not None and node.operation == "concatenate":
            self.of[name] = self.of[x]
            self.add(
                dataclasses.replace(node, name=name, inputs=tuple(self.emptied(part, value) for part in node.inputs))
            )
        else:
            roles = {
                role: self.end(self.of[x], axis)
                for axis, role in enumerate(self.roles)
                if self.maps.size[axis] != self.maps.tile[axis]
            }
            self.derived(name, x, "inside", tensors=roles, attributes={"value": value})
        self.empty |= {name} if value == 0 else set()
        return name

    def end(self, name: str, axis: int) -> str:
        """The tensor that says where the whole map begins and ends, seen from that of the tile."""
        maps, spread = self.maps, self.maps.spreads[name]
        key = axis, spread.rates[axis], self.graph.shapes[name][spread.axes[axis]]
        if key not in self.ends:

            def make(start: int, _: bool) -> np.ndarray:
                begin = maps.base(name, axis, start)
                return np.array([-begin, maps.whole[name][axis] - begin], np.int32)

            self.ends[key] = self.tensor(axis, make)
        return self.ends[key]
