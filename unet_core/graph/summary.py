"""A graph as a table: what each of its operations answers at a size, its parameters, and what it takes to compute."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unet_core.graph.graph import Graph
from unet_core.graph.node import Node
from unet_core.graph.sizes import evaluate

_SIDE = {2: 256, 3: 64}
"""Pixels a side, by dimensions, of the picture for which a table is made where nobody says another."""


@dataclass(frozen=True)
class SummaryRow:
    """One operation, for one picture."""

    name: str
    operation: str
    shape: tuple[int, ...]
    """Of its answer, in torch's layout."""
    parameters: int
    """Numbers that are trained, where they were not those of an operation before."""
    flop: int
    """Additions and multiplications of convolutions, matrix products and attention; the others take few."""


def summary(graph: Graph, size: Sequence[int] | None = None) -> tuple[SummaryRow, ...]:
    """Every operation of a network in eval mode.

    Args:
        graph: the network.
        size: height and width (depth before them) of the picture; None: the `usual_size`.

    Raises:
        ValueError: the network does not take that size.
    """
    size = size or usual_size(graph)
    graph.check_input(*size, graph.in_channels)
    sizes = graph.sizes_of(1, size)
    shapes = {name: tuple(evaluate(length, sizes) for length in shape) for name, shape in graph.shapes.items()}
    seen: set[str] = set()
    rows = []
    for node in graph.nodes:
        own = {*graph.first_names(node).values()} - seen
        seen |= own
        trained = (graph.tensors[name] for name in own if graph.tensors[name].kind == "parameter")
        parameters = sum(math.prod(tensor.shape) for tensor in trained)
        rows.append(SummaryRow(node.name, node.operation, shapes[node.name], parameters, _flop(graph, node, shapes)))
    return tuple(rows)


def operations(graph: Graph, batch: int, size: Sequence[int], *, training: bool = False) -> int:
    """Additions and multiplications of one forward pass in eval mode, or of one update: those of `SummaryRow.flop`.

    Counted as the network is defined, operation by operation, whatever a framework makes of it: a program that needs
    fewer is faster, and not slower per operation. In an update each operation is made again for every factor that has a
    gradient: nothing needs that of the picture.

    Args:
        graph: the network.
        batch: how many pictures.
        size: height and width (depth before them) of one.
        training: count an update.

    Raises:
        ValueError: the network does not take that size.
    """
    total = 0
    moving: set[str] = set()
    for node, row in zip(graph.nodes, summary(graph, size), strict=True):
        trained = any(graph.tensors[name].kind == "parameter" for name in node.tensors.values())
        inputs = [name in moving for name in node.inputs]
        if trained or any(inputs):
            moving.add(node.name)
        total += row.flop * (1 + training * (trained + sum(inputs)))
    return batch * total


def usual_size(graph: Graph) -> tuple[int, ...]:
    """A size that the network takes, near to that of usual pictures."""
    if graph.sizes.only:
        return graph.sizes.only[0]
    step = graph.sizes.multiple
    side = min(_SIDE[graph.dimensions], graph.sizes.most or _SIDE[graph.dimensions]) // step * step
    return (max(side, graph.minimum_size),) * graph.dimensions


def _flop(graph: Graph, node: Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    inputs = [shapes[name] for name in node.inputs]
    answer = math.prod(shapes[node.name])
    kernel = graph.tensors[node.tensors["weight"]].shape if "weight" in node.tensors else ()
    match node.operation:
        case "convolution" | "linear":
            return 2 * answer * math.prod(kernel[1:])
        case "transposed_convolution":
            return 2 * math.prod(inputs[0]) * math.prod(kernel[1:])
        case "matmul":
            return 2 * answer * inputs[0][-1]
        case "attention":
            queries, width = math.prod(inputs[0][:-1]), inputs[0][-1] + inputs[2][-1]
            return 2 * queries * inputs[1][-2] * width
    return 0
