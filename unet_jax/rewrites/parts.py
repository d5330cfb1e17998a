"""The convolution of a concatenation as the sum of the convolutions of its parts: the joint map is never made.

Exact but for rounding: a convolution sums over its input's channels.
"""

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
from jax import Array
from jaxtyping import Shaped

from unet_core.graph import Graph, Node, Tensor
from unet_core.graph.folding import rewritten_as
from unet_jax.execution import Tensors


def in_parts(graph: Graph, tensors: Tensors) -> tuple[Graph, dict[str, Array]]:
    """The network with such convolutions taken apart, where that costs less.

    A concatenation stays where others take its answer as well, and where the answers of the parts, which are summed,
    are more numbers than the joint map.
    """
    uses = graph.uses()
    joints = {
        node.name: node
        for node in graph.nodes
        if node.operation == "concatenate"
        and node.attributes["axis"] in (1, -graph.dimensions - 1)
        and uses[node.name] == 1
    }
    nodes: dict[str, Node] = {}
    specs, found = dict(graph.tensors), dict(tensors)
    for node in graph.nodes:
        joint = joints.get(node.inputs[0]) if node.operation == "convolution" else None
        if joint is None or not _pays(graph, joint, node):
            nodes[node.name] = node
            continue
        del nodes[joint.name]
        weight, total = graph.first_names(node)["weight"], ""
        for first, last, name in _channels(graph, joint):
            part = f"{weight}[{first}:{last}]"
            out, _, *window = specs[weight].shape
            specs[part] = Tensor((out, last - first, *window), "parameter")
            found[part] = part_of(found[weight], first, last)
            roles = {"weight": part} | ({"bias": node.tensors["bias"]} if "bias" in node.tensors and not first else {})
            convolved = Node(f"{node.name}[{first}:{last}]", "convolution", (name,), roles, node.attributes)
            nodes[convolved.name] = convolved
            before, total = total, f"{node.name}[:{last}]" if first else convolved.name
            if first:
                nodes[total] = Node(total, "add", (before, convolved.name))
        nodes[node.name] = dataclasses.replace(nodes.pop(total), name=node.name)
    return rewritten_as(graph, list(nodes.values()), specs, found)


def part_of(kernel: Shaped[Array, "d c *window"], first: int, last: int) -> Shaped[Array, "d part *window"]:
    """Its part for these channels of the map, cut where its window comes first.

    A state has its kernels so (`unet_jax.training.layout`): the parts' gradients, which are put together the same way,
    meet it as they lie, and the optimiser reads no number of the whole kernel across its memory.
    """
    laid = jnp.moveaxis(kernel, (1, 0), (-2, -1))[..., first:last, :]
    return jnp.moveaxis(laid, (-2, -1), (1, 0))


def _channels(graph: Graph, joint: Node) -> Iterator[tuple[int, int, str]]:
    """Of each part the first channel in the joint map, the one behind its last, and its name."""
    first = 0
    for name in joint.inputs:
        count = graph.shapes[name][1]
        assert isinstance(count, int)
        yield first, first + count, name
        first += count


def _pays(graph: Graph, joint: Node, node: Node) -> bool:
    channels, out = (graph.shapes[name][1] for name in (joint.name, node.name))
    assert isinstance(channels, int)
    assert isinstance(out, int)
    return node.attributes["groups"] == 1 and len(joint.inputs) > 1 and len(joint.inputs) * out <= channels
