"""The convolution of an upsampled map, done at the low resolution (`unet_jax.kernels.upsampled`)."""

import dataclasses

from jax import Array

from unet_core.graph import Graph, Node
from unet_jax.execution import Tensors
from unet_jax.rewrites.patterns import is_3x3


def at_low_resolution(graph: Graph, tensors: Tensors) -> tuple[Graph, dict[str, Array]]:
    """The network with an `upsampled_convolution` for each interpolation that a 3x3 convolution alone takes.

    In between there may be a padding with zeros. Which sizes it pays for, that operation decides when it runs.
    """
    uses = graph.uses()
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        source = nodes.get(node.inputs[0]) if node.inputs else None
        if source is not None and is_3x3(graph, node) and uses[source.name] == 1:
            border = None
            if _pads_zeros(source) and uses[source.inputs[0]] == 1:
                border, source = source, nodes.get(source.inputs[0])
            if source is not None and _interpolates(source):
                for gone in (border, source):
                    if gone is not None:
                        del nodes[gone.name]
                node = _merged(node, source, border)
        nodes[node.name] = node
    return dataclasses.replace(graph, nodes=tuple(nodes.values()), training=None), dict(tensors)


def _interpolates(node: Node) -> bool:
    return node.operation == "interpolate" and not node.attributes["antialias"]


def _pads_zeros(node: Node) -> bool:
    if node.operation != "pad" or node.attributes["mode"] != "constant" or node.attributes["value"] != 0:
        return False
    return node.attributes["amounts"][:2] == ((0, 0), (0, 0))


def _merged(node: Node, source: Node, border: Node | None) -> Node:
    attributes = {name: source.attributes[name] for name in ("mode", "size", "scale", "align_corners")}
    if border is not None:
        attributes["border"] = border.attributes["amounts"][2:]
    return Node(
        node.name, "upsampled_convolution", source.inputs, dict(node.tensors) | dict(source.tensors), attributes
    )
