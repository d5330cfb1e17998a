"""What several rewrites look for, and what all leave behind."""

import dataclasses
from collections.abc import Mapping, Sequence

from jax import Array

from unet_core.graph import Graph, Node, Tensor
from unet_jax.execution import Tensors


def is_3x3(graph: Graph, node: Node, far: int = 1) -> bool:
    """Whether a node is a 3x3 convolution that keeps height and width, with taps so far apart."""
    still = {"stride": (1, 1), "padding": ((far, far),) * 2, "dilation": (far, far), "groups": 1}
    if node.operation != "convolution" or dict(node.attributes) != still:
        return False
    return graph.tensors[node.tensors["weight"]].shape[2:] == (3, 3)


def rewritten_as(
    graph: Graph, nodes: Sequence[Node], specs: Mapping[str, Tensor], tensors: Tensors
) -> tuple[Graph, dict[str, Array]]:
    """The graph with other nodes, and of these tensors those that they need."""
    names = {name for node in nodes for name in node.tensors.values()}
    names |= {specs[name].same_as or name for name in names}
    kept = {name: tensor for name, tensor in specs.items() if name in names}
    made = dataclasses.replace(graph, nodes=tuple(nodes), tensors=kept, training=None)
    return made, {name: array for name, array in tensors.items() if name in names}
