"""A network without chance: what two frameworks, which draw otherwise, can be compared on in training mode."""

import dataclasses

from unet_core.graph.graph import Graph
from unet_core.graph.node import Node


def settled(graph: Graph) -> Graph:
    """The same network, but that nothing in it is drawn at random: dropout drops nothing."""
    training = None if graph.training is None else settled(graph.training)
    return dataclasses.replace(graph, nodes=tuple(map(_settled, graph.nodes)), training=training)


def _settled(node: Node) -> Node:
    if node.operation == "chance":
        value = 0.5 if node.attributes["probability"] is None else 1.0
        return Node(node.name, "full", attributes={"shape": node.attributes["shape"], "value": value})
    if node.attributes.get("rate"):
        return dataclasses.replace(node, attributes={**node.attributes, "rate": 0.0})
    return node


def draws(graph: Graph, *, training: bool) -> bool:
    """Whether the network draws at random in this mode."""
    return any(
        node.operation == "chance" or (node.attributes.get("rate") and (training or node.attributes.get("always")))
        for node in graph.in_mode(training=training).nodes
    )
