"""Kernels as XLA computes with them on a CPU, spatial axes first, once and not at every call."""

from jax import Array

from unet_core.graph import Graph
from unet_jax.execution import KERNELS, Tensors, spatial_first


def prepared(graph: Graph, tensors: Tensors) -> dict[str, Array]:
    """The tensors for `execute(..., prepared=True)`."""
    found = dict(tensors)
    for node in graph.nodes:
        if node.operation in KERNELS:
            name = graph.first_names(node)["weight"]
            found[name] = spatial_first(node, tensors[name])
    return found
