"""Which networks can be computed in tiles: those whose operations each draw on what lies near, and at which scale."""

from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import NamedTuple

from unet_core.errors import UNetError
from unet_core.graph.graph import Graph, pruned
from unet_core.graph.node import INPUT, Node
from unet_core.graph.operations import FUNCTIONS
from unet_core.graph.sizes import AXES, Dim, evaluate

LARGEST_UNIT = 512
"""Pixels, of the coarsest grid on which tiles may begin."""

_FAR = 2**14 * 3**4 * 5**2 * 7
"""A size that the divisors of all usual networks divide."""

_ELEMENTWISE = frozenset(
    [
        *FUNCTIONS,
        *("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "compare", "where"),
        *("leaky_relu", "elu", "gelu", "softplus", "clamp", "hardtanh", "cast", "dropout"),
    ]
)
_BY_CHANNEL = ("batch_norm", "instance_norm", "prelu")
_ALONG = ("softmax", "log_softmax", "take", "concatenate", "flip", "roll")
_REDUCTIONS = ("mean", "sum", "amax", "amin", "largest", "smallest", "variance", "vector_norm")
_UNBOUNDED = frozenset(["log", "exp", "sqrt", "rsqrt", "reciprocal", "power"])
_WHOLE = "it draws on the whole map at once"


class Spread(NamedTuple):
    """How a map lies over the picture."""

    axes: tuple[int, ...]
    """Where in its shape the picture's axes are."""
    rates: tuple[Fraction, ...]
    """Points of the map for each pixel of the picture, along each of them."""


@lru_cache(16)
def refusal(graph: Graph) -> str:
    """Why the network cannot be computed in tiles, in one line; empty where it can."""
    try:
        spreads(graph)
    except UNetError as error:
        return str(error)
    return ""


def unit(graph: Graph) -> int:
    """Tiles begin at multiples of so many pixels."""
    return lcm(*(rate.denominator for spread in spreads(graph).values() for rate in spread.rates))


def unbounded(graph: Graph) -> bool:
    """Whether some operation may answer what is no finite number, where a map is not the whole picture's."""
    return any(
        node.operation in _UNBOUNDED or (node.operation == "divide" and node.attributes["right"] is None)
        for node in graph.nodes
    )


@lru_cache(16)
def spreads(graph: Graph) -> dict[str, Spread]:
    """How the picture, and the answer of each node that depends on it, lie over the picture.

    Raises:
        UNetError: an operation that draws on more than what lies near.
    """
    whole = Spread(tuple(range(2, graph.dimensions + 2)), (Fraction(1),) * graph.dimensions)
    found = {INPUT: whole}
    for node in pruned(graph.nodes, graph.nodes[-1].name):
        try:
            if node.operation == "chance":
                raise ValueError("it draws at random")
            if any(name in found for name in node.inputs):
                found[node.name] = _spread(graph, node, found)
                if node.operation == "interpolate" and unbounded(graph):
                    before, after = found[node.inputs[0]].rates, found[node.name].rates
                    if any((new / old).denominator != 1 for old, new in zip(before, after, strict=True)):
                        raise ValueError("it sums many points, some of which may be no finite numbers in a tile")
        except ValueError as why:
            raise UNetError(f"node {node.name}, {node.operation}: {why}") from why
    if graph.nodes[-1].name not in found or found[graph.nodes[-1].name].axes != whole.axes:
        raise UNetError(f"node {graph.nodes[-1].name}: it answers no map")
    step = lcm(*(rate.denominator for spread in found.values() for rate in spread.rates))
    if step > LARGEST_UNIT:
        raise UNetError(f"tiles would begin at multiples of {step} pixels")
    return found


def _spread(graph: Graph, node: Node, found: dict[str, Spread]) -> Spread:
    inputs = [found[name] for name in node.inputs if name in found]
    shapes = [graph.shapes[name] for name in node.inputs]
    first, rank = inputs[0], max(map(len, shapes))
    if any(other != first for other in inputs):
        raise ValueError("it joins maps of different scales")
    for name, shape in zip(node.inputs, shapes, strict=True):
        if name in found and len(shape) != rank:
            raise ValueError("it joins maps of different dimensions")
        if name not in found and any(len(shape) >= rank - axis and shape[axis - rank] != 1 for axis in first.axes):
            raise ValueError("it takes a map of a fixed size")
    why = _objection(node, first, rank)
    if why:
        raise ValueError(why)
    if node.operation == "permute":
        order = [axis % rank for axis in node.attributes["axes"]]
        return Spread(tuple(map(order.index, first.axes)), first.rates)
    rates = (rate * _factor(graph, node, axis, first) for axis, rate in enumerate(first.rates))
    return Spread(first.axes, tuple(rates))


def _objection(node: Node, x: Spread, rank: int) -> str:
    """Why the operation is none for tiles; empty where it is."""
    name, attributes = node.operation, node.attributes
    if name in _ELEMENTWISE:
        return "it draws at random" if attributes.get("always") else ""
    if name in (*_ALONG, *_REDUCTIONS):
        axes = attributes.get("axes", (attributes.get("axis"),))
        if any(axis % rank in x.axes for axis in axes):
            return _WHOLE
        return "it drops an axis" if name in _REDUCTIONS and not attributes["keep"] else ""
    if name in ("permute", "slice"):
        return ""
    if name in ("linear", "layer_norm"):
        return _WHOLE if any(axis >= rank - attributes.get("axes", 1) for axis in x.axes) else ""
    if x.axes != tuple(range(2, rank)):
        return "it takes no map with the channels first"
    return _objection_to_maps(node)


def _objection_to_maps(node: Node) -> str:
    name, attributes = node.operation, node.attributes
    if name in _BY_CHANNEL:
        return _WHOLE if name != "prelu" and "mean" not in node.tensors else ""
    if name == "average_pool":
        if attributes["ceil"] or (any(attributes["padding"]) and not attributes["count_padding"]):
            return "it divides by another number at the border"
        return ""
    if name == "pad":
        batch, channels, *around = attributes["amounts"]
        if batch != (0, 0) or (attributes["mode"] != "constant" and channels != (0, 0)):
            return "it pads more than the map"
        if attributes["mode"] == "circular" and any(pair != (0, 0) for pair in around):
            return "it pads with the other end of the map"
        return ""
    known = ("convolution", "transposed_convolution", "max_pool", "interpolate", "pixel_shuffle", "pixel_unshuffle")
    return "" if name in known else _WHOLE


def _factor(graph: Graph, node: Node, axis: int, x: Spread) -> Fraction:
    """Points that it answers for each that it takes, along an axis of the picture."""
    attributes = node.attributes
    match node.operation:
        case "convolution" | "max_pool" | "average_pool":
            return Fraction(1, attributes["stride"][axis])
        case "transposed_convolution":
            return Fraction(attributes["stride"][axis])
        case "pixel_shuffle":
            return Fraction(attributes["factor"])
        case "pixel_unshuffle":
            return Fraction(1, attributes["factor"])
        case "slice" if attributes["axis"] % len(graph.shapes[node.name]) == x.axes[axis]:
            return Fraction(1, attributes["step"])
        case "interpolate" if attributes["size"] is None:
            return Fraction(attributes["scale"][axis])
        case "interpolate":
            before, after = (graph.shapes[name][2 + axis] for name in (node.inputs[0], node.name))
            slopes = [_slope(graph, size, axis) for size in (before, after)]
            if not min(slopes) > 0:
                raise ValueError("it answers a fixed size")
            return slopes[1] / slopes[0]
    return Fraction(1)


def _slope(graph: Graph, size: Dim, axis: int) -> Fraction:
    """By how much it grows with each pixel of the picture."""
    at = []
    for times in (1, 2, 3):
        sizes = dict.fromkeys(AXES, _FAR) | {graph.axes[axis]: times * _FAR}
        at.append(evaluate(size, sizes))
    if at[2] - at[1] != at[1] - at[0]:
        raise ValueError("its size is none that grows evenly with the picture's")
    return Fraction(at[1] - at[0], _FAR)
