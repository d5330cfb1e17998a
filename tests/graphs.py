"""Small networks described by hand, as they would be read from code, with statistics that training left behind."""

from typing import Any

import numpy as np

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.evidence import Evidence
from unet_core.graph import INPUT, Graph, Node, Sizes, Tensor
from unet_core.graph.canonical import tensor_specs

CODE = Evidence("code", "their.unet:Net", "3 sizes, 1e-15")


class Build:
    """Adds layers, each with the tensors that torch's module of the kind has, and takes down their names in order."""

    def __init__(self, dimensions: int = 2) -> None:
        self.dimensions = dimensions
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}

    def add(self, name: str, operation: str, *inputs: str, tensors: dict[str, str] | None = None, **attributes: Any):
        self.nodes.append(Node(name, operation, inputs or (INPUT,), tensors or {}, attributes))
        return name

    def own(self, layer: str, **shapes: tuple[tuple[int, ...], str]) -> dict[str, str]:
        names = {}
        for role, (shape, kind) in shapes.items():
            names[role] = f"{layer}.{_NAMES.get(role, role)}"
            self.tensors[names[role]] = Tensor(shape, kind)
        return names

    def conv(self, layer: str, x: str, before: int, after: int, size: int = 3, *, bias: bool = True) -> str:
        tensors = self.own(layer, weight=((after, before, *self.each(size)), "parameter"))
        if bias:
            tensors |= self.own(layer, bias=((after,), "parameter"))
        once, pads = self.each(1), self.each((size // 2, size // 2))
        return self.add(layer, "convolution", x, tensors=tensors, stride=once, padding=pads, dilation=once, groups=1)

    def each(self, value: Any) -> tuple[Any, ...]:
        """The same along every axis."""
        return (value,) * self.dimensions

    def batch_norm(self, layer: str, x: str, channels: int) -> str:
        vector = (channels,)
        tensors = self.own(
            layer,
            weight=(vector, "parameter"),
            bias=(vector, "parameter"),
            mean=(vector, "statistic"),
            variance=(vector, "statistic"),
            count=((), "counter"),
        )
        return self.add(layer, "batch_norm", x, tensors=tensors, epsilon=1e-5, momentum=0.1)

    def group_norm(self, layer: str, x: str, channels: int) -> str:
        tensors = self.own(layer, weight=((channels,), "parameter"), bias=((channels,), "parameter"))
        return self.add(layer, "group_norm", x, tensors=tensors, groups=2, epsilon=1e-5)

    def raised(self, layer: str, x: str, before: int, after: int) -> str:
        tensors = self.own(layer, weight=((before, after, *self.each(2)), "parameter"), bias=((after,), "parameter"))
        return self.add(
            layer,
            "transposed_convolution",
            x,
            tensors=tensors,
            stride=self.each(2),
            padding=self.each(0),
            output_padding=self.each(0),
            dilation=self.each(1),
            groups=1,
        )

    def again(self, layer: str, of: str) -> None:
        """The tensors of a layer a second time, under other names."""
        for name in [name for name in self.tensors if name.startswith(f"{of}.")]:
            tensor = self.tensors[name]
            self.tensors[f"{layer}{name.removeprefix(of)}"] = Tensor(tensor.shape, tensor.kind, name)


_NAMES = {"mean": "running_mean", "variance": "running_var", "count": "num_batches_tracked"}


def small(
    *,
    channels: int = 3,
    classes: int = 2,
    rate: float = 0.0,
    output: str = "logits",
    sizes: Sizes | None = None,
    dimensions: int = 2,
) -> Graph:
    """Two levels: BatchNorm, GroupNorm, dropout of maps, a transposed convolution; names that stand there twice, a
    parameter that nothing uses, a table of integers, and a layer that is called as a method of every network.
    """
    build = Build(dimensions)
    each = build.each
    build.tensors["table"] = Tensor((2, 3), "buffer")
    x = build.conv("down.0", INPUT, channels, 4, bias=False)
    x = build.batch_norm("down.1", x, 4)
    skip = build.add("down.2", "relu", x)
    build.again("down.all.0", "down.1")
    x = build.add("pool", "max_pool", skip, window=each(2), stride=each(2), padding=each(0), dilation=each(1))
    x = build.conv("bottom.0", x, 4, 6)
    x = build.group_norm("bottom.1", x, 6)
    x = build.add("bottom.2", "leaky_relu", x, slope=0.01)
    if rate:
        x = build.add("bottom.3", "dropout", x, rate=rate, kind="maps")
    x = build.raised("up", x, 6, 4)
    x = build.add("joined", "concatenate", skip, x, axis=1)
    logits = build.conv("logits", x, 8, classes, size=1)
    if output != "logits":
        build.add("final", output, logits, **({"axis": 1} if output == "softmax" else {}))
    build.conv("unused", INPUT, 4, classes, size=1)
    build.nodes.pop()
    sizes = sizes or Sizes(multiple=2, least=4)
    return Graph(channels, tuple(build.nodes), build.tensors, dimensions=dimensions, sizes=sizes)


def volume(channels: int = 1, classes: int = 2) -> Graph:
    """One convolution in three dimensions."""
    weight, bias = Tensor((classes, channels, 3, 3, 3), "parameter"), Tensor((classes,), "parameter")
    attributes = {"stride": (1, 1, 1), "padding": ((1, 1),) * 3, "dilation": (1, 1, 1), "groups": 1}
    node = Node("conv", "convolution", (INPUT,), {"weight": "conv.weight", "bias": "conv.bias"}, attributes)
    return Graph(channels, (node,), {"conv.weight": weight, "conv.bias": bias}, dimensions=3)


def unpadded(channels: int = 3, classes: int = 2) -> Graph:
    """One convolution whose map is smaller than the picture."""
    weight = Tensor((classes, channels, 3, 3), "parameter")
    attributes = {"stride": (1, 1), "padding": ((0, 0),) * 2, "dilation": (1, 1), "groups": 1}
    node = Node("conv", "convolution", (INPUT,), {"weight": "conv.weight"}, attributes)
    return Graph(channels, (node,), {"conv.weight": weight}, sizes=Sizes(least=3))


def trained(graph: Graph, seed: int = 0, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Tensors as some training would leave them."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for name, spec in tensor_specs(graph).items():
        if spec.kind in ("counter", "buffer"):
            tensors[name] = rng.integers(1, 1000, spec.shape)
        elif spec.kind == "statistic" or len(spec.shape) == 1:
            low, high = (0.5, 1.5) if name.endswith(("weight", "running_var")) else (-0.3, 0.3)
            tensors[name] = rng.uniform(low, high, spec.shape).astype(dtype)
        else:
            tensors[name] = (rng.standard_normal(spec.shape) / np.sqrt(np.prod(spec.shape[1:]))).astype(dtype)
    return {name: np.asarray(value) for name, value in tensors.items()}


def network(graph: Graph | None = None, seed: int = 0, dtype: Any = np.float32) -> Checkpoint:
    """A checkpoint of such a network."""
    graph = graph or small()
    return Checkpoint(graph, trained(graph, seed, dtype), evidence=CODE)
