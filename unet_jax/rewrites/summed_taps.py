"""The taps of wide 3x3 convolutions summed beforehand, for a CPU (`unet_jax.kernels.winograd`)."""

from jax import Array

from unet_core.graph import Graph, Node, Tensor
from unet_core.graph.folding import rewritten_as
from unet_jax.execution import Tensors, spatial_first
from unet_jax.kernels.winograd import saves, summed_taps
from unet_jax.rewrites.patterns import is_3x3


def with_summed_taps(graph: Graph, tensors: Tensors) -> tuple[Graph, dict[str, Array]]:
    """The network with a `summed_convolution` for each convolution that is faster by it; for prediction alone."""
    specs, found = dict(graph.tensors), dict(tensors)
    nodes = []
    for node in graph.nodes:
        far = node.attributes.get("dilation", (1,))[0]
        if is_3x3(graph, node, far) and saves(*specs[node.tensors["weight"]].shape[:2]):
            weight = graph.first_names(node)["weight"]
            sums = summed_taps(spatial_first(node, found[weight]))
            roles = {f"taps{number}": f"{weight}+{number}" for number in range(len(sums))}
            for name, array in zip(roles.values(), sums, strict=True):
                specs[name], found[name] = Tensor(array.shape, "parameter"), array
            roles |= {"bias": node.tensors["bias"]} if "bias" in node.tensors else {}
            node = Node(node.name, "summed_convolution", node.inputs, roles, {"far": far} if far > 1 else {})
        nodes.append(node)
    return rewritten_as(graph, nodes, specs, found)
