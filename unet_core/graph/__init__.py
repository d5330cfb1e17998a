"""A network as a graph: its nodes, the table of operations, sizes as expressions. NumPy only."""

from unet_core.graph.graph import Graph
from unet_core.graph.node import INPUT, Node, Sizes, Tensor
from unet_core.graph.operations import OPERATIONS
from unet_core.graph.sizes import Size

__all__ = ["INPUT", "OPERATIONS", "Graph", "Node", "Size", "Sizes", "Tensor"]
