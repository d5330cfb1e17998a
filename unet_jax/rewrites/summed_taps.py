"""The taps of wide 3x3 convolutions summed beforehand, for a CPU (`unet_jax.kernels.winograd`)."""

import dataclasses

from jax import Array

from unet_core.graph import Graph, Node, Tensor
from unet_jax.execution import Tensors, spatial_first
from unet_jax.kernels.winograd import saves, summed_taps


def with_summed_taps(graph: Graph, tensors: Tensors) -> tuple[Graph, dict[str, Array]]:
    """The network with a `summed_convolution` for each convolution that is faster by it; for prediction alone."""
    plain = {"stride": (1, 1), "padding": ((1, 1),) * 2, "dilation": (1, 1), "groups": 1}
    specs, found = dict(graph.tensors), dict(tensors)
    nodes = []
    for node in graph.nodes:
        weight = node.tensors.get("weight", "")
        shape = specs[weight].shape if weight else ()
        if (
            node.operation == "convolution"
            and dict(node.attributes) == plain
            and shape[2:] == (3, 3)
            and saves(*shape[:2])
        ):
            sums = summed_taps(spatial_first(node, found[specs[weight].same_as or weight]))
            roles = {f"taps{number}": f"{weight}+{number}" for number in range(len(sums))}
            for name, array in zip(roles.values(), sums, strict=True):
                specs[name], found[name] = Tensor(array.shape, "parameter"), array
            roles |= {"bias": node.tensors["bias"]} if "bias" in node.tensors else {}
            node = Node(node.name, "summed_convolution", node.inputs, roles)
        nodes.append(node)
    used = {name for node in nodes for name in node.tensors.values()}
    used |= {specs[name].same_as or name for name in used}
    specs = {name: tensor for name, tensor in specs.items() if name in used}
    made = dataclasses.replace(graph, nodes=tuple(nodes), tensors=specs, training=None)
    return made, {name: array for name, array in found.items() if name in used}
