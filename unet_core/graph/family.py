"""The graph of a UNet of this project's family, block by block, as `unet_torch.UNet` computes it."""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from unet_core.config import Block, UNetConfig
from unet_core.graph.graph import Graph
from unet_core.graph.node import INPUT, Kind, Node, Sizes, Tensor
from unet_core.graph.operations import OPERATIONS, Role
from unet_core.graph.sizes import Shape, named


@lru_cache(256)
def graph(config: UNetConfig) -> Graph:
    """What a network of this config computes: the same graph as is read from its torch module."""
    return _Builder(config).built()


def graph_of(description: UNetConfig | Graph) -> Graph:
    """What a network of this description computes."""
    return description if isinstance(description, Graph) else graph(description)


def renamed(network: Graph, names: Mapping[str, str]) -> Graph:
    """The same graph, with other names for its tensors, and for the nodes that are called as the layers of these.

    Args:
        network: the graph.
        names: the new name of every tensor.
    """
    layers = {old.rpartition(".")[0]: new.rpartition(".")[0] for old, new in names.items()}
    nodes = (
        dataclasses.replace(
            node,
            name=layers.get(node.name, node.name),
            inputs=tuple(layers.get(name, name) for name in node.inputs),
            tensors={role: names[name] for role, name in node.tensors.items()},
        )
        for node in network.nodes
    )
    tensors = {names[name]: tensor for name, tensor in network.tensors.items()}
    return dataclasses.replace(network, nodes=tuple(nodes), tensors=tensors)


class _Builder:
    def __init__(self, config: UNetConfig) -> None:
        self.config = config
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {INPUT: (named("batch"), config.in_channels, named("height"), named("width"))}

    def built(self) -> Graph:
        config = self.config
        x = INPUT
        skips: list[str] = []
        for block in config.encoder_blocks:
            if skips:
                x = self.add("max_pool", x, window=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1))
            x = self.double_convolution(block, x)
            skips.append(x)
        skips.pop()
        for block in config.decoder_blocks:
            x = self.double_convolution(block, self.joined(block, x, skips.pop()))
        x = self.convolution("out", x, config.out_channels, 1, bias=True)
        if config.output == "softmax":
            self.add("softmax", x, axis=1)
        elif config.output == "sigmoid":
            self.add("sigmoid", x)
        return Graph(config.in_channels, tuple(self.nodes), self.tensors, sizes=Sizes(least=config.minimum_size))

    def double_convolution(self, block: Block, x: str) -> str:
        """(3x3 convolution, normalisation, ReLU) twice."""
        for place, channels in ((0, block.middle), (3, block.after)):
            x = self.convolution(f"{block.name}.conv.{place}", x, channels, 3, bias=self.config.conv_bias)
            x = self.normalised(f"{block.name}.conv.{place + 1}", x, channels)
            x = self.add("relu", x, name=f"{block.name}.conv.{place + 2}")
        return x

    def joined(self, block: Block, x: str, skip: str) -> str:
        """The map from below, upsampled to the size of the skip connection, and that, side by side."""
        config = self.config
        below, size = self.shapes[x][2:], self.shapes[skip][2:]
        doubled = tuple(2 * length for length in below)
        if block.up is not None:
            x = self.upsampling_convolution(f"{block.name}.up", x, block.up[1])
        elif config.fit == "pad":
            x = self.interpolated(x, doubled)
        if config.fit == "pad":
            lacking = [length - had for length, had in zip(size, doubled, strict=True)]
            amounts = ((0, 0), (0, 0), *((less // 2, less - less // 2) for less in lacking))
            x = self.add("pad", x, amounts=amounts)
        else:
            x = self.interpolated(x, size)
        return self.add("concatenate", *((skip, x) if config.skip_first else (x, skip)), axis=1)

    def interpolated(self, x: str, size: Shape) -> str:
        if self.config.upsampling == "nearest":
            return self.add("interpolate", x, mode="nearest", size=size)
        return self.add("interpolate", x, mode="linear", size=size, align_corners=self.config.align_corners)

    def convolution(self, layer: str, x: str, channels: int, window: int, *, bias: bool) -> str:
        before = self.shapes[x][1]
        self.declare(layer, weight=(channels, before, window, window))
        if bias:
            self.declare(layer, bias=(channels,))
        pads = ((window // 2, window // 2),) * 2
        return self.add("convolution", x, layer=layer, stride=(1, 1), padding=pads, dilation=(1, 1), groups=1)

    def upsampling_convolution(self, layer: str, x: str, channels: int) -> str:
        self.declare(layer, weight=(self.shapes[x][1], channels, 2, 2), bias=(channels,))
        still: dict[str, Any] = {"padding": (0, 0), "output_padding": (0, 0), "dilation": (1, 1), "groups": 1}
        return self.add("transposed_convolution", x, layer=layer, stride=(2, 2), **still)

    def normalised(self, layer: str, x: str, channels: int) -> str:
        config = self.config
        self.declare(layer, weight=(channels,), bias=(channels,))
        if config.norm == "group":
            return self.add("group_norm", x, layer=layer, groups=config.norm_groups, epsilon=config.norm_epsilon)
        self.declare(layer, "statistic", running_mean=(channels,), running_var=(channels,))
        self.declare(layer, "counter", num_batches_tracked=())
        return self.add("batch_norm", x, layer=layer, epsilon=config.norm_epsilon, momentum=config.norm_momentum)

    def declare(self, layer: str, kind: Kind = "parameter", **shapes: Any) -> None:
        """The tensors of a layer, in the order of the state_dict."""
        self.tensors |= {f"{layer}.{name}": Tensor(shape, kind) for name, shape in shapes.items()}

    def add(self, operation: str, *inputs: str, layer: str = "", name: str = "", **attributes: Any) -> str:
        """One more node, with the tensors of a layer; returns its name, by default that of the layer or operation."""
        called = {role: f"{layer}.{_ROLES.get(role, role)}" for role in OPERATIONS[operation].roles}
        tensors = {role: one for role, one in called.items() if one in self.tensors}
        name = name or layer or operation
        times = sum(node.name.partition("#")[0] == name for node in self.nodes)
        node = Node(f"{name}#{times + 1}" if times else name, operation, inputs, tensors, attributes)
        self.nodes.append(node)
        self.shapes[node.name] = OPERATIONS[operation].shape(
            *(self.shapes[one] for one in inputs),
            **{role: Role(self.tensors[one].shape) for role, one in tensors.items()},
            **node.attributes,
        )
        return node.name


_ROLES = {"mean": "running_mean", "variance": "running_var", "count": "num_batches_tracked"}
"""What torch's modules call the tensors of some roles."""
