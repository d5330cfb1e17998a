"""A network as a graph of operations with PyTorch's meaning: what is computed, in which order, with which tensors."""

import bisect
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from unet_core.codec import OPTIONAL, decoded, encoded
from unet_core.config import Output
from unet_core.errors import ConfigError, shown
from unet_core.graph.node import INPUT, Kind, Node, Sizes, Tensor
from unet_core.graph.operations import OPERATIONS, Ints, Role
from unet_core.graph.sizes import AXES, Shape, evaluate, named

MOST_NODES = 20_000
"""The largest known networks have some two thousand."""

_DEEPEST, _LONGEST = 100, 1000
"""Modules in modules, and characters, of the name of a tensor."""
_MOST_AXES = 16
_LARGEST = 2**48
"""Of what an answer may have along an axis; a file's graph may claim anything."""


@dataclass(frozen=True)
class Graph:
    """A network: one picture in, one map out. Frozen; equal networks compare equal.

    Raises:
        ConfigError: nodes that take what is not before them, tensors that are not there, shapes that do not fit.
    """

    in_channels: int
    """Of the picture."""
    nodes: tuple[Node, ...]
    """In the order in which they run; `output` is the last."""
    tensors: Mapping[str, Tensor]
    """By name, in the order of the state_dict; those that no node uses among them."""
    dimensions: int = 2
    """Of the picture: 2, or 3."""
    sizes: Sizes = field(default_factory=Sizes)
    training: "Graph | None" = None
    """What it computes in training mode, where BatchNorm, dropout and the like do not tell that."""
    untrained: str = ""
    """Why nothing is known of its training mode; empty where it is known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        if not 0 < len(self.nodes) <= MOST_NODES:
            raise ConfigError(f"the graph has {len(self.nodes)} nodes")
        if self.dimensions not in (2, 3) or self.in_channels < 1:
            raise ConfigError(f"a picture of {self.in_channels} channels in {self.dimensions} dimensions")
        known = {INPUT}
        for node in self.nodes:
            strange = [name for name in node.inputs if name not in known]
            strange += [name for name in node.tensors.values() if name not in self.tensors]
            if strange or node.name in known:
                why = f"takes {shown(strange[0])}, which is not there" if strange else "is there twice"
                raise ConfigError(f"node {shown(node.name)}: {why}")
            known.add(node.name)
        for name, tensor in self.tensors.items():
            other = self.tensors.get(tensor.same_as or name)
            if other is None or other.shape != tensor.shape or (tensor.same_as and other.same_as):
                raise ConfigError(f"tensor {shown(name)}: is not the same as {shown(tensor.same_as)}")
        self._check_names()
        shape = self.shapes[self.nodes[-1].name]
        if len(shape) != self.dimensions + 2 or not isinstance(shape[1], int):
            raise ConfigError(f"the network answers {shape}, no map of some channels")

    def __hash__(self) -> int:
        return hash((self.in_channels, self.nodes))

    def __deepcopy__(self, _: Any) -> "Graph":
        return self

    def __reduce__(self) -> Any:
        return Graph.from_json, (self.to_json(),)

    def _check_names(self) -> None:
        names = sorted(self.tensors)
        for name in names:
            below = bisect.bisect_left(names, f"{name}.")
            is_module = names[below : below + 1] and names[below].startswith(f"{name}.")
            if is_module or not all(name.split(".")) or name.count(".") > _DEEPEST or len(name) > _LONGEST:
                raise ConfigError(f"tensor {shown(name)}: no module has one of such a name")

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every node's answer, and of the input, in torch's layout.

        Raises:
            ConfigError: some do not fit together.
        """
        shapes: dict[str, Shape] = {INPUT: (named(AXES[0]), self.in_channels, *map(named, self.axes))}
        for node in self.nodes:
            shapes[node.name] = self.shape_of(node, shapes)
        return shapes

    def shape_of(self, node: Node, shapes: Mapping[str, Shape]) -> Shape:
        """The shape of a node's answer, given those of its inputs."""
        try:
            shape = OPERATIONS[node.operation].shape(
                *(shapes[name] for name in node.inputs),
                **{role: Role(self.tensors[name].shape) for role, name in node.tensors.items()},
                **node.attributes,
            )
            if len(shape) > _MOST_AXES or any(isinstance(size, int) and not 0 <= size <= _LARGEST for size in shape):
                raise ValueError("it answers what no device holds")
            return shape
        except (ValueError, TypeError, IndexError, ZeroDivisionError, OverflowError, RecursionError) as error:
            raise ConfigError(f"node {shown(node.name)}, {node.operation}: {error}") from error

    @property
    def title(self) -> str:
        """What a person calls the network."""
        return f"a network of {len(self.nodes)} operations"

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the picture's sizes, in torch's order."""
        return AXES[-self.dimensions :]

    @property
    def out_channels(self) -> int:
        """Of the answer."""
        channels = self.shapes[self.nodes[-1].name][1]
        assert isinstance(channels, int)
        return channels

    @cached_property
    def output(self) -> Output:
        """What the last node makes of the logits: their sigmoid, their softmax over the channels, or nothing."""
        last = self.nodes[-1]
        if last.operation == "sigmoid":
            return "sigmoid"
        if last.operation == "softmax" and last.attributes["axis"] in (1, -self.dimensions - 1):
            return "softmax"
        return "logits"

    @property
    def logits(self) -> str:
        """The name of the node whose answer is the logits."""
        last = self.nodes[-1]
        return last.name if self.output == "logits" else last.inputs[0]

    @property
    def minimum_size(self) -> int:
        """The smallest height and width, in pixels, that the network takes."""
        if self.sizes.only:
            return min(map(min, self.sizes.only))
        return math.ceil(self.sizes.least / self.sizes.multiple) * self.sizes.multiple

    def sizes_of(self, batch: int, size: Sequence[int]) -> dict[str, int]:
        """The sizes of such an input by name, for `Node.at` and `unet_core.graph.sizes.evaluate`."""
        return {AXES[0]: batch, **dict(zip(self.axes, size, strict=True))}

    def answered(self, size: Sequence[int]) -> tuple[int, ...]:
        """The size of the answer to an input of this size."""
        sizes = self.sizes_of(1, size)
        return tuple(evaluate(length, sizes) for length in self.shapes[self.nodes[-1].name][2:])

    def check_input(self, *shape: int) -> None:
        """Raise ValueError where an input of these sizes and channels, in this order, cannot pass the network."""
        *size, channels = shape
        if len(size) != self.dimensions:
            raise ValueError(f"the input has {len(size)} dimensions, the network takes {self.dimensions}")
        if channels != self.in_channels:
            raise ValueError(f"the input has {channels} channels, the network takes {self.in_channels}")
        if not self.sizes.take(size):
            raise ValueError(f"an input of {'x'.join(map(str, size))}: the network takes {self.sizes}")

    def first_names(self, node: Node) -> dict[str, str]:
        """By their roles, the names of a node's tensors: of one that stands under several names, the first."""
        return {role: self.tensors[name].same_as or name for role, name in node.tensors.items()}

    def uses(self) -> Counter[str]:
        """How often each answer is taken, by other nodes or as that of the network."""
        return Counter([name for node in self.nodes for name in node.inputs] + [self.nodes[-1].name])

    @property
    def averages_batches(self) -> bool:
        """Whether its answers, or running statistics, depend on all examples of a batch in training mode."""
        return any(
            (node.operation == "batch_norm" and not node.attributes["frozen"])
            or (node.operation == "instance_norm" and "mean" in node.tensors)
            for node in self.in_mode(training=True).nodes
        )

    @cached_property
    def trained(self) -> frozenset[str]:
        """The parameters on which the logits depend in training mode, by their first names: the others never change."""
        graph = self.in_mode(training=True)
        nodes = pruned(graph.nodes, graph.logits)
        first = {name for node in nodes for name in graph.first_names(node).values()}
        return frozenset(name for name in first if self.tensors[name].kind == "parameter")

    def in_mode(self, *, training: bool) -> "Graph":
        """What it computes in this mode."""
        return self.training if training and self.training is not None else self

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        fields: dict[str, Any] = {
            "in_channels": self.in_channels,
            "dimensions": self.dimensions,
            "sizes": encoded(self.sizes),
            "nodes": [node.to_dict() for node in self.nodes],
            "tensors": {name: tensor.to_list() for name, tensor in self.tensors.items()},
        }
        if self.training is not None:
            fields["training"] = [node.to_dict() for node in self.training.nodes]
        if self.untrained:
            fields["untrained"] = self.untrained
        return fields

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, fields: Any) -> "Graph":
        """The inverse of `to_dict`.

        Raises:
            ConfigError: they describe no network.
        """
        try:
            stored = decoded(_Stored, fields)
            stored.check()
            common: dict[str, Any] = {
                "in_channels": stored.in_channels,
                "tensors": {name: Tensor(*entry) for name, entry in stored.tensors.items()},
                "dimensions": stored.dimensions,
                "sizes": stored.sizes,
            }
            training = None if stored.training is None else cls(nodes=stored.training, **common)
            return cls(nodes=stored.nodes, training=training, untrained=stored.untrained, **common)
        except ConfigError:
            raise
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the graph is damaged: {shown(error)}") from error

    @classmethod
    def from_json(cls, text: str) -> "Graph":
        """The inverse of `to_json`; raises what `from_dict` raises."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the graph is not JSON: {shown(error)}") from error
        return cls.from_dict(fields)


@dataclass(frozen=True)
class _Stored:
    """What `Graph.to_dict` writes."""

    in_channels: int
    dimensions: int
    sizes: Sizes
    nodes: tuple[Node, ...]
    tensors: Mapping[str, tuple[Ints, Kind] | tuple[Ints, Kind, str]]
    training: tuple[Node, ...] | None = field(default=None, metadata=OPTIONAL)
    untrained: str = field(default="", metadata=OPTIONAL)

    def check(self) -> None:
        """Raise ValueError where no graph is written so."""
        if any(min(shape, default=0) < 0 for shape, *_ in self.tensors.values()):
            raise ValueError("a tensor of a negative size")
        if min(self.sizes.multiple, self.sizes.least) < 1:
            raise ValueError("sizes below one")
        rewritten = [node for node in (*self.nodes, *(self.training or ())) if not OPERATIONS[node.operation].stored]
        if rewritten:
            raise ValueError(f"the operation {rewritten[0].operation}")


def pruned(nodes: Sequence[Node], *outputs: str) -> Iterator[Node]:
    """Those of the nodes on which the answers of `outputs` depend, up to them."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
            kept.append(node)
    yield from reversed(kept)
