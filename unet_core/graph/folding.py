"""BatchNorm, as it predicts, as a part of the convolution before it; on arrays of NumPy or of JAX.

Exact but for rounding: scale * (kernel * x + bias - mean) + shift is the convolution of x with the scaled kernel.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unet_core.graph.graph import Graph
from unet_core.graph.node import Node, Tensor

Array = Any
Arrays = Mapping[str, Array]
InverseDeviation = Callable[[Array, float], Array]
"""Of a variance and an epsilon, 1 / sqrt(variance + epsilon)."""

_CHANNELS = {"convolution": 0, "transposed_convolution": 1}
"""The axis of the kernel that the answer's channels lie along; in groups, of a transposed one, not alone."""


def folded(graph: Graph, tensors: Arrays, inverse_deviation: InverseDeviation) -> tuple[Graph, dict[str, Array]]:
    """The network in eval mode, with the BatchNorms that follow a convolution alone folded into its kernel and bias.

    `inverse_deviation` takes the root. A BatchNorm stays where others take the convolution's answer as well, or other
    nodes the same kernel.
    """
    takers = Counter(name for node in graph.nodes for name in node.inputs)
    users = Counter(name for node in graph.nodes for name in graph.first_names(node).values())
    before = {node.name: node for node in graph.nodes}
    found = dict(tensors)
    specs = dict(graph.tensors)
    gone: set[str] = set()
    nodes: list[Node] = []
    for node in graph.nodes:
        source = before.get(node.inputs[0]) if node.inputs else None
        if (
            node.operation != "batch_norm"
            or source is None
            or "mean" not in node.tensors
            or not _alone(graph, source, takers, users)
        ):
            nodes.append(node)
            continue
        own = graph.first_names(source)
        weight, bias = own["weight"], own.get("bias")
        of = {role: found[name] for role, name in graph.first_names(node).items()}
        scale, shift = _predicting(node, of, inverse_deviation)
        kernel = found[weight].astype(scale.dtype)
        along = [1] * kernel.ndim
        along[_CHANNELS[source.operation]] = -1
        if bias is not None:
            shift = shift + found[bias].astype(scale.dtype) * scale
        name = f"{node.name}.folded"
        found[weight] = (kernel * scale.reshape(along)).astype(found[weight].dtype)
        found[name] = shift.astype(found[weight].dtype)
        specs[name] = Tensor(tuple(shift.shape), "parameter")
        gone.add(source.name)
        nodes.append(
            Node(node.name, source.operation, source.inputs, {"weight": weight, "bias": name}, source.attributes)
        )
    return rewritten_as(graph, [node for node in nodes if node.name not in gone], specs, found)


def _alone(graph: Graph, source: Node, takers: Counter[str], users: Counter[str]) -> bool:
    """Whether the BatchNorm behind a convolution is the only one that takes its answer, and it its kernel."""
    if source.operation not in _CHANNELS or takers[source.name] != 1:
        return False
    if source.operation == "transposed_convolution" and source.attributes["groups"] != 1:
        return False
    return all(users[name] == 1 for name in graph.first_names(source).values())


def _predicting(norm: Node, of: Arrays, inverse_deviation: InverseDeviation) -> tuple[Array, Array]:
    """What a BatchNorm with these tensors, by role, multiplies by, and adds, in eval mode; in float32 at least."""
    kind = np.promote_types(np.float32, of["mean"].dtype)
    scale = inverse_deviation(of["variance"].astype(kind), norm.attributes["epsilon"])
    if "weight" in of:
        scale = scale * of["weight"].astype(kind)
    shift = -of["mean"].astype(kind) * scale
    return scale, shift + of["bias"].astype(kind) if "bias" in of else shift


def rewritten_as(
    graph: Graph, nodes: Sequence[Node], specs: Mapping[str, Tensor], tensors: Arrays
) -> tuple[Graph, dict[str, Array]]:
    """The graph with other nodes, and of these tensors those that they need."""
    names = {name for node in nodes for name in node.tensors.values()}
    names |= {specs[name].same_as or name for name in names}
    kept = {name: tensor for name, tensor in specs.items() if name in names}
    made = dataclasses.replace(graph, nodes=tuple(nodes), tensors=kept, training=None)
    return made, {name: array for name, array in tensors.items() if name in names}
