"""What several rewrites look for."""

from unet_core.graph import Graph, Node


def is_3x3(graph: Graph, node: Node, far: int = 1) -> bool:
    """Whether a node is a 3x3 convolution that keeps height and width, with taps so far apart."""
    still = {"stride": (1, 1), "padding": ((far, far),) * 2, "dilation": (far, far), "groups": 1}
    if node.operation != "convolution" or dict(node.attributes) != still:
        return False
    return graph.tensors[node.tensors["weight"]].shape[2:] == (3, 3)
